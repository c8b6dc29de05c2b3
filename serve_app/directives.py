"""What a text itself directs: `[voice:anna]` has all that follows spoken by another voice, `[pause:0.5]` is silence in
seconds.

    text -> Turn (x n): what is spoken by one voice, and the silence before it

Pure: whether there is such a voice is not known here. Anything else in brackets is text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from serve_app.errors import InvalidText

__all__ = [
    "MAX_PAUSES_S",
    "MAX_PAUSE_S",
    "MAX_VOICES",
    "Turn",
    "named_voices",
    "pauses_s",
    "turns",
    "without_directives",
]

FIELD = "text (`input` in the OpenAI dialect)"
MAX_PAUSE_S, MAX_PAUSES_S = 10.0, 600.0
"""Of one pause, and of all in a text: silence costs memory as speech does, and a character of text none."""
MAX_VOICES = 20
"""Different voices that a text may switch to: each is looked up before it is accepted."""
_DIRECTIVE = re.compile(r"\[(?P<what>voice|pause):(?P<value>[^\[\]\n]*)\]")
_SECONDS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6})?|\.[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class Turn:
    """`voice`: by the name that the text has for it, None: the request's own. `pause_s`: silence before it, None: none
    was asked for. `text` may be blank, where silence ends a text."""

    text: str
    voice: str | None = None
    pause_s: float | None = None


def turns(text: str) -> Iterator[Turn]:
    """The turns of `text`, in order; directives that follow one another belong to the same turn.

    Raises InvalidText for a directive whose value is none, or that is out of its range.
    """
    _check(text)
    voice: str | None = None
    pause_s: float | None = None
    begin = 0
    for found in _DIRECTIVE.finditer(text):
        if before := text[begin : found.start()].strip():
            yield Turn(before, voice, pause_s)
            pause_s = None
        begin = found.end()
        if found["what"] == "voice":
            voice = found["value"].strip()
        else:
            pause_s = (pause_s or 0.0) + float(found["value"])
    if text[begin:].strip() or pause_s is not None or begin == 0:
        yield Turn(text[begin:].strip(), voice, pause_s)


def named_voices(text: str) -> tuple[str, ...]:
    """The names of voices in `text`, each once, in order. Raises InvalidText as `turns`."""
    _check(text)
    return tuple(dict.fromkeys(_voices(text)))


def pauses_s(text: str) -> float:
    """Seconds of all pauses that `text` asks for. Raises InvalidText as `turns`."""
    _check(text)
    return sum(map(float, _pauses(text)))


def without_directives(text: str) -> str:
    """`text` with a space for each directive. Raises InvalidText as `turns`."""
    _check(text)
    return _DIRECTIVE.sub(" ", text)


def _check(text: str) -> None:
    for found in _DIRECTIVE.finditer(text):
        value = found["value"].strip()
        if found["what"] == "voice":
            if not value:
                raise InvalidText(f"{FIELD} has {found[0]!r} at position {found.start()}: name one, as in [voice:anna]")
        elif not _SECONDS.fullmatch(found["value"]) or float(found["value"]) > MAX_PAUSE_S:
            raise InvalidText(
                f"{FIELD} has {found[0][:40]!r} at position {found.start()}: send seconds from 0 to {MAX_PAUSE_S:g}, "
                "as in [pause:0.5]"
            )
    if (voices := len(set(_voices(text)))) > MAX_VOICES:
        raise InvalidText(f"{FIELD} switches to {voices} voices, at most {MAX_VOICES} are taken: send it in parts")
    if (silence_s := sum(map(float, _pauses(text)))) > MAX_PAUSES_S:
        raise InvalidText(
            f"{FIELD} asks for {silence_s:g} s of pauses, at most {MAX_PAUSES_S:g} are taken: shorten some"
        )


def _voices(text: str) -> list[str]:
    return [found["value"].strip() for found in _DIRECTIVE.finditer(text) if found["what"] == "voice"]


def _pauses(text: str) -> list[str]:
    return [found["value"] for found in _DIRECTIVE.finditer(text) if found["what"] == "pause"]
