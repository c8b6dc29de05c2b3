"""Voices and pauses that a text itself asks for."""

import pytest

from serve_app.directives import (
    MAX_VOICES,
    Pause,
    VoiceSwitch,
    directive_of,
    named_voices,
    parted,
    pauses_s,
    without_directives,
)
from serve_app.errors import InvalidText

DIRECTIVES = [
    ("[voice:anna]", VoiceSwitch("anna")),
    ("[voice: Anna B ]", VoiceSwitch("Anna B")),
    ("[pause:0.5]", Pause(0.5)),
    ("[pause:.25]", Pause(0.25)),
    ("[pause:10]", Pause(10.0)),
    ("[pause]", None),
    ("[Pause:1]", None),
    ("[a:b]", None),
    ("x[pause:1]", None),
    ("[pause:1] ", None),
    ("", None),
]


@pytest.mark.parametrize(("part", "expected"), DIRECTIVES)
def test_a_directive(part: str, expected: VoiceSwitch | Pause | None) -> None:
    """It stands in brackets, alone; what is no directive is text."""
    assert directive_of(part) == expected


@pytest.mark.parametrize("text", ["", "a", "[pause:1]", "a[pause:1][voice:b] c", f"x [voice:{'y' * 300}] z", "[pause]"])
def test_parts_are_the_text(text: str) -> None:
    """Each second one is a directive, and no other."""
    parts = parted(text)
    assert "".join(parts) == text
    assert [directive_of(part) is not None for part in parts] == [index % 2 == 1 for index in range(len(parts))]


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
    for function in (named_voices, pauses_s, without_directives):
        with pytest.raises(InvalidText, match=message):
            function(text)
