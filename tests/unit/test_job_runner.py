"""Which jobs a replica runs when, and taking over those of dead ones: clocks injected, no sleeping."""

import asyncio
from contextvars import ContextVar

import pytest

from serve_app import keys
from serve_app.domain import Speech, SpeechRequest
from serve_app.heartbeats import Liveness
from serve_app.jobs import marker_of
from serve_app.storage import MemoryStore
from serve_app.unit_speech import Progress
from tests.support.interleaving import Hooked
from tests.support.jobs import Clock, Speak, finish, job_request, job_store, kill, runner, submit, told, until


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def test_a_replica_runs_no_more_jobs_than_it_may(store):
    """What is over the bound is not taken: it waits in the store, and runs when a slot is free."""
    speak = Speak()
    speak.gate.clear()
    r = runner(store, speak, max_running_jobs=1)
    first, second = submit(store, 0xA), submit(store, 0xB)
    assert await r.start(told(store, first))
    assert not await r.start(told(store, second))
    speak.gate.set()
    await r.wait(first)
    assert await r.start(told(store, second))
    assert await finish(store, r, second) == "completed"


async def test_starting_a_running_job_again_runs_it_once(store):
    """A second word about the same job changes nothing."""
    speak = Speak()
    ref, r = submit(store), runner(store, speak)
    assert await r.start(told(store, ref))
    assert await r.start(told(store, ref))
    await r.wait(ref)
    assert len(speak.requests) == 1


async def test_an_ended_job_is_not_spoken_again(store):
    """Taking a job that already has an outcome only removes its marker."""
    speak = Speak()
    ref, r = submit(store), runner(store, speak)
    await r.start(told(store, ref))
    await r.wait(ref)
    store.put(marker_of(job_request()).key, b"", content_type="application/json")
    for _ in range(2):
        await r.sweep()
        await r.wait(ref)
    assert len(speak.requests) == 1
    assert job_store(store).markers.oldest("a", limit=10) == []


async def test_a_dead_replicas_job_is_taken_over_after_its_heartbeat_stopped(store):
    """Replica b takes a's job once a's heartbeat did not change for dead_after_s on b's own clock, not before."""
    gone, clock = Speak(), Clock()
    gone.gate.clear()
    a = runner(store, gone, name="a")
    ref = submit(store)
    await a.beat()
    await a.start(told(store, ref))
    await until(lambda: gone.requests)
    await kill(a)
    speak = Speak()
    b = runner(store, speak, clock, name="b")
    for now, taken in ((0.0, 0), (4.9, 0), (5.0, 1)):
        clock.now = now
        await b.sweep()
        await b.wait(ref)
        assert len(speak.requests) == taken
    assert job_store(store).status(ref).outcome.run == 2


async def test_a_live_replicas_job_is_left_alone(store):
    """As long as the heartbeat changes, nobody else takes the job."""
    busy, clock, own = Speak(), Clock(), Clock()
    busy.gate.clear()
    a = runner(store, busy, own, name="a")
    ref = submit(store)
    await a.start(told(store, ref))
    speak = Speak()
    b = runner(store, speak, clock, name="b")
    for now in range(0, 60, 4):
        own.now = clock.now = float(now)
        await a.beat()
        await b.sweep()
    assert speak.requests == []
    busy.gate.set()
    assert await finish(store, a, ref) == "completed"


async def test_a_job_that_nobody_was_told_of_is_begun_by_the_second_sweep(store):
    """A new job is left for one turn to the replica that was told; then any replica takes it."""
    speak = Speak()
    ref, r = submit(store), runner(store, speak)
    await r.sweep()
    assert r.counters.pending == 1
    await r.sweep()
    assert await finish(store, r, ref) == "completed"


async def test_one_broken_record_keeps_no_other_job_waiting(store):
    """Placeholders, foreign objects and unreadable records are passed over; the jobs beside them are run."""
    for name in ("foo", "x.default", "folder/x"):
        store.put(f"pending/a/{name}", b"", content_type="x/y")
    broken = submit(store, 0x1A)
    store.put(keys.job("default", broken.job_id, "request.v1.json"), b"{", content_type="application/json")
    ref, r = submit(store, 0x2A), runner(store, Speak())
    await r.sweep()
    await r.sweep()
    assert await finish(store, r, ref) == "completed"


async def test_a_job_is_not_cancelled_or_logged_with_the_call_that_started_it(store):
    """The job runs in a context of its own: the caller's fields and cancellation are not its."""
    seen: list[object] = []
    caller: ContextVar[str] = ContextVar("caller", default="nobody")

    async def speak(request: SpeechRequest, progress: Progress) -> Speech:
        seen.append(caller.get())
        return await Speak()(request)

    ref, r = submit(store), runner(store, speak)
    caller.set("somebody")
    await r.start(told(store, ref))
    waiting = asyncio.create_task(r.wait(ref))
    await asyncio.sleep(0)
    waiting.cancel()
    assert await finish(store, r, ref) == "completed"
    assert seen == ["nobody"]


