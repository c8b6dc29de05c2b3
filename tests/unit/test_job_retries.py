"""Which runs count, and when the next begins: a store that refuses, broken bytes, replicas that die with a long job."""

import asyncio
import threading

import pytest

from serve_app.errors import EngineError, ObjectCorrupt, StorageDenied, StorageMisconfigured, StorageUnreachable
from serve_app.job_retries import LONGEST_PAUSE_S
from serve_app.job_runner import JobRunner
from serve_app.jobs import JobRef, progress
from serve_app.jobs.progress import KEEP_FROM_S
from serve_app.storage import MemoryStore
from tests.support.jobs import Clock, Speak, SpeakUnits, finish, job_store, kill, runner, submit, told

HOUR_S = 3600


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def refuse(store: MemoryStore, monkeypatch: pytest.MonkeyPatch, part: str, error: Exception) -> list[str]:
    """Writes to keys with `part` fail until the list that is returned is emptied."""
    put, refused = store.put, [part]

    def refusing(key, body, *, content_type):
        if any(part in key for part in refused):
            raise error
        return put(key, body, content_type=content_type)

    monkeypatch.setattr(store, "put", refusing)
    return refused


async def swept(r, clock: Clock, ref, seconds: range) -> None:
    for clock.now in seconds:
        await r.sweep()
        await r.wait(ref)


@pytest.mark.parametrize("part", ["audio/", "/completed"])
@pytest.mark.parametrize("error", [StorageDenied("403 on the key"), StorageMisconfigured("AWS_REGION is wrong")])
async def test_a_store_that_refuses_is_asked_less_and_less_often(store, monkeypatch, part, error):
    """An hour of it costs a few syntheses, and no job: once it is mended the job completes. Its status says what is
    waited for."""
    refused, speak, clock = refuse(store, monkeypatch, part, error), Speak(), Clock()
    ref, r = submit(store, retention_s=1e6), runner(store, speak, clock)
    await r.start(told(store, ref))
    await swept(r, clock, ref, range(0, HOUR_S, 5))
    assert 8 <= len(speak.requests) <= 13
    status = job_store(store).status(ref)
    assert (status.state, status.run_end.reason, status.run_end.error.code) == ("queued", "waiting", error.code)
    assert status.run_end.not_before - status.run_end.ended_at == LONGEST_PAUSE_S
    refused.clear()
    await swept(r, clock, ref, range(HOUR_S, HOUR_S + int(LONGEST_PAUSE_S) + 10, 5))
    assert await finish(store, r, ref) == "completed"


async def test_a_run_whose_end_cannot_be_written_is_not_followed_by_another(store, monkeypatch):
    """Neither outcome nor end: until one of them is written the job is spoken no second time."""
    refused, speak, clock = refuse(store, monkeypatch, "/ended-", StorageDenied("403")), Speak(), Clock()
    refused.append("/completed")
    ref, r = submit(store), runner(store, speak, clock)
    await r.start(told(store, ref))
    await swept(r, clock, ref, range(100))
    assert len(speak.requests) == 1
    refused.clear()
    await swept(r, clock, ref, range(100, 110))
    assert (await finish(store, r, ref), len(speak.requests)) == ("completed", 2)


async def test_broken_bytes_fail_the_job(store):
    """A voice whose record is corrupt is this job's own trouble: after max_runs the client is told."""
    broken = [ObjectCorrupt("voices/v: upload the voice again")] * 3
    speak, clock = Speak(*broken), Clock()
    ref, r = submit(store), runner(store, speak, clock)
    await r.start(told(store, ref))
    await swept(r, clock, ref, range(20))
    outcome = job_store(store).status(ref).outcome
    assert (outcome.state, outcome.error.code, outcome.run) == ("failed", "object_corrupt", 3)


@pytest.mark.parametrize(("gets_on", "state"), [(True, "completed"), (False, "failed")])
async def test_a_job_that_gets_on_is_no_poison(store, monkeypatch, gets_on, state):
    """Five hosts in a row die with it: where each has kept more units than the one before they do not count."""
    monkeypatch.setattr(progress, "FLUSH_S", 0.0 if gets_on else 1e9)
    ref, clock = submit(store, audio_s=KEEP_FROM_S), Clock()
    for number in range(5):
        speak = SpeakUnits(count=12, stuck_at=2 * number + 2)
        r = runner(store, speak, clock, f"dies-{number}")
        await run_until(r, clock, lambda r=r, speak=speak: speak.stuck or job_store(store).standing(ref).outcome)
        await kill(r)
    r = runner(store, speak := SpeakUnits(count=12), clock, "lives")
    await run_until(r, clock, lambda: job_store(store).standing(ref).outcome)
    assert job_store(store).status(ref).state == state
    assert speak.spoken == ([10, 11] if gets_on else [])


async def run_until(r: JobRunner, clock: Clock, happened) -> None:
    """Sweep, with time for who is dead to be found so, until it happened."""
    while not happened():
        clock.now += 1.0
        await r.beat()
        await r.sweep()
        for _ in range(100):
            await asyncio.sleep(0.001)
            if happened():
                return


async def stopped_while_a_failure_is_written(r: JobRunner, ref: JobRef, monkeypatch, before_it=lambda: None) -> None:
    """Run the job, which fails; the store takes the end of the run once the task is cancelled, after `before_it`."""
    end_run, loop, writing, stopped = r._jobs.end_run, asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def fails_until_it_is_stopped(end):
        loop.call_soon_threadsafe(writing.set)
        if not stopped.is_set():
            raise StorageUnreachable("no answer")
        end_run(end)

    monkeypatch.setattr(r._jobs, "end_run", fails_until_it_is_stopped)
    running = asyncio.create_task(r._executor.execute(ref))
    await writing.wait()
    before_it()
    running.cancel()
    loop.call_soon(stopped.set)
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_replica_that_is_stopped_while_a_failure_is_written_writes_it(store, monkeypatch):
    """The run counts as failed, with its error, and not as lost."""
    ref, r = submit(store), runner(store, Speak(EngineError("out of memory")))
    await stopped_while_a_failure_is_written(r, ref, monkeypatch)
    status = job_store(store).status(ref)
    assert (status.state, status.standing.failed, status.standing.lost) == ("queued", 1, 0)
    assert status.run_end.error.message == "out of memory"


async def test_a_run_that_another_owns_is_ended_without_a_word(store, monkeypatch):
    """Its failure is being written when it is seen that the other's record lies there: the other's run goes on."""
    ref, r = submit(store), runner(store, Speak(EngineError("out of memory")))
    await stopped_while_a_failure_is_written(r, ref, monkeypatch, lambda: r._executor.ended_elsewhere(ref))
    found = job_store(store).standing(ref)
    assert (found.state, found.failed) == ("in_progress", 0)


async def test_progress_that_is_refused_hides_no_error(store, monkeypatch):
    """Large writes are refused, small ones taken: a job that fails each time is failed with its own error."""
    refuse(store, monkeypatch, "/progress-", StorageDenied("quota"))
    monkeypatch.setattr(progress, "FLUSH_S", 1e9)
    ref, clock = submit(store, audio_s=KEEP_FROM_S), Clock()
    failure = EngineError("out of memory")
    r = runner(store, SpeakUnits(4, fail=lambda unit: failure if unit.index == 2 else None), clock)
    await r.start(told(store, ref))
    await swept(r, clock, ref, range(20))
    outcome = job_store(store).status(ref).outcome
    assert (outcome.state, outcome.error.message, outcome.run) == ("failed", "out of memory", 3)
