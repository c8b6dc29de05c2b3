"""Speaking a whole request."""

import asyncio

import numpy as np
import pytest

from serve_app.domain import BUILTIN, SAMPLE_RATE_HZ, SpeechRequest, Unit, VoiceRef, VoiceStats
from serve_app.errors import EngineError
from serve_app.planning import UnitLimits
from serve_app.speech import LOOK_AHEAD, Speaker, SpeakingModel

WORDS = [f"Sentence number {n}." for n in range(20)]


class Synthesizer:
    """Answers each unit with its index, when its gate opens; counts who is inside."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.gate = asyncio.Event()
        self.inside: set[int] = set()
        self.cancelled: list[int] = []
        self.done: list[int] = []

    async def synthesize(self, unit: Unit):
        self.inside.add(unit.index)
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
        return np.full(SAMPLE_RATE_HZ, unit.index, np.float32)


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


async def test_units_come_back_in_the_order_of_the_text():
    """Whatever order replicas answer in, the audio is in the order of the text."""
    synthesizer = Synthesizer()
    synthesizer.gate.set()
    speech = await speaker(synthesizer).speak(request(5))
    assert speech.units == 5
    assert speech.audio[::SAMPLE_RATE_HZ].tolist() == [0, 1, 2, 3, 4]
    assert (speech.model, speech.seed, speech.draft, speech.duration_s) == ("m", 7, True, 5.0)


async def test_units_overlap_by_the_models_cross_fade():
    """The overlap of the model shortens the whole by one overlap a joint."""
    synthesizer = Synthesizer()
    synthesizer.gate.set()
    speech = await speaker(synthesizer, overlap_s=0.5).speak(request(3))
    assert speech.duration_s == 2.0


async def test_the_look_ahead_is_bounded():
    """A long text does not put all its units at the replicas at once."""
    synthesizer = Synthesizer()
    task = asyncio.create_task(speaker(synthesizer).speak(request(20)))
    await settle(lambda: len(synthesizer.inside) >= LOOK_AHEAD)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(synthesizer.inside) == LOOK_AHEAD
    synthesizer.gate.set()
    assert (await task).units == 20


async def test_the_first_error_is_the_answer_and_frees_the_other_units():
    """No unit is left out, and none is spoken for nobody."""
    synthesizer = Synthesizer(fail_at=3)
    with pytest.raises(EngineError, match="broken"):
        await speaker(synthesizer).speak(request(20))
    await settle(lambda: not synthesizer.inside)
    assert synthesizer.done == []


async def test_a_caller_that_leaves_frees_its_units():
    """Cancelling the request cancels what waits at the replicas."""
    synthesizer = Synthesizer()
    task = asyncio.create_task(speaker(synthesizer).speak(request(20)))
    await settle(lambda: len(synthesizer.inside) == LOOK_AHEAD)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle(lambda: not synthesizer.inside)
    assert sorted(synthesizer.cancelled) == list(range(LOOK_AHEAD))


async def test_only_stored_voices_are_asked_for():
    """A built-in voice is in no store."""
    synthesizer, voices = Synthesizer(), Voices()
    synthesizer.gate.set()
    await speaker(synthesizer, voices).speak(request(1))
    assert voices.asked == []
    await speaker(synthesizer, voices).speak(request(1, version="abc"))
    assert voices.asked == [VoiceRef("v", "abc")]
