"""A rule: what is found in a text, and what is said in its place."""

import re
from collections.abc import Callable, Iterable

__all__ = ["Rule", "applied"]

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


def applied(rules: Iterable[Rule], text: str) -> str:
    """`text` after each of `rules` in turn. What a rule has written has no digit, so no later one reads it anew."""
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text
