"""One run of one job: what ends it, what is tried again, what is given up."""

import asyncio
import hashlib

import pytest

from serve_app import keys
from serve_app.errors import EngineError, InvalidText, Overloaded, StorageUnreachable, Unavailable, VoiceNotFound
from serve_app.job_executor import PATIENCE_S
from serve_app.storage import MemoryStore
from tests.support.jobs import PAUSES, REF, Clock, Speak, finish, job_store, runner, submit, told


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def test_a_started_job_completes_and_its_audio_is_what_was_spoken(store):
    """The outcome names content-addressed audio that is in the store, with its duration and hash."""
    ref, r = submit(store, worker_output=True), runner(store, Speak())
    assert await r.start(told(store, ref))
    assert await finish(store, r, ref) == "completed"
    outcome = job_store(store).status(ref).outcome
    body = store.get(outcome.audio.key).body
    assert outcome.audio.sha256 == hashlib.sha256(body).hexdigest()
    assert outcome.audio.key == f"audio/{outcome.audio.sha256}"
    assert (outcome.audio.duration_s, outcome.model, outcome.draft, outcome.run) == (1.0, "preview", True, 1)
    assert store.get(f"output/{ref.job_id}.wav").body == body


@pytest.mark.parametrize("error", [InvalidText("nothing to speak"), VoiceNotFound("voice 'x' does not exist")])
async def test_what_a_retry_cannot_mend_fails_at_once(store, error):
    """A request that is wrong in itself fails in its first run, with the error's fields."""
    speak = Speak(error)
    ref, r = submit(store), runner(store, speak)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "failed"
    outcome = job_store(store).status(ref).outcome
    assert (outcome.error.code, outcome.error.message) == (error.code, error.message)
    assert len(speak.requests) == 1


async def test_what_a_retry_may_mend_is_run_again_by_a_sweep(store):
    """An engine's failure leaves the job pending; the next sweep begins run 2."""
    speak = Speak(EngineError("out of memory"), None)
    clock = Clock()
    ref, r = submit(store), runner(store, speak, clock)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "queued"
    await r.sweep()
    assert await finish(store, r, ref) == "queued"  # not at once: what failed is given two seconds
    clock.now = 2.0
    await r.sweep()
    assert await finish(store, r, ref) == "completed"
    assert job_store(store).status(ref).outcome.run == 2
    assert r.counters.retried == 1


async def test_a_job_that_keeps_failing_is_failed_with_its_last_error(store):
    """After max_runs the job fails for good and says why."""
    speak = Speak(*[EngineError(f"failure {n}") for n in (1, 2, 3)])
    clock = Clock()
    ref, r = submit(store), runner(store, speak, clock)
    await r.start(told(store, ref))
    await r.wait(ref)
    for clock.now in (2.0, 6.0):
        await r.sweep()
        await r.wait(ref)
    outcome = job_store(store).status(ref).outcome
    assert (outcome.state, outcome.run, outcome.error.message) == ("failed", 3, "failure 3")
    assert len(speak.requests) == 3


async def test_a_job_that_kills_every_replica_is_given_up(store):
    """Runs that never ended count too: run max_runs + 1 is not begun."""
    ref, speak = submit(store), Speak()
    for run in (1, 2, 3):
        job_store(store).begin(job_store(store).status(ref).request, run=run, owner=f"dead{run}", started_at=1.0)
    clock = Clock()
    r = runner(store, speak, clock)
    for clock.now in (0.0, 5.0, 10.0):  # seen; begun by somebody; who is dead
        await r.sweep()
    assert await finish(store, r, ref) == "failed"
    assert speak.requests == []


@pytest.mark.parametrize("folder", ["audio/", "jobs/"])
async def test_a_store_that_fails_for_a_while_costs_no_second_synthesis(store, monkeypatch, folder):
    """Writing audio and outcome is tried again with what was spoken once."""
    speak = Speak()
    ref, r = submit(store), runner(store, speak)
    put, failures = store.put, iter([True] * 3)

    def broken(key, body, *, content_type):
        if key.startswith(folder) and speak.requests and next(failures, False):
            raise StorageUnreachable("no answer")
        return put(key, body, content_type=content_type)

    monkeypatch.setattr(store, "put", broken)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "completed"
    assert (len(speak.requests), job_store(store).status(ref).outcome.run) == (1, 1)


async def test_a_store_that_stays_away_leaves_the_job_pending(store, monkeypatch):
    """An outcome that could not be written is not an outcome."""
    ref, r = submit(store), runner(store, Speak())
    put = store.put

    def broken(key, body, *, content_type):
        if key.startswith("audio/"):
            raise StorageUnreachable("no answer")
        return put(key, body, content_type=content_type)

    monkeypatch.setattr(store, "put", broken)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "queued"
    assert [marker.ref for marker in job_store(store).markers.oldest("a", limit=10)] == [REF]


@pytest.mark.parametrize("passing", [Overloaded("full"), Unavailable("restarting"), StorageUnreachable("no answer")])
async def test_what_time_mends_is_waited_for_within_one_run(store, passing):
    """A full queue or a restarting replica uses up none of a job's runs; the pauses grow."""
    PAUSES.clear()
    speak = Speak(*[passing] * 5, None)
    ref, r = submit(store), runner(store, speak)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "completed"
    assert job_store(store).status(ref).outcome.run == 1
    assert [most / 2 <= pause <= most for pause, most in zip(PAUSES, PATIENCE_S[:5], strict=True)] == [True] * 5


@pytest.mark.parametrize("exclusive", [False, True])
async def test_a_job_that_another_replica_has_just_begun_is_left_to_it(store, exclusive):
    """Whoever saw it without a run begins run 1 and no other: between the look and the run the owner is alive."""
    busy, late = Speak(), Speak()
    busy.gate.clear()
    ref = submit(store)
    a, b = runner(store, busy, name="a", exclusive=exclusive), runner(store, late, name="b", exclusive=exclusive)
    for _ in range(2):
        await b._waiting.look(keys.SHARDS)
    (marker,) = b._waiting.in_turn(())
    seen = await b._waiting.free(marker) or job_store(store).status(ref)
    assert await a.start(told(store, ref))
    while not busy.requests:
        await asyncio.sleep(0)
    b._begin(ref, seen.standing.run)
    await b.wait(ref)
    busy.gate.set()
    assert await finish(store, a, ref) == "completed"
    assert (len(busy.requests), len(late.requests), job_store(store).status(ref).outcome.run) == (1, 0, 1)
