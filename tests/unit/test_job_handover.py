"""Jobs that go from one replica to another: released ones at once, those of dead ones alone; markers that are left."""

import pytest

from serve_app.errors import EngineError
from serve_app.jobs import marker_of, progress
from serve_app.storage import MemoryStore
from tests.support.interleaving import Hooked
from tests.support.jobs import (
    Clock,
    Speak,
    SpeakUnits,
    job_id_of,
    job_request,
    job_store,
    kill,
    runner,
    submit,
    told,
    until,
)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def closed() -> Speak:
    """A speaker that waits at its gate."""
    speak = Speak()
    speak.gate.clear()
    return speak


async def begun(store: MemoryStore, ref, clock: Clock | None = None, name: str = "a"):
    """A replica that is in the middle of this job."""
    speak = closed()
    r = runner(store, speak, clock, name)
    await r.beat()
    await r.start(told(store, ref))
    await until(lambda: speak.requests)
    return r, speak


async def swept(r, times: int = 5) -> None:
    for _ in range(times):
        await r.sweep()
        for ref in list(r._tasks):
            await r.wait(ref)


async def test_a_released_job_is_taken_over_at_once(store):
    """Its replica said so before it went: nobody waits for a heartbeat to stop."""
    ref = submit(store)
    a, _ = await begun(store, ref)
    await a.close(drain_s=0)
    assert job_store(store).status(ref).run_end.reason == "released"
    await a.beat()  # as if it lived on
    speak, clock = Speak(), Clock()
    b = runner(store, speak, clock, "b")
    await swept(b)
    outcome = job_store(store).status(ref).outcome
    assert (outcome.state, outcome.run, clock.now) == ("completed", 2, 0.0)


async def test_a_released_run_leaves_what_it_has_spoken(store):
    """The replica that goes on speaks only the rest, although nothing was due to be kept."""
    ref = submit(store, audio_s=60.0)
    first, second = SpeakUnits(4, stuck_at=2), SpeakUnits(4)
    a = runner(store, first, name="a")
    await a.start(told(store, ref))
    await until(lambda: first.stuck)
    assert job_store(store).standing(ref).units_done == 0
    await a.close(drain_s=0)
    assert job_store(store).standing(ref).units_done == 2
    await swept(runner(store, second, name="b"))
    assert job_store(store).status(ref).state == "completed"
    assert (first.spoken, second.spoken) == ([0, 1], [2, 3])


async def test_released_runs_never_fail_a_job(store):
    """However many rolling updates a long job meets."""
    ref, clock = submit(store), Clock()
    for number in range(6):
        speak = closed()
        r = runner(store, speak, clock, f"r{number}")
        for _ in range(3):
            await r.sweep()
        await until(lambda: speak.requests)  # noqa: B023  (called in the same turn)
        await r.close(drain_s=0)
    standing = job_store(store).standing(ref)
    assert (standing.run, standing.failed, standing.lost) == (6, 0, 0)
    await swept(runner(store, Speak(), clock, "last"))
    assert job_store(store).status(ref).state == "completed"


def lost_again(store, ref) -> None:
    """A second replica began it and died too."""
    job_store(store).begin(job_store(store).status(ref).request, run=2, owner="gone", started_at=201.0)


async def test_a_job_whose_replica_died_once_is_begun_beside_others(store):
    """Replicas die: one death is not the job's, and it waits for nobody."""
    clock = Clock()
    ref = submit(store, 0xA)
    a, _ = await begun(store, ref, clock)
    await kill(a)
    busy = closed()
    b = runner(store, busy, clock, "b")
    await b.start(told(store, submit(store, 0x1B)))
    await until(lambda: busy.requests)
    for clock.now in (0.0, 5.0):
        await b.sweep()
    assert ref in b._tasks
    busy.gate.set()
    await swept(b)


async def test_a_job_that_two_replicas_died_with_runs_alone(store):
    """It is not begun beside anything, and nothing beside it: whoever it takes with it next is nobody else."""
    clock = Clock()
    suspect = submit(store, 0xA, accepted_at=50.0)
    a, _ = await begun(store, suspect, clock)
    await kill(a)
    lost_again(store, suspect)
    speak = closed()
    b = runner(store, speak, clock, "b", max_running_jobs=3)
    await b.start(told(store, submit(store, 0x1B)))
    await until(lambda: speak.requests)
    other = submit(store, 0x2A)
    for clock.now in (0.0, 5.0, 10.0, 11.0):  # seen, known to be begun, and that by a dead one
        await b.sweep()
    assert suspect not in b._tasks  # something else runs here
    speak.gate.set()
    beside: list[int] = []

    async def watched(request, progress):
        if request.job_id == suspect.job_id:
            beside.append(len(b._tasks) - 1)
        return await Speak()(request)

    b._executor._speak = watched
    await swept(b, 8)
    assert beside == [0]
    assert {job_store(store).status(ref).state for ref in (suspect, other)} == {"completed"}


