"""Speaking a whole request."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from serve_app.domain import BUILTIN, SAMPLE_RATE_HZ, SpeechRequest, SpokenUnit, Unit, VoiceRef, VoiceStats
from serve_app.engine.fake import FakeEngine
from serve_app.engine.protocol import BatchLimits
from serve_app.errors import EngineError, StorageUnreachable
from serve_app.planning import UnitLimits
from serve_app.speech import LOOK_AHEAD, NO_PROGRESS, Progress, Speaker, SpeakingModel
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
        self.gate = asyncio.Event()
        self.gate.set()
        self.keeping = 0

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

    def is_suspect(self, unit: Unit) -> bool:
        return unit.index in self.suspects


def real(engine: FakeEngine, overlap_s: float = 0.02) -> tuple[Speaker, SynthesisService]:
    """A speaker in front of a replica's own class."""
    service = SynthesisService(engine, None, "m")
    return speaker(service, overlap_s=overlap_s), service


async def speak_all(request: SpeechRequest, progress: Progress = NO_PROGRESS, **engine):
    """Spoken by a replica of its own."""
    fake = FakeEngine(**engine)
    speaking, service = real(fake)
    speech = await speaking.speak(request, progress)
    await service.close()
    return speech, [text for call in fake.calls for text in call]


async def test_speech_says_what_made_it():
    """By its units where they agree, and nothing where a replica of another version spoke one of them."""
    synthesizer = Synthesizer()
    synthesizer.gate.set()
    assert (await speaker(synthesizer).speak(request(3))).made_by == "m 1"
    synthesizer.makers[1] = "m 2"
    assert (await speaker(synthesizer).speak(request(3))).made_by == ""


async def test_a_restored_unit_counts_for_what_made_the_speech():
    """A unit of an older version among new ones is a disagreement, too."""
    synthesizer = Synthesizer()
    synthesizer.gate.set()
    old = SpokenUnit(np.zeros(SAMPLE_RATE_HZ, np.float32), "m 0")
    assert (await speaker(synthesizer).speak(request(3), Kept({2: old}))).made_by == ""
    assert (await speaker(synthesizer).speak(request(1), Kept({0: old}))).made_by == "m 0"


async def test_progress_sees_the_plan_and_each_unit():
    """The units as they are planned, once, and each one's audio as it was spoken."""
    kept = Kept()
    speech, _ = await speak_all(request(5), kept)
    assert [unit.index for unit in kept.plan] == [0, 1, 2, 3, 4]
    assert sorted(kept.units, key=lambda unit: unit.index) == kept.plan
    assert {spoken.made_by for spoken in kept.now.values()} == {"fake 1 float32 none cpu"}
    again, _ = await speak_all(request(5), Kept(kept.now))
    assert again.audio.tobytes() == speech.audio.tobytes()


@pytest.mark.parametrize("restored", [(0,), (4,), (1, 3), (0, 1, 2, 3, 4)])
async def test_restored_units_are_not_spoken_and_change_no_byte(restored):
    """The replicas are asked for the missing ones only; the whole is as if all had been spoken at once."""
    first = Kept()
    whole, spoken_first = await speak_all(request(5), first)
    second = Kept({index: first.now[index] for index in restored})
    resumed, spoken_then = await speak_all(request(5), second)
    assert resumed.audio.tobytes() == whole.audio.tobytes()
    assert (resumed.units, resumed.made_by) == (5, whole.made_by)
    assert spoken_then == [text for index, text in enumerate(spoken_first) if index not in restored]
    assert sorted(second.now) == [index for index in range(5) if index not in restored]


async def test_a_unit_is_kept_as_it_ends():
    """Not at the end of the whole: what was spoken before a failure is kept."""
    synthesizer, kept = Synthesizer(), Kept()
    task = asyncio.create_task(speaker(synthesizer).speak(request(20), kept))
    await settle(lambda: len(synthesizer.inside) == LOOK_AHEAD)
    synthesizer.fail_at = 19
    synthesizer.gate.set()
    with pytest.raises(EngineError, match="broken"):
        await task
    assert len(kept.now) >= LOOK_AHEAD
    assert 19 not in kept.now


async def test_progress_that_cannot_be_kept_fails_the_speech():
    """A unit whose audio could not be stored is an error, whatever the others did."""
    synthesizer = Synthesizer()
    synthesizer.gate.set()
    with pytest.raises(StorageUnreachable, match="no answer"):
        await speaker(synthesizer).speak(request(5), Kept(fail_at=3))


async def test_a_speech_waits_for_its_progress():
    """It has ended only when the last unit is kept, and no more units are asked for than can be kept."""
    synthesizer, kept = Synthesizer(), Kept()
    synthesizer.gate.set()
    kept.gate.clear()
    task = asyncio.create_task(speaker(synthesizer).speak(request(20), kept))
    await settle(lambda: kept.keeping == LOOK_AHEAD)
    for _ in range(50):
        await asyncio.sleep(0)
    assert (task.done(), len(synthesizer.done)) == (False, LOOK_AHEAD)
    kept.gate.set()
    assert (await task).units == len(kept.now) == 20


async def test_nothing_is_kept_after_a_speech_has_ended():
    """Whoever runs it again is not disturbed by the run before: a failed speech waits for what is being kept."""
    left = []

    class Slow(Kept):
        async def spoken(self, unit: Unit, spoken: SpokenUnit) -> None:
            try:
                await super().spoken(unit, spoken)
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                left.append(unit.index)

    synthesizer, kept = Synthesizer(fail_at=4), Slow()
    kept.gate.clear()
    synthesizer.gate.set()
    with pytest.raises(EngineError, match="broken"):
        await speaker(synthesizer).speak(request(5), kept)
    assert (sorted(left), kept.now) == ([0, 1, 2, 3], {})


async def test_suspects_are_spoken_alone():
    """Only what is sent says so: progress gets the unit as it was planned."""
    synthesizer, kept = Synthesizer(), Kept(suspects=[1])
    synthesizer.gate.set()
    await speaker(synthesizer).speak(request(3), kept)
    assert synthesizer.asked == [kept.plan[0], replace(kept.plan[1], alone=True), kept.plan[2]]
    assert sorted(kept.units, key=lambda unit: unit.index) == kept.plan


async def test_a_suspect_sounds_the_same():
    """Being alone changes how a unit is run, and nothing of the audio."""
    whole, _ = await speak_all(request(5))
    alone, _ = await speak_all(request(5), Kept(suspects=[0, 1, 2, 3, 4]))
    assert alone.audio.tobytes() == whole.audio.tobytes()


async def test_a_cancelled_request_leaves_the_replica_at_once():
    """Its waiting units leave the queue, and what runs takes no room after its batch; others are not held up."""
    gate = threading.Event()
    engine = FakeEngine(gate=gate, limits=BatchLimits(max_units=1, max_frames=30_000))
    speaking, service = real(engine)
    task = asyncio.create_task(speaking.speak(request(5)))
    assert await asyncio.to_thread(engine.started.acquire, timeout=10)
    await settle(lambda: service.health()["waiting"] == 4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (service.health()["waiting"], service.health()["running"]) == (0, 1)
    other = asyncio.create_task(speaking.speak(replace(request(1), text="Someone else.")))
    await settle(lambda: service.health()["waiting"] == 1)
    gate.set()
    assert (await other).units == 1
    await service.close()
    assert [text for (text,) in engine.calls] == [WORDS[0], "Someone else."]
    health = service.health()
    assert (health["units_done"], health["units_abandoned"], health["running"]) == (1, 5, 0)
