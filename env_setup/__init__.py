"""Prepares a machine or an image. Holds the dependency locks; knows nothing of the service or Ray."""
