"""What a run keeps of a long job, so that the next speaks only what is missing; on the memory store."""

from dataclasses import replace

import numpy as np
import pytest

from serve_app.domain import SAMPLE_RATE_HZ, SpokenUnit
from serve_app.errors import EngineError, ObjectCorrupt
from serve_app.jobs import JobRequest, KeptProgress, progress
from serve_app.jobs.progress import FLUSH_BYTES, FLUSH_S, KEEP_FROM_S, OBJECTS, drop_progress
from serve_app.storage import MemoryStore
from tests.support.jobs import (
    JOB_ID,
    Clock,
    SpeakUnits,
    finish,
    job_request,
    job_store,
    runner,
    samples_of,
    submit,
    told,
)
from tests.support.jobs import unit_of as unit_of_speech

LONG = job_request(audio_s=KEEP_FROM_S)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def unit_of(request: JobRequest, index: int, seed: int = 0):
    return unit_of_speech(request.speech, index, seed)


def kept(store: MemoryStore) -> list[str]:
    names = [info.key.removeprefix(f"jobs/a/{JOB_ID}/") for info in store.list("jobs/").items]
    return [name.removesuffix(".v1.npz") for name in names if name.startswith("progress-")]


async def spoken(
    store: MemoryStore, count: int, of: int, run: int = 1, request: JobRequest = LONG, clock: Clock | None = None
) -> KeptProgress:
    """`count` units of `of`, spoken and written."""
    made = KeptProgress(store, request, run, (), clock or Clock())
    units = [unit_of(request, index) for index in range(of)]
    await made.planned(units)
    for unit in units[:count]:
        await made.spoken(unit, SpokenUnit(samples_of(unit), "f5 v1"))
    await made.flush()
    return made


async def restored(store: MemoryStore, units, request: JobRequest = LONG) -> dict[int, SpokenUnit]:
    return dict(await KeptProgress(store, request, 2, (), Clock()).planned(units))


async def test_units_are_written_when_it_is_time(store):
    """Nothing before FLUSH_S, then all that waits in one object; its name says how far the run has come."""
    clock = Clock()
    made = KeptProgress(store, LONG, 3, (), clock)
    units = [unit_of(LONG, index) for index in range(6)]
    await made.planned(units)
    for number, clock.now in enumerate([1.0, FLUSH_S - 0.1, FLUSH_S, FLUSH_S + 1.0, 2 * FLUSH_S]):
        await made.spoken(units[number], SpokenUnit(samples_of(units[number]), "f5"))
        expected = 0 if number < 2 else 1 if number < 4 else 2
        assert len(kept(store)) == expected
    assert kept(store) == ["progress-0003-00001-00003-of-00006", "progress-0003-00002-00005-of-00006"]
    found = job_store(store).standing(LONG.ref)
    assert (found.units_done, found.units, made.done, made.units) == (5, 6, 5, 6)


