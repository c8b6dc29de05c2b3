"""What ends a run or a job before its time: limits, poison, cancels, other owners. No sleeping."""

import asyncio

import pytest

from serve_app import keys
from serve_app.errors import EngineError, Overloaded, ReplicaLost
from serve_app.job_executor import ExecutorSettings, JobExecutor
from serve_app.jobs import progress
from serve_app.storage import MemoryStore
from tests.support.jobs import Clock, Speak, SpeakUnits, finish, job_request, job_store, runner, submit, told, until


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class Forever:
    """A speaker that never ends, and says that it was stopped."""

    def __init__(self) -> None:
        self.begun = self.stopped = 0

    async def __call__(self, request, progress):
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped += 1


async def test_a_run_over_its_limit_expires_the_job(store):
    """The speaking is stopped, and the code says which limit it was."""
    speak = Forever()
    ref, r = submit(store, execution_timeout_s=0.01), runner(store, speak)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "expired"
    outcome = job_store(store).status(ref).outcome
    assert (outcome.error.code, outcome.run, speak.stopped) == ("execution_timeout", 1, 1)
    assert "0.01 s" in outcome.error.message


async def test_a_clients_retry_speaks_no_unit_again_that_was_kept(store):
    """The job failed in its third unit: what was spoken before is kept until the retry, which is another generation."""
    failing = SpeakUnits(4, fail=lambda unit: EngineError("broken") if unit.index == 2 else None)
    ref, r = submit(store, audio_s=progress.KEEP_FROM_S), runner(store, failing, max_runs=1)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "failed"
    job_store(store).retry(ref)
    speak = SpeakUnits(4)
    r = runner(store, speak)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "completed"
    assert (failing.spoken, speak.spoken) == ([0, 1], [2, 3])


async def test_a_run_never_goes_on_past_the_ttl(store):
    """Whatever its own limit: a ttl that is over ends it, and the client's longer limit does not help."""
    speak, clock = Forever(), Clock()
    ref, r = submit(store, ttl_s=100.02, execution_timeout_s=500.0), runner(store, speak, clock)
    await r.start(told(store, ref))  # accepted at 100, and it is 200: two hundredths of a second are left
    assert await finish(store, r, ref) == "expired"


@pytest.mark.parametrize(
    ("asked", "limit_s"),
    [
        ({}, 600.0),
        ({"audio_s": 10.0}, 600.0),
        ({"audio_s": 3600.0}, 36_000.0),
        ({"audio_s": 3600.0, "execution_timeout_s": 60.0}, 60.0),
        ({"audio_s": 1.0, "execution_timeout_s": 7200.0}, 7200.0),
        ({"audio_s": 3600.0, "ttl_s": 150.0}, 50.0),
        ({"execution_timeout_s": 60.0, "ttl_s": 110.0}, 10.0),
        ({"ttl_s": 20.0}, 0.0),
    ],
)
def test_the_limit_is_the_clients_or_what_the_speech_needs(store, asked, limit_s):
    """Ten seconds for each of speech, 600 at least; a client's limit beats that, and a ttl all."""
    clock, jobs = Clock(), job_store(store)
    settings = ExecutorSettings("a", 3, 600.0, 10.0)
    executor = JobExecutor(store, jobs, None, settings, None, None, clock.wall)
    request = job_request(**asked)
    jobs.submit(request)
    clock.now = -150.0
    status = job_store(store, clock).status(request.ref)
    clock.now = 0.0
    assert executor._limit_s(request, status) == pytest.approx(limit_s)


@pytest.mark.parametrize(("deaths", "state"), [(1, "completed"), (2, "completed"), (3, "failed")])
async def test_a_unit_that_ends_three_replicas_is_poison(store, monkeypatch, deaths, state):
    """From the first death on it is spoken alone; the third ends the job in its first run, and says why."""
    monkeypatch.setattr(progress, "FLUSH_S", 0.0)
    died: list[int] = []

    def fail(unit):
        if unit.index == 2 and len(died) < deaths:
            died.append(unit.index)
            error = ReplicaLost("the replica ended")
            error.unit_index = 2
            return error
        return None

    speak = SpeakUnits(4, fail=fail)
    ref, r = submit(store, audio_s=60.0), runner(store, speak)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == state
    outcome = job_store(store).status(ref).outcome
    assert outcome.run == 1
    assert outcome.error is None if state == "completed" else outcome.error.code == "poison_job"
    assert speak.alone == [2] * (deaths if deaths < 3 else 2)
    assert speak.spoken == ([0, 1, 2, 3] if deaths < 3 else [0, 1])


async def test_deaths_of_different_units_are_no_poison(store):
    """Replicas that are killed while it runs are not the fault of one unit."""
    deaths = [0, 1, 2, 0, 1, 2]

    def fail(unit):
        if deaths and deaths[0] == unit.index:
            deaths.pop(0)
            error = ReplicaLost("the replica ended")
            error.unit_index = unit.index
            return error
        return None

    ref, r = submit(store), runner(store, SpeakUnits(4, fail=fail))
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "completed"


async def test_those_beside_a_suspect_are_struck_once(store):
    """A death of a batch makes all in it suspects; when a suspect dies again, that says nothing of the others."""
    deaths = [1, 1, 2]

    def fail(unit):
        if deaths and unit.index == deaths[0]:
            deaths.pop(0)
            error = ReplicaLost("the replica ended")
            error.unit_index, error.unit_indexes = unit.index, (1, 2, 3)
            return error
        return None

    speak = SpeakUnits(4, fail=fail)
    ref, r = submit(store), runner(store, speak)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "completed"  # unit 1 and 2 had two strikes each
    assert set(speak.alone) == {1, 2, 3}


