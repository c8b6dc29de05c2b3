"""What a reader sees as one character: where a text cannot be divided.

After the rules of Unicode's UAX #29 for extended grapheme clusters, which the standard library does not have, by
general category; where in doubt they join. Knows no words and no languages.
"""

import re
import unicodedata
from itertools import pairwise

__all__ = ["inside_characters"]


def inside_characters(text: str) -> frozenset[int]:
    """Positions at which dividing `text` would tear a character. Emoji and flags have no rule: they hold no letter or
    digit, and no piece of a text begins inside a run of them (see `splitting`)."""
    if text.isascii():
        return frozenset()
    pairs = enumerate(pairwise(text), 1)
    return frozenset(at for at, (before, after) in pairs if _extends(after) or _binds(before, after))


# Letters that extend what is before them: Thai and Lao AM, halfwidth kana voicing, Hangul vowels and finals.
_EXTENDER = re.compile("[\u0e33\u0eb3\uff9e\uff9f\u1160-\u11ff\ud7b0-\ud7fb]")
_HANGUL_INITIAL = re.compile("[\u1100-\u115f\ua960-\ua97c](?=[\u1100-\u115f\ua960-\ua97c\uac00-\ud7a3])")
# Letters that are written before the consonant they sound with (Malayalam dot reph and historical scripts).
_PREFIXED = re.compile("[\u0d4e\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011a84-\U00011a89\U00011d46]")
_VIRAMA = 9  # canonical combining class: the sign that joins two consonants
_ZERO_WIDTH_NON_JOINER = "\u200c"


def _extends(character: str) -> bool:
    """Marks, joiners and tags belong to the character before them."""
    return unicodedata.category(character) in {"Mn", "Mc", "Me", "Cf"} or _EXTENDER.match(character) is not None


def _binds(before: str, after: str) -> bool:
    """Joiners, prefixed letters, a virama and Hangul initials hold the character behind them."""
    if unicodedata.category(before) == "Cf":
        return before != _ZERO_WIDTH_NON_JOINER
    if unicodedata.combining(before) == _VIRAMA:
        return after.isalpha()
    return (_HANGUL_INITIAL.match(before + after) or _PREFIXED.match(before)) is not None
