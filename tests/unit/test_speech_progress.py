"""What is kept of a speech while it is spoken, what was kept before, and who is suspected of killing replicas."""

import asyncio
from dataclasses import replace

import pytest

from serve_app.domain import SpeechRequest, SpokenUnit, Unit
from serve_app.engine.fake import FakeEngine
from serve_app.errors import EngineError, StorageUnreachable
from serve_app.unit_speech import LOOK_AHEAD, NO_PROGRESS, Progress
from tests.support.speaking import Kept, Synthesizer, request, settle, speaker, speaker_and_replica


async def speak_all(request: SpeechRequest, progress: Progress = NO_PROGRESS, **engine):
    """Spoken by a replica of its own."""
    fake = FakeEngine(**engine)
    speaking, service = speaker_and_replica(fake)
    speech = await speaking.speak(request, progress)
    await service.close()
    return speech, [text for call in fake.calls for text in call]


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
