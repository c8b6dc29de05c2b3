"""The nouns that pass between layers, and the protocols they pass through.

Knows nothing of HTTP, Ray, S3 or any model. Everything here is immutable and crosses process
boundaries by pickle, so it holds plain values and numpy arrays only.

    SpeechRequest -> plan -> Unit (x n) -> engine -> SpokenUnit (x n) -> assemble -> Speech
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BUILTIN",
    "DEFAULT_TENANT",
    "FRAMES_PER_S",
    "SAMPLE_RATE_HZ",
    "JobState",
    "Pcm",
    "Sampling",
    "Speech",
    "SpeechRequest",
    "SpokenUnit",
    "Synthesizer",
    "Unit",
    "Voice",
    "VoiceRef",
    "VoiceStats",
    "version_of",
]

SAMPLE_RATE_HZ = 24_000
"""Every waveform between layers is mono at this rate."""

FRAMES_PER_S = 93.75
"""Mel frames: 256 samples each."""

DEFAULT_TENANT = "default"
BUILTIN = "builtin"
"""The version of a voice that lives inside an engine, not in the store."""

Pcm = NDArray[np.float32]
"""Waveform: shape (samples,), mono, 24 kHz, in [-1, 1]."""

JobState = Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"]


@dataclass(frozen=True, slots=True)
class VoiceRef:
    """Which voice, and which version of it: fixed when a request is accepted.

    `version` changes whenever the audio or the text of the voice changes; BUILTIN for a voice
    that comes with an engine.
    """

    name: str
    version: str
    tenant: str = DEFAULT_TENANT

    @property
    def builtin(self) -> bool:
        return self.version == BUILTIN


@dataclass(frozen=True, slots=True)
class VoiceStats:
    """What planning needs of a voice: seconds of reference audio, UTF-8 bytes of reference text (0: none)."""

    duration_s: float
    text_bytes: int


@dataclass(frozen=True, slots=True)
class Voice:
    """A canonical voice: decoded reference audio with its text ("" where none is stored)."""

    ref: VoiceRef
    audio: Pcm = field(repr=False)  # (samples,), mono, 24 kHz
    text: str

    @property
    def size_bytes(self) -> int:
        return self.audio.nbytes + len(self.text.encode())

    @property
    def stats(self) -> VoiceStats:
        return VoiceStats(len(self.audio) / SAMPLE_RATE_HZ, len(self.text.encode()))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a flow-matching model samples, by upstream's names and with its defaults.

    `nfe_steps`: evaluations of the ODE; `cfg_strength`: how strongly text and reference guide, 0 leaves guidance out;
    `sway`: bends the steps, -1 takes small ones first, 0 leaves them as they are.
    """

    nfe_steps: int = 32
    cfg_strength: float = 2.0
    sway: float = -1.0


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """Speech as it was accepted: model, voice version, seed and parameters are already decided.

    `speed` is a factor on the speaking rate (1.0 natural, 2.0 twice as fast). `sampling` is None for a model that does
    not sample; `cross_fade_s`, between the units, is None for the model's own. `model_version` is the `made_by` that
    the model's replicas had published (see `runtimes`), None where none had. `language` is that of the text ("en",
    "pt-BR"), None where nobody said: then `languages`, which are the model's, decide with the script. `normalize`:
    markup goes, and numbers become words; `normalisers`: in which languages, of which the text has some. `lexicon`:
    words and how they are spelled for the model. `voices`: those that the text itself switches to, by its names.
    """

    text: str
    model: str
    voice: VoiceRef
    speed: float
    seed: int
    request_id: str
    tenant: str = DEFAULT_TENANT
    job_id: str | None = None
    sampling: Sampling | None = None
    cross_fade_s: float | None = None
    model_version: str | None = None
    language: str | None = None
    languages: tuple[str, ...] = ()
    normalize: bool = True
    normalisers: tuple[str, ...] = ()
    lexicon: tuple[tuple[str, str], ...] = ()
    voices: Mapping[str, VoiceRef] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unit:
    """The piece of a text that a replica works on. `frames` is its budget in mel frames (93.75 a second),
    an estimate that batching groups by, never a length that the audio is cut to. `sampling`: None for the model's own.
    `alone`: it shares no batch, because a replica died that had it; its audio is the same. `pause_s`, `tail_s`: seconds
    of silence before and behind it. `due_in_s`: when its listener will have heard all before it, in seconds from its
    sending; None: nobody listens yet.
    """

    index: int
    text: str
    voice: VoiceRef
    speed: float
    seed: int
    frames: int
    request_id: str
    job_id: str | None = None
    sampling: Sampling | None = None
    alone: bool = False
    pause_s: float = 0.0
    tail_s: float = 0.0
    due_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class SpokenUnit:
    """A unit's audio and exactly what made it: engine, model version, precision, attention path and kind of device,
    parted by spaces ("preview hibari-tts-0.2.1 float32 onnxruntime cpu")."""

    audio: Pcm = field(repr=False)  # (samples,), mono, 24 kHz
    made_by: str


def version_of(made_by: str) -> str:
    """Engine and version of the model, which decide the voice; the rest of `SpokenUnit.made_by` is last digits."""
    return " ".join(made_by.split(" ")[:2])


@dataclass(frozen=True, slots=True)
class Speech:
    """Assembled audio and what made it. `draft` is true for a preview rendering: speech, but no clone. `made_by` is the
    units', "" where precision, attention path or device disagree."""

    audio: Pcm = field(repr=False)  # (samples,), mono, 24 kHz
    model: str
    seed: int
    draft: bool
    units: int
    made_by: str = ""

    @property
    def duration_s(self) -> float:
        return len(self.audio) / SAMPLE_RATE_HZ


class Synthesizer(Protocol):
    """A way to have one unit spoken: a replica's handle, or the replica's own class in a test."""

    async def synthesize(self, unit: Unit) -> SpokenUnit:
        """Speak `unit`. Raises EngineError, UnusableVoice, InvalidText, VoiceNotFound, Overloaded or Unavailable."""
        ...
