"""Speaking a whole request."""

import asyncio
import threading
from dataclasses import replace

import pytest

from serve_app.domain import SAMPLE_RATE_HZ, VoiceRef
from serve_app.engine.fake import FakeEngine
from serve_app.engine.protocol import BatchLimits
from serve_app.errors import EngineError
from serve_app.unit_speech import LOOK_AHEAD
from tests.support.deadline import DEADLINE_S
from tests.support.speaking import WORDS, Synthesizer, Voices, request, settle, speaker, speaker_and_replica


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


async def test_speech_says_what_made_it():
    """By its units where they agree, and nothing where one was made in another precision."""
    synthesizer = Synthesizer()
    synthesizer.gate.set()
    assert (await speaker(synthesizer).speak(request(3))).made_by == "m 1"
    synthesizer.makers[1] = "m 1 float16"
    assert (await speaker(synthesizer).speak(request(3))).made_by == ""


async def test_a_cancelled_request_leaves_the_replica_at_once():
    """Its waiting units leave the queue, and what runs takes no room after its batch; others are not held up."""
    gate = threading.Event()
    engine = FakeEngine(gate=gate, limits=BatchLimits(max_units=1, max_frames=30_000))
    speaking, service = speaker_and_replica(engine)
    task = asyncio.create_task(speaking.speak(request(5)))
    assert await asyncio.to_thread(engine.started.acquire, timeout=DEADLINE_S)
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
