"""The whole chain from a client's text to what is spoken. Its readings are in tests/golden."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.errors import InvalidText
from serve_app.spoken import normalisers_of, spoken_parts, spoken_text

F5 = ("en", "zh")
SIGNS = st.sampled_from(
    [
        *"0123456789.,:/-–%$€£¥°²½ \n\n*_`#|>[]()~!?<=+×x'\"@&T年个の٣😀\u200d",
        *(
            "http://a.b/",
            "www.",
            "No. ",
            "pm",
            " kg",
            "5",
            "10",
            "1st",
            "II ",
            "```",
            "\n- ",
            "\n# ",
            "|---|",
            "March ",
        ),
        *("March ", "e5", "\ufe0f\u20e3", "[pause:", "c@d.ef", "\u0301"),
    ]
)
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=60) | st.lists(SIGNS, max_size=30).map("".join)
LANGUAGE = st.sampled_from([None, "en", "zh-CN", "ja", "de"])
WORDS = st.lists(st.text("jquwy", min_size=3, max_size=9), min_size=1, max_size=9).map(" ".join)


@settings(max_examples=400, deadline=None)
@given(ANY_TEXT, LANGUAGE, st.booleans())
def test_any_text_can_be_spoken(text: str, language: str | None, normalize: bool) -> None:
    """Nothing is raised, and what comes out is in NFC."""
    spoken = spoken_text(text, language=language, languages=F5, normalize=normalize)
    assert unicodedata.is_normalized("NFC", spoken)


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT)
def test_the_parts_are_the_text(text: str) -> None:
    """They differ in when they are made alone."""
    parts = list(spoken_parts(text, language="en"))
    assert spoken_text("".join(parts), normalize=False) == spoken_text(text, language="en")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("0123456789.,:/-%$°x+ "), max_size=14).map("".join), WORDS)
def test_no_word_and_no_number_is_lost(number: str, words: str) -> None:
    """Words beside a number stay, and of a number something is said, in words."""
    spoken = spoken_text(f"{words} {number} {words}", language="en")
    assert (spoken.startswith(words), spoken.endswith(words)) == (True, True)
    assert not any("0" <= character <= "9" for character in spoken)
    said = spoken.removeprefix(words).removesuffix(words)
    assert any(map(str.isalpha, said)) or not any(map(str.isdecimal, number))


@given(WORDS, LANGUAGE)
def test_plain_words_are_left_alone(words: str, language: str | None) -> None:
    """Twice is as once, and once is nothing."""
    assert spoken_text(words, language=language, languages=F5) == words


def test_half_a_character_is_refused() -> None:
    """As by the text's canonical form, in the client's own positions."""
    with pytest.raises(InvalidText, match="half a character"):
        spoken_text("5 \ud83d", language="en")


@pytest.mark.parametrize(
    ("text", "language", "languages", "used"),
    [
        ("Five 5", None, F5, ("en",)),
        ("Five 5. 我有3个。", None, F5, ("en", "zh")),
        ("我有3个。", None, ("en",), ("zh",)),
        ("りんごを3個。東京。", None, F5, ("ja",)),
        ("東京2020\nりんごを3個ください", None, F5, ("ja",)),
        ("Fünf 5", "de", F5, ()),
        ("Fünf 5", None, ("de",), ()),
        ("Five 5", None, ("en", "de"), ()),
        ("Five 5", "en-GB", ("en", "de"), ("en",)),
        ("Five 5", "pt-BR", F5, ()),
        ("5", "zh", F5, ("zh",)),
        ("5", None, ("en",), ("en",)),
        ("Привет 5", None, F5, ()),
        ("[voice:anna] 我有3个", None, F5, ("zh",)),
    ],
)
def test_which_languages_are_written_out(
    text: str, language: str | None, languages: tuple[str, ...], used: tuple[str, ...]
) -> None:
    """The request's, else by script, and English only for a model without another language in Latin script."""
    assert normalisers_of(text, language=language, languages=languages) == used
    changed = spoken_text(text, language=language, languages=languages) != text
    assert changed or not used or text == "りんごを3個。東京。"


def test_normalize_off_leaves_all_but_the_lexicon() -> None:
    """Then only spaces and controls are put in order."""
    spoken = spoken_text("**5**\t👋 https://www.a.com GIF", normalize=False, languages=F5, lexicon=(("GIF", "jif"),))
    assert spoken == "**5** 👋 https://www.a.com jif"
    assert normalisers_of("5", language="en", normalize=False) == ()


def test_a_directive_is_left_alone() -> None:
    """By markup, lexicon and numbers alike, also in front of a parenthesis."""
    text = "[voice:GIF_5] [pause:0.5](really) [pause:5 s]"
    assert spoken_text(text, language="en", lexicon=(("GIF", "jif"), ("pause", "stop"))) == text


def test_numbers_are_read_when_their_part_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the first words of a long text need not wait for its last."""
    from serve_app.normalisation import english

    read: list[str] = []
    real = english.applied
    monkeypatch.setattr(english, "applied", lambda rules, text: (read.append(text), real(rules, text))[1])
    parts = spoken_parts("One 1.\nTwo 2.\n\nThree 3.", language="en")
    assert next(parts) == "One one.\n"
    assert not any("2" in line for line in read)
    assert list(parts) == ["Two two.\n", "\n", "Three three."]
