"""Numbers that are written as English words, so that a text is not divided in one. Pure."""

import re

__all__ = ["inside_number"]

_NUMERALS = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|trillion|"
    "and|point|dot|oh|minus"
)
_NUMERAL = re.compile(rf"(?i:{_NUMERALS})(?!\w)")
_NUMERAL_BEFORE = re.compile(rf"(?<!\w)(?i:{_NUMERALS})\Z")
LONGEST_CHARS = 10


def inside_number(text: str, start: int, end: int) -> bool:
    """Whether the space text[start:end] stands between two words of a number; "cats and two" may be one."""
    before = _NUMERAL_BEFORE.search(text[max(0, start - LONGEST_CHARS) : start])
    return before is not None and _NUMERAL.match(text, end) is not None