async def test_what_time_does_not_mend_for_long_ends_the_run_as_waiting(store):
    """A full queue for more than five minutes: the next run begins later, and no number of those fails the job."""
    speak, clock = Speak(*[Overloaded("full")] * 200), Clock()
    ref, r = submit(store), runner(store, speak, clock)
    await r.start(told(store, ref))
    for run in range(1, 7):
        await r.wait(ref)
        status = job_store(store, clock).status(ref)
        assert (status.state, status.run.run, status.run_end.reason) == ("queued", run, "waiting")
        assert (status.standing.failed, status.standing.lost) == (0, 0)
        clock.now += 60.0
        if run == 6:
            speak.errors.clear()
        await r.sweep()
    assert await finish(store, r, ref) == "completed"


async def test_pauses_between_runs_double(store):
    """2, 4, 8 s by the wall clock, so any replica keeps to them."""
    clock = Clock()
    ref, r = submit(store), runner(store, Speak(*[EngineError("x")] * 5), clock, max_runs=6)
    await r.start(told(store, ref))
    for run, pause_s in enumerate([2.0, 4.0, 8.0], start=1):
        await r.wait(ref)
        end = job_store(store, clock).status(ref).run_end
        assert (end.run, end.not_before - clock.wall(), end.error.message) == (run, pause_s, "x")
        other = runner(store, Speak(), clock, "b")
        clock.now += pause_s - 0.1
        for _ in range(5):
            await other.sweep()
            assert not other._tasks
        clock.now += 0.1
        await r.sweep()


@pytest.mark.parametrize("failed", [0, 1])
async def test_runs_that_did_not_end_count_like_those_that_failed(store, failed):
    """Three in all: with one that failed before, the job is given up with that error in its message."""
    speak, jobs = Speak(EngineError("out of memory")), job_store(store)
    ref = submit(store)
    clock = Clock()
    r = runner(store, speak, clock)
    if failed:
        await r.start(told(store, ref))
        await r.wait(ref)
    for run in range(1 + failed, 4):
        jobs.begin(jobs.status(ref).request, run=run, owner=f"dead{run}", started_at=1.0)
    assert jobs.status(ref).standing.lost == 3 - failed
    for clock.now in (10.0, 20.0, 30.0):
        await r.sweep()
        await r.wait(ref)
    outcome = job_store(store, clock).status(ref).outcome
    assert (outcome.state, outcome.error.code, len(speak.requests)) == ("failed", "poison_job", failed)


async def test_a_cancelled_job_stops_being_spoken(store):
    """The next look sees the client's cancel: the speaking is stopped, and the run writes nothing more."""
    speak = Forever()
    ref, r = submit(store), runner(store, speak)
    await r.start(told(store, ref))
    await until(lambda: speak.begun)
    await r.watch()
    assert speak.stopped == 0
    job_store(store).cancel(ref)
    before = dict(store._objects)
    await r.watch()
    assert await finish(store, r, ref) == "cancelled"
    assert speak.stopped == 1
    assert store._objects == before


async def test_a_run_of_a_job_that_is_removed_stops(store):
    """Its replica was paused for longer than the result was kept."""
    speak = Forever()
    ref, r = submit(store), runner(store, speak)
    await r.start(told(store, ref))
    await until(lambda: speak.begun)
    for info in store.list(f"jobs/{ref.job_id[-1]}/").items:
        store.delete(info.key)
    store.put(keys.job(ref.tenant, ref.job_id, "gone.v1.json"), b"{}", content_type="application/json")
    before = dict(store._objects)
    await r.watch()
    await until(lambda: speak.stopped)
    await r.wait(ref)
    assert store._objects == before


async def test_a_run_that_another_has_superseded_stops_and_is_not_lost(store):
    """A replica that was taken for dead wakes up: it leaves the job to the newer run, and says that it was alive."""
    speak = Forever()
    ref, r = submit(store), runner(store, speak)
    await r.start(told(store, ref))
    await until(lambda: speak.begun)
    job_store(store).begin(job_store(store).status(ref).request, run=2, owner="b", started_at=201.0)
    before = set(store._objects)
    await r.watch()
    assert await finish(store, r, ref) == "in_progress"
    assert speak.stopped == 1
    assert [key.rpartition("/")[2] for key in set(store._objects) - before] == ["ended-0001-released.v1.json"]
    status = job_store(store).status(ref)
    assert (status.run.owner, status.standing.lost) == ("b", 1)


async def test_a_cancel_that_comes_as_it_completes_changes_nothing(store):
    """The outcome that was first counts, for both."""
    ref, r = submit(store), runner(store, Speak())
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "completed"
    assert job_store(store).cancel(ref).state == "completed"


async def test_two_owners_of_one_run_leave_one_outcome(store):
    """Both believe that it is theirs, and both speak it: one state, whoever was first, and its audio is there."""
    first, second = Speak(), Speak()
    a, b = runner(store, first, name="a"), runner(store, second, name="b")
    ref = submit(store)
    await a.start(told(store, ref))
    await b.start(told(store, ref))
    await a.wait(ref)
    assert await finish(store, b, ref) == "completed"
    assert store.head(job_store(store).status(ref).outcome.audio.key)
    assert store.list("pending/").items == []


async def test_where_conditional_writes_hold_a_run_has_one_owner(store):
    """The second to begin it leaves it to the first, and speaks nothing."""
    first, second = Speak(), Speak()
    a, b = (runner(store, speak, name=name, exclusive=True) for speak, name in ((first, "a"), (second, "b")))
    ref = submit(store)
    await asyncio.gather(a.start(told(store, ref)), b.start(told(store, ref)))
    await asyncio.gather(a.wait(ref), b.wait(ref))
    assert job_store(store).status(ref).state == "completed"
    assert len(first.requests) + len(second.requests) == 1
