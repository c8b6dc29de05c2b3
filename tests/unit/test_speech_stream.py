"""Speech as it comes: order, look-ahead, what is refused, what breaks off, and who leaves."""

import asyncio

import numpy as np
import pytest

from serve_app.domain import SAMPLE_RATE_HZ, SpokenUnit, Unit
from serve_app.errors import EngineError, InvalidText, Overloaded, ReplicaLost, ServiceError, Unavailable
from serve_app.patience import PATIENCE_S, Patience
from serve_app.speech_stream import TURNS, SpeechStream
from serve_app.unit_speech import LOOK_AHEAD
from tests.support.speaking import Synthesizer, request, settle, speaker


class Refusing(Synthesizer):
    """Fails as `errors` say, by unit, the first tries of it; notes who is asked alone."""

    def __init__(self, **errors: list[ServiceError]) -> None:
        super().__init__()
        self.gate.set()
        self.errors = {int(name.removeprefix("unit_")): list(each) for name, each in errors.items()}

    async def synthesize(self, unit: Unit) -> SpokenUnit:
        if self.errors.get(unit.index):
            self.asked.append(unit)
            raise self.errors[unit.index].pop(0)
        return await super().synthesize(unit)


async def streamed(synthesizer: Synthesizer, units: int, overlap_s: float = 0.0) -> SpeechStream:
    stream = await speaker(synthesizer, overlap_s=overlap_s).stream(request(units))

    async def at_once(_: float) -> None:
        await asyncio.sleep(0)

    stream._patience = Patience(at_once)
    return stream


