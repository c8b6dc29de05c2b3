"""Text -> units: which pieces a text is spoken in, with which seed, after which silence, and how long each may be.

    SpeechRequest -> what is spoken of it -> sentences, directives, ends of paragraphs -> pieces -> Unit (x n), in order

Pure: the same request and limits give the same units in any process, streamed or not. Units come as they are asked for,
so that the first of a long text need not wait for the last. Knows nothing of engines, stores or HTTP. What is spoken
of a text is in `spoken.py`, where it is divided in `splitting.py`, what it directs in `directives.py`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain, groupby
from typing import cast

from serve_app.directives import Pause, VoiceSwitch, directive_of, pauses_s, without_directives
from serve_app.domain import FRAMES_PER_S, SpeechRequest, Unit, VoiceRef, VoiceStats
from serve_app.errors import InvalidText, UnusableVoice
from serve_app.splitting import FIRST_BYTES, FIRST_MIN_BYTES, opening, pack, sentences, speakable, width
from serve_app.spoken import spoken_parts
from serve_app.text import FIELD, normalise

__all__ = [
    "PARAGRAPH_PAUSE_S",
    "PLAN_VERSION",
    "PREVIEW_LIMITS",
    "VOICE_PAUSE_S",
    "UnitLimits",
    "estimated_audio_s",
    "has_speech",
    "limits_for_f5",
    "plan",
    "planned",
    "unit_seed",
]

PLAN_VERSION = 2
"""Goes up whenever the units or seeds of any request change, here or in what is done to a text: audio follows."""

NOTHING = f"{FIELD} has nothing to speak: send at least one letter or digit"
ENOUGH_CHARS = 1000
"""Of a paragraph that are looked at together for the ends of its sentences."""
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


def has_speech(request: SpeechRequest) -> bool:
    """Whether anything is left to speak once markup and directives are gone. Raises InvalidText as `planned`."""
    without_directives(normalise(request.text))
    return any(speakable(part) and directive_of(part) is None for part in _spoken_parts(request))


def plan(request: SpeechRequest, limits: UnitLimits) -> tuple[Unit, ...]:
    """All units of `request`, whose voices have the same limits. Raises as `planned`."""
    return tuple(planned(request, lambda _: limits))


def planned(
    request: SpeechRequest,
    limits_of: Callable[[VoiceRef], UnitLimits],
    *,
    first_index: int = 0,
) -> Iterator[Unit]:
    """The units of `request.text`: whole sentences as far as their voice's `max_bytes` allows (see `splitting`), none
    over the end of a paragraph; the first a short clause where the text has one, so that it is heard soon.

    A unit's `frames` are ceil(bytes * frames_per_byte / speed), an estimate of the speech alone, without reference.
    `first_index`: of the first unit; one of 0 begins the speech. Raises InvalidText, also in between, when nothing in
    the text can be spoken, when a directive in it is none, or when a part of it cannot be divided into units.
    """
    without_directives(normalise(request.text))  # checks them
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
    if waiting is None:
        raise InvalidText(NOTHING)
    yield waiting


@dataclass(frozen=True, slots=True)
class _Piece:
    """What becomes a unit; without text, silence behind the last."""

    text: str
    voice: VoiceRef
    pause_s: float


def _pieces(request: SpeechRequest, limits_of: Callable[[VoiceRef], UnitLimits], first_index: int) -> Iterator[_Piece]:
    voice, spoken_by = request.voice, None
    asked_s: float | None = None  # silence before what comes next, where the text asks for some
    for kind, group in groupby(_stretches(request), type):
        if kind is not str:
            for each in group:
                if isinstance(each, VoiceSwitch):
                    voice = _switched(request, each.name)
                elif isinstance(each, Pause):
                    asked_s = (asked_s or 0.0) + each.pause_s
            continue
        pause_s = 0.0 if spoken_by is None else PARAGRAPH_PAUSE_S if spoken_by == voice else VOICE_PAUSE_S
        pause_s = pause_s / request.speed if asked_s is None else asked_s
        opens = first_index == 0 and spoken_by is None
        for piece in _packed(cast("Iterator[str]", group), limits_of(voice).max_bytes, opens=opens):
            yield _Piece(piece, voice, pause_s)
            pause_s = 0.0
        spoken_by, asked_s = voice, None
    if asked_s is not None:
        yield _Piece("", voice, asked_s)


class _ParagraphEnd:
    """Between two paragraphs."""


def _stretches(request: SpeechRequest) -> Iterator[str | VoiceSwitch | Pause | _ParagraphEnd]:
    """Sentences, with the whitespace behind them, and what is between them. What has no letter or digit stays with the
    sentence before or behind it."""
    text, looked_at_chars = "", ENOUGH_CHARS
    for part in _spoken_parts(request):
        directive = directive_of(part)
        if directive is None and part.strip():
            text += part if text else part.lstrip()
            if len(text) >= looked_at_chars:  # to know where sentences end, but for the last
                *known, text = sentences(text) or [text]
                looked_at_chars = max(ENOUGH_CHARS, 2 * len(text))  # one that goes on and on is not looked at each time
                yield from known
        elif speakable(text):
            yield from sentences(text)
            text, looked_at_chars = "", ENOUGH_CHARS
            yield directive or _ParagraphEnd()
        elif directive is not None:
            yield directive
    yield from sentences(text)


def _switched(request: SpeechRequest, name: str) -> VoiceRef:
    if (voice := request.voices.get(name)) is None:
        raise InvalidText(
            f"{FIELD} has [voice:{name}], and a text that comes in pieces cannot switch voices: send it as one text"
        )
    return voice


def _spoken_parts(request: SpeechRequest) -> Iterator[str]:
    return spoken_parts(
        request.text,
        language=request.language,
        languages=request.languages,
        normalize=request.normalize,
        lexicon=request.lexicon,
    )


def _packed(sentences_of: Iterator[str], max_bytes: int, *, opens: bool) -> Iterator[str]:
    """The pieces of a paragraph; of one that `opens` the speech the first is heard soon."""
    if not opens:
        yield from pack(sentences_of, max_bytes)
        return
    begin = ""
    for sentence in sentences_of:
        begin += sentence
        if width(begin) > FIRST_BYTES + FIRST_MIN_BYTES:
            break
    if first := opening(begin, max_bytes):
        yield from pack([begin[:first]], max_bytes)
    yield from pack(chain(sentences(begin[first:]), sentences_of), max_bytes)