async def test_a_full_replica_counts_markers_and_reads_nothing(store, monkeypatch):
    """A sweep without room costs listings only, however many jobs wait."""
    speak = Speak()
    speak.gate.clear()
    r = runner(store, speak, max_running_jobs=1)
    await r.start(told(store, submit(store, 0xA)))
    await until(lambda: speak.requests)
    for number in range(0x10, 0x30):
        submit(store, number)
    read: list[str] = []
    monkeypatch.setattr(store, "get", read.append)
    await r.sweep()
    assert (read, r.counters.pending) == ([], 33)
    monkeypatch.undo()
    await r.close()


async def test_a_backlog_is_worked_off_in_the_order_of_arrival_without_pauses(store):
    """Whatever the shard, the oldest goes first; a free slot is filled at once; a new job waits behind the old ones."""
    speak = Speak()
    order: list[str] = []

    async def recorded(request: SpeechRequest, progress: Progress) -> Speech:
        order.append(request.job_id)
        return await speak(request)

    r = runner(store, recorded, max_running_jobs=1, sweep_s=3600.0, heartbeat_s=3600.0)
    old = [submit(store, number) for number in (0x1F, 0x2A, 0x30, 0x45, 0x51, 0x6F)]
    for _ in range(2):
        await r.sweep()
    serving = asyncio.create_task(r.serve())  # its clock makes it sweep no more
    new = submit(store, 0x70)
    await until(lambda: order)
    await r.start(told(store, new))
    await until(lambda: job_store(store).status(new).outcome is not None)
    serving.cancel()
    assert order == [ref.job_id for ref in [*old, new]]


async def test_a_new_job_waits_behind_old_ones_although_a_slot_is_free(store):
    """A slot that came free belongs to the oldest that waits; the new job is next."""
    r = runner(store, Speak(), max_running_jobs=1)
    first, second = submit(store, 0xA), submit(store, 0xB)
    for _ in range(2):
        await r.sweep()
    await r.wait(first)
    new = submit(store, 0xC)
    assert not await r.start(told(store, new))
    for ref in (second, new):
        await r.sweep()
        assert await finish(store, r, ref) == "completed"


async def test_closing_lets_running_jobs_end_and_takes_no_more(store):
    """Within the drain a job ends as ever; after it, it is stopped, and waits for another replica."""
    speak = Speak()
    speak.gate.clear()
    first, second, third = (submit(store, number) for number in (0xA, 0xB, 0xC))
    r = runner(store, speak)
    await r.start(told(store, first))
    await until(lambda: speak.requests)
    closing = asyncio.create_task(r.close(drain_s=60))
    await asyncio.sleep(0)
    assert not await r.start(told(store, second))
    speak.gate.set()
    await closing
    assert job_store(store).status(first).state == "completed"
    stopped = Speak()
    stopped.gate.clear()
    b = runner(store, stopped, name="b")
    await b.start(told(store, third))
    await until(lambda: stopped.requests)
    await b.close(drain_s=0)
    status = job_store(store).status(third)
    assert (status.state, status.run_end.reason) == ("queued", "released")


async def test_a_marker_without_a_job_is_removed(store):
    """A marker whose request is gone cannot stop the sweep of the others."""
    store.put(marker_of(job_request(0)).key, b"", content_type="x/y")
    store.put(marker_of(job_request(0x10)).older_key, b"", content_type="x/y")
    ref, r = submit(store), runner(store, Speak())
    await r.sweep()
    await r.sweep()
    assert await finish(store, r, ref) == "completed"
    assert job_store(store).markers.oldest("0", limit=10) == []


def test_liveness_judges_by_change_on_its_own_clock():
    """A heartbeat that changes resets the count, whatever it says; one that is absent counts as unchanged."""
    clock = Clock()
    liveness = Liveness(5.0, clock)
    assert not liveness.is_dead("a", "1")
    clock.now = 4.0
    assert not liveness.is_dead("a", "2")
    clock.now = 8.9
    assert not liveness.is_dead("a", "2")
    clock.now = 9.0
    assert liveness.is_dead("a", "2")
    assert not liveness.is_dead("never seen", None)


async def settled() -> None:
    """Let the others do all that they can do now."""
    for _ in range(50):
        await asyncio.sleep(0.001)


async def test_a_full_replica_that_is_told_of_jobs_asks_the_store_nothing(store):
    """However many: the word says all that a queue needs to know."""
    looks: list[str] = []
    speak = Speak()
    speak.gate.clear()
    hooked = Hooked(store, lambda operation, key: looks.append(key) if key.startswith("pending/") else None)
    r = runner(hooked, speak, max_running_jobs=1, sweep_s=3600.0, heartbeat_s=3600.0, watch_s=3600.0)
    serving = asyncio.create_task(r.serve())
    await until(lambda: len(looks) == len(keys.SHARDS))  # it sweeps as it begins, and then not for an hour
    first, others = submit(store, 0xA), [submit(store, number) for number in (0x1B, 0x2B, 0x3B)]
    await r.start(told(store, first))
    await until(lambda: speak.requests)
    looks.clear()
    for ref in others:
        assert not await r.start(told(store, ref))
    await settled()
    speak.gate.set()
    await until(lambda: job_store(store).status(others[-1]).outcome is not None)
    serving.cancel()
    assert [key for key in looks if key == "pending/b/"] == []
    assert [request.job_id for request in speak.requests] == [ref.job_id for ref in [first, *others]]
