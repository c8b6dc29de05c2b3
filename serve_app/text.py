"""Text as it is spoken: one canonical form of what a client sent. Knows no language and no model."""

import re
import unicodedata

from serve_app.errors import InvalidText

__all__ = ["normalise"]

FIELD = "text (`input` in the OpenAI dialect)"
MAX_MARKS = 30
"""Combining marks on one character, as in the stream-safe format of Unicode's UAX #15: no language needs more, and
composing a longer run takes time that grows with its square."""

# Controls, soft hyphens, direction marks, byte-order marks: neither heard nor needed to join characters.
_UNHEARD = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
_SPACES = re.compile("[\\s\u200b]+")
_LINE_ENDS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def normalise(text: str) -> str:
    """`text` in NFC without controls; whitespace becomes one space, one newline, or two newlines (a paragraph).

    The place for what a later plan version does to words: numbers, currencies, abbreviations.
    Raises InvalidText for a lone surrogate, which is half a character and has no UTF-8, and for a character with
    more than 30 combining marks.
    """
    if lone := _SURROGATE.search(text):
        raise InvalidText(
            f"{FIELD} has half a character (U+{ord(lone[0]):04X}) at position {lone.start()}: send it whole, in UTF-8"
        )
    heard = _UNHEARD.sub("", text)
    _check_marks(heard)
    return _SPACES.sub(_canonical_space, unicodedata.normalize("NFC", heard)).strip()


def _check_marks(text: str) -> None:
    if text.isascii():
        return
    marks = 0
    for at, character in enumerate(text):
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > MAX_MARKS:
            raise InvalidText(
                f"{FIELD} has more than {MAX_MARKS} combining marks on the character at position {at - marks}: "
                "remove the stacked marks"
            )


def _canonical_space(run: re.Match[str]) -> str:
    ends = _LINE_ENDS.findall(run[0])
    return "\n\n" if len(ends) > 1 or "\u2029" in ends else "\n" if ends else " "


def with_plain_spaces(text: str) -> str:
    """`text`, as long as before, with the whitespace that `normalise` gives it; what is left of a run is before it."""
    return _SPACES.sub(lambda run: _canonical_space(run).rjust(len(run[0]))[-len(run[0]) :], text)
