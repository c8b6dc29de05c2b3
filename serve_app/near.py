"""Names that are like one that does not exist, for messages. Pure: knows not whose names they are."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["SHOWN_CHARS", "near_names", "near_words"]

MOST = 3
SHOWN_CHARS = 80
"""Of a wrong name in a message: it may be as long as a request."""


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Those of `names` that somebody may have meant by `name`, the nearest first, three at most, in any case."""
    of = {each.lower(): each for each in sorted(names)}
    return [of[each] for each in get_close_matches(name[:SHOWN_CHARS].lower(), of, MOST)]


def near_words(names: Iterable[str]) -> str:
    """To follow "does not exist" in a message; "" for none."""
    shown = ", ".join(names)
    return f" (near it: {shown})" if shown else ""
