"""Text -> units: which pieces a text is spoken in, with which seed, after which silence, and how long each may be.

    SpeechRequest -> turns (directives) -> paragraphs -> sentences -> pieces -> Unit (x n), in the order of the text

Pure: the same request and limits give the same units in any process, streamed or not. Units come as they are asked for,
so that the first of a long text need not wait for the last. Knows nothing of engines, stores or HTTP. What is done to
characters is in `text.py`, where a text is divided in `splitting.py`, what a text directs in `directives.py`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain

from serve_app.directives import Turn, pauses_s, turns, without_directives
from serve_app.domain import FRAMES_PER_S, SpeechRequest, Unit, VoiceRef, VoiceStats
from serve_app.errors import InvalidText, UnusableVoice
from serve_app.splitting import FIRST_BYTES, FIRST_MIN_BYTES, opening, pack, sentences, speakable, width
from serve_app.text import FIELD, normalise

__all__ = [
    "PARAGRAPH_PAUSE_S",
    "PLAN_VERSION",
    "PREVIEW_LIMITS",
    "VOICE_PAUSE_S",
    "UnitLimits",
    "estimated_audio_s",
    "limits_for_f5",
    "plan",
    "planned",
    "unit_seed",
]

PLAN_VERSION = 2
"""Goes up whenever the units or seeds of any request change, here or in what is done to a text: audio follows."""

PARAGRAPH_PAUSE_S, VOICE_PAUSE_S = 0.5, 0.25
"""Silence between paragraphs, and where another voice goes on, at speed 1 and where the text asks for none itself."""

F5_OUTPUT_AND_REFERENCE_S = 22
F5_MAX_REFERENCE_S = 12
BYTES_PER_S = 15
MIN_UNIT_BYTES = 16
"""A unit has room for a word; less means that the reference text is not what the reference audio says."""


@dataclass(frozen=True, slots=True)
class UnitLimits:
    """How long a unit may be, in UTF-8 bytes, and what a byte costs in mel frames (93.75 a second) at speed 1."""

    max_bytes: int
    frames_per_byte: float


PREVIEW_LIMITS = UnitLimits(max_bytes=300, frames_per_byte=FRAMES_PER_S / 15)
"""The preview engine speaks about 15 characters a second, so a unit is 20 s at most."""


def limits_for_f5(stats: VoiceStats, speed: float) -> UnitLimits:
    """Limits by F5-TTS's rule that reference and output together stay near 22 s, at the voice's own pace.

    max_bytes = int(text_bytes / duration_s * (22 - duration_s) * speed), from upstream's
    `infer/utils_infer.py` (`infer_process`). Raises UnusableVoice where the voice gives no pace to go by.
    """
    if stats.text_bytes <= 0 or stats.duration_s <= 0:
        raise UnusableVoice(
            f"the voice has {stats.duration_s:.1f} s of reference audio and {stats.text_bytes} bytes of reference "
            "text, and f5 needs both: upload the voice again with ref_text, the text that its audio says"
        )
    if stats.duration_s > F5_MAX_REFERENCE_S:
        raise UnusableVoice(
            f"the voice has {stats.duration_s:.1f} s of reference audio and f5 takes {F5_MAX_REFERENCE_S} s at most: "
            "upload a shorter recording with the text that it says"
        )
    bytes_per_s = stats.text_bytes / stats.duration_s
    max_bytes = int(bytes_per_s * (F5_OUTPUT_AND_REFERENCE_S - stats.duration_s) * speed)
    if max_bytes < MIN_UNIT_BYTES:
        raise UnusableVoice(
            f"the voice has {stats.text_bytes} bytes of text for {stats.duration_s:.1f} s of reference audio: "
            f"at speed {speed:g} that leaves {max_bytes} bytes for a unit of text, and {MIN_UNIT_BYTES} are needed; "
            "upload the voice again with all that its audio says, or ask for a higher speed"
        )
    return UnitLimits(max_bytes, FRAMES_PER_S / bytes_per_s)


def unit_seed(seed: int, index: int) -> int:
    """The seed of unit `index` (0 included), in [0, 2**31), the same in any process and Python version.

    The first four bytes of sha256(f"{seed}:{index}"), big-endian, without their highest bit.
    """
    return int.from_bytes(sha256(f"{seed}:{index}".encode()).digest()[:4], "big") & 0x7FFF_FFFF


def estimated_audio_s(text: str, speed: float) -> float:
    """Seconds of speech that `text` about gives: 15 bytes of UTF-8 a second in most languages, at speed 1. Raises
    InvalidText as `planned`."""
    normal = normalise(text)
    return len(without_directives(normal).encode()) / BYTES_PER_S / speed + pauses_s(normal)


def plan(request: SpeechRequest, limits: UnitLimits) -> tuple[Unit, ...]:
    """All units of `request`, whose voices have the same limits. Raises as `planned`."""
    return tuple(planned(request, lambda _: limits))


def planned(
    request: SpeechRequest, limits_of: Callable[[VoiceRef], UnitLimits], *, first_index: int = 0
) -> Iterator[Unit]:
    """The units of `request.text`: whole sentences as far as their voice's `max_bytes` allows (see `splitting`), none
    over the end of a paragraph; the first a short clause where the text has one, so that it is heard soon.

    A unit's `frames` are ceil(bytes * frames_per_byte / speed), an estimate of the speech alone, without reference.
    `first_index`: of the first unit; one of 0 begins the speech. Raises InvalidText, also in between, when nothing in
    the text can be spoken, when a directive in it is none, or when a part of it cannot be divided into units.
    """
    waiting: Unit | None = None
    index = first_index
    for piece in _pieces(request, limits_of, first_index):
        if waiting is not None and not piece.text:
            waiting = replace(waiting, tail_s=waiting.tail_s + piece.pause_s)
            continue
        if waiting is not None:
            yield waiting
        waiting = Unit(
            index=index,
            text=piece.text,
            voice=piece.voice,
            speed=request.speed,
            seed=unit_seed(request.seed, index),
            frames=math.ceil(len(piece.text.encode()) * limits_of(piece.voice).frames_per_byte / request.speed),
            request_id=request.request_id,
            job_id=request.job_id,
            sampling=request.sampling,
            pause_s=piece.pause_s,
        )
        index += 1
    if waiting is not None:
        yield waiting


@dataclass(frozen=True, slots=True)
class _Piece:
    """What becomes a unit; without text, silence behind the last."""

    text: str
    voice: VoiceRef
    pause_s: float


def _pieces(request: SpeechRequest, limits_of: Callable[[VoiceRef], UnitLimits], first_index: int) -> Iterator[_Piece]:
    text = normalise(request.text)
    if not speakable(without_directives(text)):
        raise InvalidText(f"{FIELD} has nothing to speak: send at least one letter or digit")
    spoken_by: VoiceRef | None = None
    asked_s: float | None = None  # silence before what comes next, where the text asks for some
    for turn in turns(text):
        voice = request.voice if turn.voice is None else _switched(request, turn.voice)
        if turn.pause_s is not None:
            asked_s = (asked_s or 0.0) + turn.pause_s
        for paragraph in _paragraphs(turn):
            pause_s = 0.0 if spoken_by is None else PARAGRAPH_PAUSE_S if spoken_by == voice else VOICE_PAUSE_S
            pause_s = pause_s / request.speed if asked_s is None else asked_s
            max_bytes = limits_of(voice).max_bytes
            is_first = first_index == 0 and spoken_by is None
            for piece in _opened(paragraph, max_bytes) if is_first else pack(sentences(paragraph), max_bytes):
                yield _Piece(piece, voice, pause_s)
                pause_s = 0.0
            spoken_by, asked_s = voice, None
    if asked_s is not None:
        yield _Piece("", request.voice, asked_s)


def _switched(request: SpeechRequest, name: str) -> VoiceRef:
    if (voice := request.voices.get(name)) is None:
        raise InvalidText(
            f"{FIELD} has [voice:{name}], and a text that comes in pieces cannot switch voices: send it as one text"
        )
    return voice


def _paragraphs(turn: Turn) -> Iterator[str]:
    """Those of a turn; one without a letter or digit stays with the one before it, or the first behind."""
    waiting = ""
    for paragraph in turn.text.split("\n\n"):
        if waiting and speakable(waiting) and speakable(paragraph):
            yield waiting
            waiting = ""
        waiting = f"{waiting}\n{paragraph}" if waiting else paragraph
    if speakable(waiting):
        yield waiting


def _opened(paragraph: str, max_bytes: int) -> Iterator[str]:
    """The pieces of the first paragraph, of which the first is heard soon."""
    coming, begin = iter(sentences(paragraph)), ""
    for sentence in coming:
        begin += sentence
        if width(begin) > FIRST_BYTES + FIRST_MIN_BYTES:
            break
    first = opening(begin, max_bytes)
    if first:
        yield from pack([begin[:first]], max_bytes)
    yield from pack(chain(sentences(begin[first:]), coming), max_bytes)
