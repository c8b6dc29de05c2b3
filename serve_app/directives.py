"""What a text itself directs: `[voice:anna]` has all that follows spoken by another voice, `[pause:0.5]` is silence in
seconds.

Pure: whether there is such a voice is not known here. Anything else in brackets is text.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from serve_app.errors import InvalidText

__all__ = [
    "MAX_PAUSES_S",
    "MAX_PAUSE_S",
    "MAX_VOICES",
    "Pause",
    "VoiceSwitch",
    "directive_of",
    "named_voices",
    "parted",
    "pauses_s",
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
class VoiceSwitch:
    """`name`: as the text has it."""

    name: str


@dataclass(frozen=True, slots=True)
class Pause:
    """`pause_s`: silence, in seconds."""

    pause_s: float


def directive_of(part: str) -> VoiceSwitch | Pause | None:
    """What `part` of a checked text directs, if it is a directive and nothing else."""
    if (found := _DIRECTIVE.fullmatch(part)) is None:
        return None
    return VoiceSwitch(found["value"].strip()) if found["what"] == "voice" else Pause(float(found["value"]))


def parted(text: str) -> list[str]:
    """`text` in parts, of which each second one is a directive; joined, they are the text."""
    ends = [0, *(end for found in _DIRECTIVE.finditer(text) for end in found.span()), len(text)]
    return [text[begin:end] for begin, end in pairwise(ends)]


def named_voices(text: str) -> tuple[str, ...]:
    """The names of voices in `text`, each once, in order.

    Raises InvalidText for a directive whose value is none or out of its range, and for too many of them.
    """
    _check(text)
    return tuple(dict.fromkeys(_voices(text)))


def pauses_s(text: str) -> float:
    """Seconds of all pauses that `text` asks for. Raises InvalidText as `named_voices`."""
    _check(text)
    return sum(map(float, _pauses(text)))


def without_directives(text: str) -> str:
    """`text` with a space for each directive. Raises InvalidText as `named_voices`."""
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