async def test_units_are_written_when_they_are_many_bytes(store):
    """However fast they are spoken, a killed replica loses no more than FLUSH_BYTES."""
    made = KeptProgress(store, LONG, 1, (), Clock())
    units = [unit_of(LONG, index) for index in range(4)]
    await made.planned(units)
    half = np.zeros(FLUSH_BYTES // 8, np.float32)
    for unit, objects in zip(units, (0, 1, 1, 1), strict=True):
        await made.spoken(unit, SpokenUnit(half, "f5"))
        assert len(kept(store)) == objects


async def test_a_long_job_keeps_its_units_in_few_objects(store):
    """Each is a hundredth of it at least, and once there are a hundred no time makes it less."""
    clock = Clock()
    request = LONG.model_copy(update={"audio_s": OBJECTS * 4 * FLUSH_BYTES / (4 * SAMPLE_RATE_HZ)})
    made = KeptProgress(store, request, 1, (), clock)
    units = [unit_of(request, index) for index in range(OBJECTS + 8)]
    await made.planned(units)
    share = SpokenUnit(np.zeros(FLUSH_BYTES // 4, np.float32), "f5")
    for unit, objects in zip(units[:4], (0, 0, 0, 1), strict=True):
        await made.spoken(unit, share)
        assert len(kept(store)) == objects
    for unit in units[4:]:
        clock.now += FLUSH_S
        await made.spoken(unit, SpokenUnit(np.zeros(24, np.float32), "f5"))
    assert len(kept(store)) == OBJECTS


async def test_what_completes_the_job_is_not_written(store):
    """The audio is stored in a moment, so the last units are not kept before."""
    clock = Clock()
    made = KeptProgress(store, LONG, 1, (), clock)
    await made.planned([unit_of(LONG, 0)])
    clock.now = 100.0
    await made.spoken(unit_of(LONG, 0), SpokenUnit(samples_of(unit_of(LONG, 0)), "f5"))
    assert kept(store) == []


async def test_the_next_run_has_the_same_samples(store):
    """To the bit, with what made them, from all objects of all runs before it."""
    await spoken(store, 2, of=5)
    clock = Clock()
    second = KeptProgress(store, LONG, 2, (), clock)
    units = [unit_of(LONG, index) for index in range(5)]
    assert [*await second.planned(units)] == [0, 1]
    await second.spoken(units[3], SpokenUnit(samples_of(units[3]), "f5 v1"))
    await second.flush()
    found = await restored(store, units)
    assert sorted(found) == [0, 1, 3]
    for index, each in found.items():
        assert each.audio.dtype == np.float32
        assert each.audio.tobytes() == samples_of(units[index]).tobytes()
        assert each.made_by == "f5 v1"


@pytest.mark.parametrize(
    "change", [{"seed": 99}, {"text": "Other."}, {"speed": 1.1}, {"frames": 101}, {"sampling": "other"}]
)
async def test_a_unit_that_is_another_now_is_spoken_anew(store, change):
    """The plan, the seed or a parameter changed with the version: what was kept is not its audio."""
    await spoken(store, 2, of=2)
    units = [replace(unit_of(LONG, 0), **change), unit_of(LONG, 1)]
    assert sorted(await restored(store, units)) == [1]


async def test_what_another_version_spoke_is_replaced(store):
    """A unit that was outdated is kept again as it is spoken now, and is restored so; how far the run is says less."""
    await spoken(store, 3, of=4)
    made = KeptProgress(store, LONG, 2, (), Clock())
    units = [unit_of(LONG, index) for index in range(4)]
    assert sorted(await made.planned(units)) == [0, 1, 2]
    made.outdated([0, 2])
    assert made.done == 1
    await made.spoken(units[0], SpokenUnit(2 * samples_of(units[0]), "f5 v2"))
    await made.flush()
    found = await restored(store, units)
    assert [found[index].made_by for index in range(3)] == ["f5 v2", "f5 v1", "f5 v1"]
    assert found[0].audio.tobytes() == (2 * samples_of(units[0])).tobytes()


async def test_what_was_outdated_before_it_was_written_is_not_written(store):
    made = KeptProgress(store, LONG, 1, (), Clock())
    units = [unit_of(LONG, index) for index in range(4)]
    await made.planned(units)
    for unit in units[:2]:
        await made.spoken(unit, SpokenUnit(samples_of(unit), "f5 v1"))
    made.outdated([0])
    await made.flush()
    assert sorted(await restored(store, units)) == [1]


async def test_how_it_is_batched_makes_no_other_unit(store):
    """A unit that is spoken alone sounds the same."""
    await spoken(store, 1, of=2)
    assert sorted(await restored(store, [replace(unit_of(LONG, 0), alone=True)])) == [0]


def cut(body: bytes) -> bytes:
    return body[: len(body) // 2]


def changed(body: bytes) -> bytes:
    return body[:200] + bytes([body[200] ^ 255]) + body[201:]


@pytest.mark.parametrize("broken", [lambda body: b"", lambda body: b"PK\x03\x04 no zip", cut, changed, None])
async def test_what_cannot_be_read_costs_a_second_synthesis(store, monkeypatch, broken):
    """One broken object keeps no other from being used, and fails nothing."""
    await spoken(store, 1, of=3, run=1)
    (key,) = [info.key for info in store.list("jobs/").items]
    get = store.get
    if broken is not None:
        store.put(key, broken(store.get(key).body), content_type="application/zip")
    else:  # the store itself finds out

        def corrupt(asked):
            if asked == key:
                raise ObjectCorrupt("another sha256")
            return get(asked)

        monkeypatch.setattr(store, "get", corrupt)
    second = KeptProgress(store, LONG, 2, (), Clock())
    units = [unit_of(LONG, index) for index in range(3)]
    assert await second.planned(units) == {}
    await second.spoken(units[1], SpokenUnit(samples_of(units[1]), "f5"))
    await second.flush()
    assert sorted(await restored(store, units)) == [1]


async def test_a_write_that_fails_is_tried_again_with_the_next(store, monkeypatch):
    """What could not be kept still waits, and is kept later."""
    made = await spoken(store, 0, of=3)
    units = [unit_of(LONG, index) for index in range(3)]
    put = store.put
    monkeypatch.setattr(store, "put", lambda *args, **kwargs: (_ for _ in ()).throw(EngineError("no")))
    await made.spoken(units[0], SpokenUnit(samples_of(units[0]), "f5"))
    with pytest.raises(EngineError):
        await made.flush()
    monkeypatch.setattr(store, "put", put)
    await made.spoken(units[1], SpokenUnit(samples_of(units[1]), "f5"))
    await made.flush()
    assert sorted(await restored(store, units)) == [0, 1]


async def test_a_second_try_in_the_same_run_reads_nothing(store):
    """What this run has spoken it still has."""
    made = await spoken(store, 2, of=3)
    drop_progress(store, LONG.ref)
    assert sorted(await made.planned([unit_of(LONG, index) for index in range(3)])) == [0, 1]


@pytest.mark.parametrize("audio_s", [None, KEEP_FROM_S - 0.1])
async def test_a_short_job_keeps_none(store, audio_s):
    """It is spoken again in no time: no object is written for it, and none looked for."""
    request = job_request(audio_s=audio_s)
    await spoken(store, 2, of=3, request=request)
    assert kept(store) == []
    await spoken(store, 1, of=3)
    assert await restored(store, [unit_of(request, 0)], request) == {}


async def test_a_job_speaks_no_unit_twice_and_its_audio_is_the_same(store, monkeypatch):
    """Two runs fail in the middle: each unit is spoken once in all, and nothing is kept in the end."""
    monkeypatch.setattr(progress, "FLUSH_S", 0.0)
    failures = {2: EngineError("first"), 4: EngineError("second")}
    speak, whole, clock = SpeakUnits(6, fail=lambda unit: failures.pop(unit.index, None)), SpeakUnits(6), Clock()
    ref, r = submit(store, audio_s=60.0), runner(store, speak, clock)
    await r.start(told(store, ref))
    for clock.now, objects in ((0.0, 2), (10.0, 2), (10.0, 4), (20.0, 4)):
        await r.wait(ref)
        assert len(kept(store)) == objects
        await r.sweep()
    assert await finish(store, r, ref) == "completed"
    assert speak.spoken == [0, 1, 2, 3, 4, 5]
    assert kept(store) == []
    other, r = submit(MemoryStore(), audio_s=60.0), runner(twin := MemoryStore(), whole)
    submit(twin, audio_s=60.0)
    await r.start(told(twin, other))
    assert await finish(twin, r, other) == "completed"
    assert job_store(twin).status(other).outcome.audio == job_store(store).status(ref).outcome.audio


async def test_a_run_that_failed_keeps_what_it_has_spoken_at_once(store):
    """Although nothing was due to be kept: another replica speaks the rest."""
    failures, clock = {2: EngineError("out of memory")}, Clock()
    first, second = SpeakUnits(4, fail=lambda unit: failures.pop(unit.index, None)), SpeakUnits(4)
    ref, a, b = submit(store, audio_s=60.0), runner(store, first, clock), runner(store, second, clock, "b")
    await a.start(told(store, ref))
    await a.wait(ref)
    assert len(kept(store)) == 1
    for clock.now in (10.0, 11.0, 12.0, 13.0):
        await b.sweep()
    assert await finish(store, b, ref) == "completed"
    assert (first.spoken, second.spoken) == ([0, 1], [2, 3])
