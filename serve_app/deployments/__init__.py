"""Thin Ray shells around plain classes."""
