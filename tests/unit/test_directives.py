"""Voices and pauses that a text itself asks for."""

import pytest

from serve_app.directives import MAX_VOICES, Turn, named_voices, pauses_s, turns, without_directives
from serve_app.errors import InvalidText

TURNS = [
    ("No directive.", [Turn("No directive.")]),
    ("", [Turn("")]),
    ("[voice:anna] Hello. [voice:bert]Hi!", [Turn("Hello.", "anna"), Turn("Hi!", "bert")]),
    ("One [pause:0.5] two.", [Turn("One"), Turn("two.", None, 0.5)]),
    ("[pause:1][voice:anna][pause:.25] Go.", [Turn("Go.", "anna", 1.25)]),
    ("Stay [voice:anna] on [pause:1] and on.", [Turn("Stay"), Turn("on", "anna"), Turn("and on.", "anna", 1.0)]),
    ("The end. [pause:2]", [Turn("The end."), Turn("", None, 2.0)]),
    ("The end. [voice:anna]", [Turn("The end.")]),
    ("[pause] [voice] [Pause:1] [a:b] x[0]", [Turn("[pause] [voice] [Pause:1] [a:b] x[0]")]),
]


@pytest.mark.parametrize(("text", "expected"), TURNS)
def test_turns(text: str, expected: list[Turn]) -> None:
    """A voice holds until the next, a pause is before what follows; what is no directive is text."""
    assert [*turns(text)] == expected


def test_what_is_known_of_a_text_beforehand() -> None:
    """Its voices, each once and in order, all its pauses, and what is left to speak."""
    text = "[voice:b] x [pause:1.5] y [voice:a] z [voice:b][pause:0] w"
    assert named_voices(text) == ("b", "a")
    assert pauses_s(text) == 1.5
    assert without_directives(text).split() == ["x", "y", "z", "w"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Wait [pause:long] here.", r"has '\[pause:long\]' at position 5: send seconds from 0 to 10"),
        ("[pause:]", "send seconds"),
        ("[pause:-1]", "send seconds"),
        ("[pause:1e3]", "send seconds"),
        ("[pause:nan]", "send seconds"),
        ("[pause:10.5]", "send seconds from 0 to 10"),
        ("[pause: 1]", "send seconds"),
        ("[voice: ]Hi", r"has '\[voice: \]' at position 0: name one, as in \[voice:anna\]"),
        ("[pause:10]a" * 61, "asks for 610 s of pauses, at most 600 are taken"),
        ("".join(f"[voice:v{n}]a" for n in range(MAX_VOICES + 1)), "switches to 21 voices, at most 20 are taken"),
    ],
)
def test_a_directive_that_is_none_is_refused(text: str, message: str) -> None:
    """With what was sent, where, and what to send; whoever asks."""
    for function in (lambda text: [*turns(text)], named_voices, pauses_s, without_directives):
        with pytest.raises(InvalidText, match=message):
            function(text)
