"""Units and voices for an F5 engine in tests."""

import numpy as np

from serve_app.domain import BUILTIN, Sampling, Unit, Voice, VoiceRef
from serve_app.engine.f5 import F5Engine
from serve_app.engine.protocol import EngineInput, speak

TEXT = "I have been a silent spectator."
SEVEN = Sampling(nfe_steps=7)


def voice(seconds: float = 2.0, level: float = 0.2, text: str = "One two three.", version: str = "") -> Voice:
    """Noise with an RMS of `level`."""
    noise = np.random.default_rng(0).standard_normal(round(seconds * 24_000)).astype(np.float32)
    audio = noise * np.float32(level / np.sqrt(np.mean(noise**2)))
    return Voice(VoiceRef("ada", version or f"{seconds} {level} {text}"), audio, text)


def item(
    text: str = TEXT,
    voice: Voice | None = None,
    seed: int = 1,
    speed: float = 1.0,
    sampling: Sampling | None = None,
) -> EngineInput:
    """A unit for `voice`, or for the built-in one."""
    ref = VoiceRef("basic_ref_en", BUILTIN) if voice is None else voice.ref
    return EngineInput(Unit(0, text, ref, speed, seed, frames=0, request_id="r", sampling=sampling), voice)


def bytes_of(engine: F5Engine, *items: EngineInput) -> list[bytes]:
    return [pcm.tobytes() for pcm in speak(engine, *items)]
