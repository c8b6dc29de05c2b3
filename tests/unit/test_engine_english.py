"""What the preview engine reads of a text: all of its letters and digits, or an error that names what it cannot."""

import json
import unicodedata
from functools import cache
from importlib.resources import files

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serve_app.engine.english import EnglishReader, quoted
from serve_app.errors import InvalidText


@cache
def reader() -> EnglishReader:
    return EnglishReader()


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("Hello, world.", "Hello, world."),
        ("𝐇𝐞𝐥𝐥𝐨 ｗｏｒｌｄ", "Hello world"),
        ("ﬁve", "five"),
        ("٣ ５ ३", "3 5 3"),
        ("Hà Nội", "Hà Nôi"),
        ("½ m²", "one half m squared"),
        ("[here](there)", "[here] (there)"),
        ("Hello \N{GRINNING FACE} world", "Hello  world"),
    ],
)
def test_reads_as(text: str, same_as: str) -> None:
    """Digits and letters in other dress are read as what they are; emoji are passed over; links are no markup."""
    assert reader()(text).split() == reader()(same_as).split() != []


def test_accents_are_read() -> None:
    """An accent that English readers know is not taken off: a résumé is nothing to resume."""
    assert reader()("résumé") == "ɹˌAsumˈA" != reader()("resume")


@pytest.mark.parametrize("text", ["", "  ", "\N{GRINNING FACE}\N{ROCKET}", "→ ↑"])
def test_nothing_to_read(text: str) -> None:
    """Without a letter or digit there are no words."""
    assert reader()(text).removesuffix("tu") == ""  # an arrow is read "to"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Say 你好 to everyone", "你好"),
        ("Привет", "Привет"),
        ("नमस्ते", "नमसत"),
        ("مرحبا", "مرحبا"),
        ("한국어", "한국어"),
        ("The angle is π", "π"),
        ("10⁴ metres", "⁴"),
        ("1⅓ cups", "⅓"),
    ],
)
def test_other_scripts_are_refused(text: str, named: str) -> None:
    """The error gives the beginning of the text, the letters, and the remedy."""
    with pytest.raises(InvalidText, match=rf"text '{text}'.*\({named}\): preview speaks English only: write it in"):
        reader()(text)


def test_a_number_without_a_name_is_refused() -> None:
    """Beyond the decillions there is no word; the error says what to do."""
    with pytest.raises(InvalidText, match=r"text '1{40}\.\.\.' has a number .*: write it in words"):
        reader()("1" * 50)


@pytest.mark.parametrize(
    ("text", "phonemes"),
    [("It went - 8 from here", "ˈAt"), ("range -8..+8", "mˈInəs ˈAt"), ("(2.0)", "tˈu"), ("US$5", "fˈIv dˈɑləɹz")],
)
def test_digits_among_signs_are_read(text: str, phonemes: str) -> None:
    """hibari's tagger takes some numbers for punctuation, which it would leave out."""
    assert phonemes in reader()(text)


def test_what_would_be_left_out_is_refused() -> None:
    """Where hibari gives no phonemes for a digit among signs, the error names it."""
    with pytest.raises(InvalidText, match=r"text '%\.2’\$' has '\.2', which preview cannot read"):
        reader()("%.2’$")


def test_a_long_word_is_read_to_its_end() -> None:
    """The network for unknown words sees 24 letters at a time; the rest of a longer word is read too."""
    word = "brintlomaquesterfandiluvendrograstomil"
    assert len(word) > 24
    halves = reader()(word[:19]), reader()(word[19:])
    assert reader()(word) == "".join(halves)


def test_a_letter_before_a_dollar_sign_is_read() -> None:
    """The tagger takes both for a sign."""
    assert reader()("é$ 0").split()[0] == reader()("é")


@given(st.text("abcdefghijklmnopqrstuvwxyzABC 0123456789.,'-:$%/éüß", max_size=30))
@example("ß$ 0")
@example(",/$0")
@settings(max_examples=300, deadline=None)
def test_whatever_is_read_is_in_the_models_alphabet(text: str) -> None:
    """No phoneme that the model does not know, for it would be dropped; something for every text with a letter.

    A few heaps of signs with a dollar among them are refused, as the test above shows.
    """
    alphabet = set(json.loads(files("hibari").joinpath("assets/vocab.json").read_text()))
    try:
        phonemes = reader()(unicodedata.normalize("NFC", text))
    except InvalidText:
        assert "$" in text
        return
    assert set(phonemes) <= alphabet | {" "}
    assert any(map(str.isalpha, phonemes)) or not any(map(str.isalnum, text))


def test_quoted() -> None:
    """Messages show the beginning of a long text."""
    assert quoted("short") == "'short'"
    assert quoted("x" * 41) == repr("x" * 40 + "...")