async def test_a_new_job_is_not_begun_beside_a_suspect(store):
    """Told of one while the suspect runs, the replica lets it wait in the store."""
    clock = Clock()
    suspect = submit(store)
    a, _ = await begun(store, suspect, clock)
    await kill(a)
    lost_again(store, suspect)
    speak = closed()
    b = runner(store, speak, clock, "b")
    for clock.now in (0.0, 5.0, 10.0):
        await b.sweep()
    await until(lambda: speak.requests)
    new = submit(store, 0x1B)
    assert not await b.start(told(store, new))
    await b.sweep()
    assert [*b._tasks] == [suspect]
    speak.gate.set()
    await swept(b)
    assert job_store(store).status(new).state == "completed"


async def test_a_marker_of_a_job_that_ended_holds_up_nobody(store):
    """It is settled and gone, beside what runs: the run that ended it is no lost one."""
    done = submit(store, 0xA, accepted_at=50.0)
    r = runner(store, Speak())
    await r.start(told(store, done))
    await r.wait(done)
    store.put(marker_of(job_request(accepted_at=50.0)).key, b"", content_type="x/y")
    speak = closed()
    b = runner(store, speak, name="b")
    await b.start(told(store, submit(store, 0x1B)))
    await until(lambda: speak.requests)
    third = submit(store, 0x2A)
    for _ in range(6):
        await b.sweep()
    assert third in b._tasks
    assert done.job_id not in [marker.ref.job_id for marker in job_store(store).markers.oldest("a", limit=10)]
    speak.gate.set()
    await swept(b)


async def test_markers_of_before_a_retry_go_with_the_job(store):
    """One that a crash left from the first generation keeps no sweep busy."""
    clock = Clock()
    ref, jobs = submit(store), job_store(store, clock)
    status = jobs.status(ref)
    jobs.settle(status.request, jobs.finish(jobs.ended(status, "failed", None)))
    jobs.retry(ref)
    store.put(marker_of(job_request()).key, b"", content_type="x/y")
    r = runner(store, Speak(), clock)
    await swept(r, 8)
    assert (jobs.status(ref).state, store.list("pending/").items) == ("completed", [])


async def test_a_job_that_was_retried_is_spoken_again_by_a_sweep(store):
    """Its own marker brings it to a replica; the runs that failed before do not count."""
    clock = Clock()
    ref, jobs = submit(store), job_store(store, clock)
    r = runner(store, Speak(*[EngineError("x")] * 3), clock)
    await r.start(told(store, ref))
    for clock.now in (0.0, 10.0, 20.0, 30.0, 40.0, 50.0):
        await r.wait(ref)
        await r.sweep()
    assert jobs.status(ref).state == "failed"
    jobs.retry(ref)
    await swept(r, 8)
    assert (jobs.status(ref).state, jobs.status(ref).outcome.run) == ("completed", 4)
    assert store.list("pending/").items == []


async def test_a_replica_forgets_jobs_that_ended(store):
    """What it remembers does not grow with the number of jobs that were cancelled while they ran."""
    r = runner(store, speak := closed(), max_running_jobs=50)
    for number in range(0x10, 0x40):
        ref = submit(store, number)
        await r.start(told(store, ref))
        await until(lambda: len(speak.requests) > number - 0x10)  # noqa: B023
        job_store(store).cancel(ref)
        await r.watch()
        await r.wait(ref)
    for _ in range(2):
        await r.sweep()
    w = r._waiting
    assert [len(kept) for kept in (w._waited, w._own, w._told, w._known, r._tasks)] == [0] * 5
    assert [len(kept) for kept in (w._holds, w._looked, r._suspects)] == [0] * 3


async def test_a_store_that_fails_at_release_costs_time_and_no_job(store, monkeypatch):
    """The run could not be let go: another finds out by the heartbeat that has stopped."""
    ref, clock = submit(store), Clock()
    gone = False

    def refuse(operation, key):
        if gone and operation == "put":
            raise EngineError("no store")

    speak = closed()
    a = runner(Hooked(store, refuse), speak, clock)
    await a.beat()
    await a.start(told(store, ref))
    await until(lambda: speak.requests)
    gone = True
    await a.close(drain_s=0)
    assert job_store(store).status(ref).state == "in_progress"
    b = runner(store, Speak(), clock, "b")
    for clock.now in (0.0, 5.0):
        await b.sweep()
        await b.wait(ref)
    assert job_store(store).status(ref).state == "completed"
    assert ref.job_id == job_id_of(0xA)


async def test_every_kept_unit_outlives_a_replica_that_dies(store, monkeypatch):
    """kill -9 in the middle: the next replica speaks from the last kept unit on."""
    monkeypatch.setattr(progress, "FLUSH_S", 0.0)
    ref, clock = submit(store, audio_s=60.0), Clock()
    first, second = SpeakUnits(5, stuck_at=3), SpeakUnits(5)
    a = runner(store, first, clock)
    await a.beat()
    await a.start(told(store, ref))
    await until(lambda: first.stuck)
    await kill(a)
    b = runner(store, second, clock, "b")
    for clock.now in (0.0, 5.0, 6.0):
        await swept(b, 1)
    assert job_store(store).status(ref).state == "completed"
    assert second.spoken == [3, 4]
