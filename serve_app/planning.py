"""Text -> units: which pieces a text is spoken in, with which seed and how long each may be.

    SpeechRequest + UnitLimits -> normalise -> split -> Unit (x n), in the order of the text

Pure: the same request and limits give the same units in any process, streamed or not. Knows nothing of engines,
stores or HTTP. What is done to words is in `text.py`, where a text is divided in `splitting.py`.
"""

import math
from dataclasses import dataclass
from hashlib import sha256

from serve_app.domain import FRAMES_PER_S, SpeechRequest, Unit, VoiceStats
from serve_app.errors import UnusableVoice
from serve_app.splitting import split
from serve_app.text import normalise

__all__ = ["PLAN_VERSION", "PREVIEW_LIMITS", "UnitLimits", "estimated_audio_s", "limits_for_f5", "plan", "unit_seed"]

PLAN_VERSION = 1
"""Goes up whenever the units or seeds of any request change, here, in `text.py` or in `splitting.py`: audio follows."""

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
    """Seconds of speech that `text` about gives: 15 bytes of UTF-8 a second in most languages, at speed 1."""
    return len(normalise(text).encode()) / BYTES_PER_S / speed


def plan(request: SpeechRequest, limits: UnitLimits, *, first_index: int = 0) -> tuple[Unit, ...]:
    """The units of `request.text`: whole sentences as far as `limits.max_bytes` allows (see `splitting.split`).

    A unit's `frames` are ceil(bytes * frames_per_byte / speed), an estimate of the speech alone, without reference.
    `first_index`: of the first unit. Raises InvalidText when nothing in the text can be spoken, or a part of it cannot
    be divided into units.
    """
    pieces = split(normalise(request.text), limits.max_bytes)
    return tuple(
        Unit(
            index=index,
            text=piece,
            voice=request.voice,
            speed=request.speed,
            seed=unit_seed(request.seed, index),
            frames=math.ceil(len(piece.encode()) * limits.frames_per_byte / request.speed),
            request_id=request.request_id,
            job_id=request.job_id,
            sampling=request.sampling,
        )
        for index, piece in enumerate(pieces, first_index)
    )