async def heard(stream: SpeechStream) -> list[float]:
    """The first sample of each second, so far as it goes."""
    return [float(wave[0]) for wave in [wave async for wave in stream] for wave in np.split(wave, len(wave) // 24_000)]


@pytest.mark.parametrize("overlap_s", [0.0, 0.25])
async def test_a_stream_is_the_speech(overlap_s: float):
    """To the sample, in several waves."""
    synthesizer = Synthesizer()
    synthesizer.gate.set()
    whole = await speaker(synthesizer, overlap_s=overlap_s).speak(request(20))
    stream = await streamed(synthesizer, 20, overlap_s)
    waves = [wave async for wave in stream]
    assert (len(waves), stream.units, stream.draft) == (20 + (overlap_s > 0), 20, True)
    assert np.array_equal(np.concatenate(waves), whole.audio)
    starts_s = [number * (1 - overlap_s) for number in range(20)]
    assert [(span.unit.index, span.start_s, span.end_s) for span in stream.spans] == [
        (index, pytest.approx(start_s), pytest.approx(start_s + 1)) for index, start_s in enumerate(starts_s)
    ]


async def test_the_first_wave_comes_when_the_first_unit_is_spoken():
    """Whatever becomes of the others."""
    synthesizer = Synthesizer()
    stream = await streamed(synthesizer, 20)
    first = asyncio.create_task(anext(stream))
    await settle(lambda: len(synthesizer.inside) == LOOK_AHEAD)
    assert not first.done()
    synthesizer.gate.set()
    assert (await first).tolist() == [0.0] * SAMPLE_RATE_HZ
    await stream.close()


async def test_a_slow_listener_holds_no_more_than_the_look_ahead():
    """What it has not taken keeps others from being asked for."""
    synthesizer = Synthesizer()
    synthesizer.gate.set()
    stream = await streamed(synthesizer, 20)
    for taken in range(1, 4):
        await anext(stream)
        await settle(lambda most=taken + LOOK_AHEAD: len(synthesizer.asked) >= most)  # planned in a thread
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(synthesizer.asked) == taken + LOOK_AHEAD
    await stream.close()
    assert len(synthesizer.asked) == 3 + LOOK_AHEAD


async def test_a_listener_that_leaves_frees_its_units():
    """All that wait at the replicas, whether it was listening or had stopped to."""
    synthesizer = Synthesizer()
    stream = await streamed(synthesizer, 20)
    listening = asyncio.create_task(anext(stream))
    await settle(lambda: len(synthesizer.inside) == LOOK_AHEAD)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    assert synthesizer.inside == set()

    synthesizer.gate.set()
    stream = await streamed(synthesizer, 20)
    await anext(stream)
    synthesizer.gate.clear()
    await settle(lambda: len(synthesizer.inside) >= 1)
    await stream.close()
    assert synthesizer.inside == set()


async def test_what_breaks_is_heard_after_what_came_before_it():
    """The listener gets the units before it, then the error; nothing behind it is spoken any longer."""
    synthesizer = Synthesizer(fail_at=3)
    synthesizer.gate.set()
    stream = await streamed(synthesizer, 20)
    assert [float((await anext(stream))[0]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(EngineError, match="broken"):
        await anext(stream)
    assert synthesizer.inside == set()
    assert len(synthesizer.asked) <= 3 + LOOK_AHEAD


async def test_what_cannot_be_planned_is_refused_before_anything_is_spoken():
    """There is nothing to speak in it."""
    synthesizer = Synthesizer()
    with pytest.raises(InvalidText):
        await speaker(synthesizer).stream(request(0))
    assert synthesizer.asked == []


async def test_only_the_first_unit_is_refused_for_a_full_queue():
    """Then the client is told before it hears anything; of a stream that has begun, a unit waits its turn."""
    full = Overloaded("full")
    with pytest.raises(Overloaded):
        await heard(await streamed(Refusing(unit_0=[full]), 5))
    synthesizer = Refusing(unit_1=[full, Unavailable("gone")], unit_4=[full])
    assert await heard(await streamed(synthesizer, 5)) == [0, 1, 2, 3, 4]
    assert [unit.index for unit in synthesizer.asked].count(1) == 3


async def test_a_full_queue_is_not_waited_for_for_ever():
    """After five minutes of pauses the stream breaks off with the error."""
    synthesizer = Refusing(unit_2=[Overloaded("full")] * 100)
    with pytest.raises(Overloaded):
        await heard(await streamed(synthesizer, 5))
    assert len(PATIENCE_S) < [unit.index for unit in synthesizer.asked].count(2) < 100


async def test_a_unit_that_replicas_are_lost_with_ends_the_stream():
    """Whoever reaches them has tried it alone: another replica is not lost for it."""
    synthesizer = Refusing(unit_3=[ReplicaLost("lost")])
    with pytest.raises(ReplicaLost):
        await heard(await streamed(synthesizer, 5))
    assert [unit.index for unit in synthesizer.asked].count(3) == 1


class Versions(Synthesizer):
    """Speaks each unit as version 1 or 2, as `units` say, the last of them for good."""

    def __init__(self, **units: list[int]) -> None:
        super().__init__()
        self.gate.set()
        self.units = {int(name.removeprefix("unit_")): list(each) for name, each in units.items()}

    async def synthesize(self, unit: Unit) -> SpokenUnit:
        spoken = await super().synthesize(unit)
        versions = self.units[unit.index]
        return SpokenUnit(spoken.audio, f"m {versions.pop(0) if len(versions) > 1 else versions[0]}")


async def test_one_version_speaks_all_of_a_stream():
    """Another one's unit is asked for again; where there is only another one left, the stream breaks off."""
    synthesizer = Versions(unit_0=[1], unit_1=[2, 2, 1], unit_2=[2, 1])
    assert await heard(await streamed(synthesizer, 3)) == [0, 1, 2]
    assert sorted(unit.index for unit in synthesizer.asked) == [0, 1, 1, 1, 2, 2]
    synthesizer = Versions(unit_0=[1], unit_1=[1], unit_2=[2])
    stream = await streamed(synthesizer, 3)
    assert [float((await anext(stream))[0]) for _ in range(2)] == [0, 1]
    with pytest.raises(Unavailable, match="updated"):
        await anext(stream)
    assert [unit.index for unit in synthesizer.asked].count(2) == 1 + TURNS


async def test_the_version_is_that_of_what_is_heard_first():
    """Not of a later unit that an old replica spoke sooner."""

    class Late(Versions):
        async def synthesize(self, unit: Unit) -> SpokenUnit:
            if unit.index == 0:
                await settle(lambda: len(self.done) >= 2)
            return await super().synthesize(unit)

    assert await heard(await streamed(Late(unit_0=[2], unit_1=[1, 2], unit_2=[2]), 3)) == [0, 1, 2]


@pytest.mark.parametrize(("makers", "told"), [({}, "m 1"), ({3: "m 1 float16"}, ""), ({0: "m 1 a", 1: "m 1 b"}, "")])
async def test_a_stream_says_what_made_it(makers: dict[int, str], told: str):
    """As `Speech` does: nothing where the units' precision or device disagree."""
    synthesizer = Synthesizer()
    synthesizer.gate.set()
    synthesizer.makers = makers
    stream = await streamed(synthesizer, 5)
    assert [wave async for wave in stream]
    assert stream.made_by == told
    assert (await speaker(synthesizer).speak(request(5))).made_by == told
