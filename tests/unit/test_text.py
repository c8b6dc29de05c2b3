"""The canonical form of a text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import InvalidText
from serve_app.text import normalise

ANY_TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("\u0301\u0323\u200b\u200d\n\r\u2029 e\xad"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("e\u0301", "é"),
        ("a \t b", "a b"),
        ("a\u00a0b\u3000c\u200bd", "a b c d"),
        ("a\r\nb", "a\nb"),
        ("a \n b", "a\nb"),
        ("a\n \n\n b", "a\n\nb"),
        ("a\u2028b\u2029c", "a\nb\n\nc"),
        ("a\x00\x07b\x9fc", "abc"),
        ("co\xadop \ufeff\u202eend\u202c", "coop end"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # a non-joiner is spelling
        ("👩\u200d👧", "👩\u200d👧"),
        ("e\x00\u0301", "é"),
        ("  \n", ""),
        ("ｆｕｌｌ", "ｆｕｌｌ"),  # NFC, not NFKC: what is written is what is spoken
    ],
)
def test_form(text: str, expected: str) -> None:
    """Whitespace is one space, one newline or a blank line; controls go; what joins characters stays."""
    assert normalise(text) == expected


@given(ANY_TEXT)
def test_normalising_twice_changes_nothing(text: str) -> None:
    """It is a canonical form, in NFC."""
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)


@given(ANY_TEXT)
def test_no_letter_is_lost(text: str) -> None:
    """Letters, digits and marks are those of the text's own NFC."""
    heard = "".join(c for c in text if unicodedata.category(c) not in {"Cc", "Cf"})
    composed = unicodedata.normalize("NFC", heard)
    kept = "".join(c for c in unicodedata.normalize("NFC", normalise(text)) if unicodedata.category(c) != "Cf")
    assert [c for c in kept if c.isalnum()] == [c for c in composed if c.isalnum()]


def test_half_a_character_is_refused() -> None:
    """A lone surrogate has no UTF-8; the message says where it is."""
    with pytest.raises(InvalidText, match=r"half a character \(U\+D83D\) at position 3"):
        normalise("Hi \ud83d")


def test_stacked_marks_are_refused() -> None:
    """Composing time grows with the square of a run of marks, so a run ends at 30."""
    assert len(normalise("x" + "\u0323" * 30)) == 31
    with pytest.raises(InvalidText, match="more than 30 combining marks on the character at position 2"):
        normalise("a x" + "\u0323" * 31)
