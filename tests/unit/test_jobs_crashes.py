"""A process that ends at any write of a job's life: whoever sweeps next makes of it what would have been anyway."""

import contextlib
import hashlib
import re

import pytest

from serve_app.jobs import JobRef, progress
from serve_app.storage import MemoryStore
from tests.support.interleaving import Crash, Crashing, Hooked, contents
from tests.support.jobs import Clock, SpeakUnits, finish, job_store, kill, lists_of, runner, submit, told

ASKED = {"audio_s": 40.0, "webhook": "https://client.example/hook", "worker_output": True, "seeded": True}
OF_RUNS = re.compile(r"/(run|ended)-\d{4}")


def final(store: MemoryStore) -> set[str]:
    """Keys of all objects, but for those that say how many runs there were, and for what only saves a later request a
    synthesis; without the time of what is to be removed."""
    kept = contents(store, without=("heartbeats/", "results/"))
    return {re.sub(r"expiry/a/\w+\.", "expiry/", key) for key in kept if not OF_RUNS.search(key)}


@pytest.fixture(autouse=True)
def _every_unit_is_kept(monkeypatch):
    monkeypatch.setattr(progress, "FLUSH_S", 0.0)


async def run_once(seen: MemoryStore, ref: JobRef, clock: Clock, *, exclusive: bool) -> None:
    """By a replica whose process may end in between."""
    r = runner(seen, SpeakUnits(3), clock, "a", exclusive=exclusive)
    await r.start(told(seen, ref))
    await r.wait(ref)
    await kill(r)


async def sweep_up(store: MemoryStore, clock: Clock, *, exclusive: bool) -> None:
    """By another replica, until there is nothing more to do."""
    r = runner(store, SpeakUnits(3), clock, "b", exclusive=exclusive)
    for _ in range(6):
        await r.sweep()
        for ref in list(r._tasks):
            await r.wait(ref)
        clock.now += 5.0


def writes_of(store: MemoryStore) -> tuple[Hooked, list[str]]:
    writes: list[str] = []
    return Hooked(
        store, lambda operation, key: writes.append(key) if operation.startswith(("p", "d")) else None
    ), writes


@pytest.mark.parametrize("exclusive", [True, False])
async def test_a_crash_at_any_write_loses_nothing(exclusive):
    """Whichever write was the last, the same objects are there in the end: no marker, lists and audio right."""
    whole = MemoryStore()
    seen, writes = writes_of(whole)
    ref = submit(whole, **ASKED)
    await run_once(seen, ref, Clock(), exclusive=exclusive)
    expected = final(whole)
    audio = job_store(whole).status(ref).outcome.audio
    assert len(writes) > 15
    assert not any(key.startswith(("pending/", "lists/open/")) or "/progress-" in key for key in expected)
    for at in range(len(writes)):
        store, clock = MemoryStore(), Clock()
        ref = submit(store, **ASKED)
        crashing = Crashing(store, at)
        await run_once(crashing, ref, clock, exclusive=exclusive)
        assert crashing.crashed
        await sweep_up(store, clock, exclusive=exclusive)
        outcome = job_store(store).status(ref).outcome
        assert (outcome.state, outcome.audio) == ("completed", audio), writes[at]
        assert hashlib.sha256(store.get(audio.key).body).hexdigest() == audio.sha256
        assert final(store) == expected, writes[at]


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("ended_as", ["failed", "expired"])
async def test_a_crash_at_any_write_of_a_retry_loses_nothing(exclusive, ended_as):
    """Before `again` is written the job has ended as before; then it waits, and the first who looks marks it."""
    for at in range(8):
        store, clock = MemoryStore(), Clock()
        ref = submit(store, ttl_s=1.0 if ended_as == "expired" else None)
        jobs = job_store(store, clock, exclusive=exclusive)
        if ended_as == "failed":
            status = jobs.status(ref)
            jobs.settle(status.request, jobs.finish(jobs.ended(status, "failed", None)))
        assert jobs.status(ref).state == ended_as
        crashing = Crashing(store, at)
        try:
            job_store(crashing, clock, exclusive=exclusive).retry(ref)
        except Crash:
            assert crashing.crashed
        state = jobs.status(ref).state
        assert state in (ended_as, "queued")
        assert (ended_as if state == ended_as else "open") in lists_of(store, whole=False)
        assert len(jobs.markers.oldest("a", limit=10)) == (state == "queued")
    assert not crashing.crashed  # the last was whole


async def test_a_crash_at_any_write_of_a_cancel_leaves_it_cancelled_or_to_be_run(caplog):
    """The client got no answer, so either is right; the job is in one list, with a marker only while it waits."""
    for at in range(9):
        store, clock = MemoryStore(), Clock()
        ref = submit(store, **ASKED)
        with contextlib.suppress(Crash):
            job_store(Crashing(store, at), clock).cancel(ref)
        await sweep_up(store, clock, exclusive=False)
        r = runner(store, SpeakUnits(3), clock)
        state = await finish(store, r, ref)
        assert state == ("completed" if at == 0 else "cancelled")
        assert lists_of(store) == [state]
        assert store.list("pending/").items == []
