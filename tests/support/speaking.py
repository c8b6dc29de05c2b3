"""Replicas, voices and progress for a Speaker, which tests hold up and break; requests for it."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from serve_app.domain import BUILTIN, SAMPLE_RATE_HZ, SpeechRequest, SpokenUnit, Unit, VoiceRef, VoiceStats
from serve_app.engine.fake import FakeEngine
from serve_app.errors import EngineError, StorageUnreachable
from serve_app.planning import UnitLimits
from serve_app.speech import Speaker, SpeakingModel
from serve_app.synthesis import SynthesisService

WORDS = [f"Sentence number {n}." for n in range(20)]


class Synthesizer:
    """Answers each unit with its index, when its gate opens; counts who is inside."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.makers: dict[int, str] = {}
        self.asked: list[Unit] = []
        self.gate = asyncio.Event()
        self.inside: set[int] = set()
        self.cancelled: list[int] = []
        self.done: list[int] = []

    async def synthesize(self, unit: Unit):
        self.inside.add(unit.index)
        self.asked.append(unit)
        try:
            if unit.index == self.fail_at:
                raise EngineError("broken")
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(unit.index)
            raise
        finally:
            self.inside.discard(unit.index)
        self.done.append(unit.index)
        return SpokenUnit(np.full(SAMPLE_RATE_HZ, unit.index, np.float32), self.makers.get(unit.index, "m 1"))


class Voices:
    """Counts what planning asks for."""

    def __init__(self) -> None:
        self.asked: list[VoiceRef] = []

    async def stats(self, ref: VoiceRef) -> VoiceStats:
        self.asked.append(ref)
        return VoiceStats(5.0, 60)


def speaker(synthesizer: Synthesizer, voices: Voices | None = None, overlap_s: float = 0.0) -> Speaker:
    model = SpeakingModel(synthesizer, lambda stats, speed: UnitLimits(20, 1.0), overlap_s, draft=True)
    return Speaker({"m": model}, voices or Voices())


def request(units: int, version: str = BUILTIN) -> SpeechRequest:
    return SpeechRequest(" ".join(WORDS[:units]), "m", VoiceRef("v", version), 1.0, 7, "r1")


async def settle(condition) -> None:
    while not condition():
        await asyncio.sleep(0)


class Kept:
    """Progress in a dict; units in `suspects` killed a replica. Fails on the unit `fail_at`."""

    def __init__(
        self, before: Mapping[int, SpokenUnit] | None = None, suspects: Sequence[int] = (), fail_at: int | None = None
    ) -> None:
        self.before = dict(before or {})
        self.suspects = suspects
        self.fail_at = fail_at
        self.plan: list[Unit] = []
        self.now: dict[int, SpokenUnit] = {}
        self.units: list[Unit] = []
        self.forgotten: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.keeping = 0
        self.completed = 0

    async def planned(self, units: Sequence[Unit]) -> Mapping[int, SpokenUnit]:
        self.plan += units
        return self.before

    async def spoken(self, unit: Unit, spoken: SpokenUnit) -> None:
        self.keeping += 1
        await self.gate.wait()
        if unit.index == self.fail_at:
            raise StorageUnreachable("no answer")
        self.units.append(unit)
        self.now[unit.index] = spoken

    def outdated(self, indexes: Collection[int]) -> None:
        self.forgotten.append(sorted(indexes))

    def is_suspect(self, unit: Unit) -> bool:
        return unit.index in self.suspects

    def complete(self) -> None:
        self.completed += 1


def speaker_and_replica(engine: FakeEngine, overlap_s: float = 0.02) -> tuple[Speaker, SynthesisService]:
    """A speaker in front of a replica's own class."""
    service = SynthesisService(engine, None, "m")
    return speaker(service, overlap_s=overlap_s), service
