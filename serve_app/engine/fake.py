"""An engine for tests: a tone instead of speech, at no cost, with a record of what it was asked.

Keeps the whole Engine protocol, so whatever runs on it runs on a real one. Knows no model and no store.
"""

import math
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from hashlib import blake2b

import numpy as np

from serve_app.domain import SAMPLE_RATE_HZ, Pcm, Unit
from serve_app.engine.protocol import BatchLimits, EngineInput, one_by_one
from serve_app.errors import InvalidText

__all__ = ["FakeEngine"]

HOP_SAMPLES = 256
FRAMES_PER_CHARACTER = 5  # 0.053 s, a natural speaking rate
GATE_TIMEOUT_S = 30.0


class FakeEngine:
    """Speaks any text that is not blank, 0.053 s a character, as a tone that text, voice and seed decide.

    `calls` holds the unit texts of each call of `synthesize`, in order; `started` is released once as each
    call begins, so that a test can wait for it. A call then waits for `gate`, where one is given, and raises
    TimeoutError if nobody opens it. A text in `fail_on` fails its whole call with RuntimeError.
    """

    def __init__(
        self,
        *,
        limits: BatchLimits | None = None,
        fail_on: Collection[str] = (),
        gate: threading.Event | None = None,
        version: str = "1",
    ) -> None:
        self._limits = limits or BatchLimits(max_units=8, max_frames=30_000)
        self._fail_on = frozenset(fail_on)
        self._gate = gate
        self._version = version
        self.calls: list[tuple[str, ...]] = []
        self.started = threading.Semaphore(0)
        self.warm = False

    @property
    def batch_limits(self) -> BatchLimits:
        return self._limits

    @property
    def runtime(self) -> Mapping[str, str]:
        return {"device": "cpu", "dtype": "float32", "attention": "none", "attention_reason": "a tone needs none"}

    @property
    def version(self) -> str:
        return self._version

    def frames(self, item: EngineInput) -> int:
        """Frames of the tone, and of the reference audio where there is one."""
        reference = 0 if item.voice is None else len(item.voice.audio) // HOP_SAMPLES
        return reference + _frames(item.unit)

    def computed_frames(self, frames: Sequence[int]) -> int:
        """All at the length of the longest, as a model pads them."""
        return len(frames) * max(frames)

    def warm_up(self) -> None:
        self.warm = True

    def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
        """One tone of (frames * 256,) samples per item; InvalidText for a blank text."""
        texts = tuple(item.unit.text for item in items)
        self.calls.append(texts)
        self.started.release()
        if self._gate is not None and not self._gate.wait(GATE_TIMEOUT_S):
            raise TimeoutError(f"nobody opened the gate of the fake engine within {GATE_TIMEOUT_S:.0f} s")
        for text in texts:
            if text in self._fail_on:
                raise RuntimeError(f"the fake engine was told to fail on {text!r}")
        return one_by_one(lambda item: _tone(item.unit), items)


def _frames(unit: Unit) -> int:
    return math.ceil(len(unit.text) * FRAMES_PER_CHARACTER / unit.speed)


def _tone(unit: Unit) -> Pcm:
    if not unit.text.strip():
        raise InvalidText(f"text is {unit.text!r}: send something that can be spoken")
    voice = f"{unit.voice.tenant}/{unit.voice.name}@{unit.voice.version}"
    digest = blake2b(f"{unit.text}\0{voice}\0{unit.seed}".encode(), digest_size=8).digest()
    frequency_hz = 100.0 + int.from_bytes(digest) % 3_900_000 / 1000.0
    time_s = np.arange(_frames(unit) * HOP_SAMPLES) / SAMPLE_RATE_HZ
    return (0.3 * np.sin(2.0 * np.pi * frequency_hz * time_s)).astype(np.float32)
