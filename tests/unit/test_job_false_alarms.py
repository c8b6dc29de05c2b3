"""What must not cost a job its life: replicas that were thought dead, replies that were lost, long queues."""

import pytest

from serve_app import job_queue, keys
from serve_app.domain import Unit
from serve_app.errors import ReplicaLost, StorageUnreachable
from serve_app.job_queue import JobQueue
from serve_app.jobs import Collector
from serve_app.storage import MemoryStore
from tests.support.jobs import Clock, Speak, SpeakUnits, finish, job_store, runner, submit, told, until


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def closed() -> Speak:
    speak = Speak()
    speak.gate.clear()
    return speak


async def test_replicas_that_are_thought_dead_again_and_again_fail_no_job(store):
    """Each sees the newer run, stops, and says that it lived: such runs count as nothing."""
    ref, clock = submit(store), Clock()
    replicas = []
    for number in range(5):
        speak = closed()
        r = runner(store, speak, clock, f"r{number}")
        for _ in range(2):
            await r.sweep()
        clock.now += 5.0  # nobody has beaten: to each the one before is dead
        for _ in range(4):
            await r.sweep()
        await until(lambda: speak.requests)  # noqa: B023  (called in the same turn)
        for other in replicas:
            await other.watch()
            await other.wait(ref)
        replicas.append(r)
    standing = job_store(store).standing(ref)
    assert (standing.run, standing.failed, standing.lost) == (5, 0, 1)
    speak.gate.set()
    assert await finish(store, r, ref) == "completed"


@pytest.mark.parametrize("exclusive", [False, True])
async def test_a_run_whose_record_was_written_and_its_reply_lost_goes_on(store, monkeypatch, exclusive):
    """It is tried again with the same token, so it knows the record as its own: one run, however often."""
    losses = iter([True] * 4)
    for name in ("put", "put_new"):
        write = getattr(store, name)

        def losing(key, body, *, content_type, write=write):
            answer = write(key, body, content_type=content_type)
            if "/run-" in key and next(losses, False):
                raise StorageUnreachable("no answer")
            return answer

        monkeypatch.setattr(store, name, losing)
    speak = Speak()
    ref, r = submit(store), runner(store, speak, exclusive=exclusive)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "completed"
    assert (len(speak.requests), job_store(store).status(ref).outcome.run) == (1, 1)


async def test_a_ttl_ends_a_job_though_no_replica_has_room(store):
    """A full replica still looks at those that wait, now and then."""
    clock, busy = Clock(), closed()
    r = runner(store, busy, clock, max_running_jobs=1)
    await r.start(told(store, submit(store, 0xA)))
    await until(lambda: busy.requests)
    waits = submit(store, 0x1B, ttl_s=150.0)
    clock.now = 60.0
    for _ in range(12):
        await r.sweep()
    assert job_store(store, clock).standing(waits).outcome == "expired"
    assert waits not in {marker.ref for marker in job_store(store, clock).markers.oldest("b", limit=10)}
    busy.gate.set()
    await r.close(drain_s=60)


async def test_an_end_that_nobody_settled_before_its_retention_was_over_is_removed(store):
    """Without its expiry entry nothing would ever look at it again."""
    clock = Clock()
    ref = submit(store, retention_s=10.0)
    jobs = job_store(store, clock)
    jobs.finish(jobs.ended(jobs.status(ref), "cancelled", None))  # and whoever wrote that died
    clock.now = 10_000.0
    r = runner(store, Speak(), clock)
    for _ in range(2):
        await r.sweep()
    assert jobs.markers.oldest("a", limit=10) == []
    for shard in keys.SHARDS:
        Collector(store, clock.wall).collect(shard)
    assert (jobs.standing(ref).gone, jobs.standing(ref).exists) == (True, False)


def test_jobs_behind_a_long_line_are_seen_in_turn(store, monkeypatch):
    """More than a page of older ones, of another tenant and of low priority, hide nobody for ever."""
    monkeypatch.setattr(job_queue, "SWEEP_PAGE", 5)
    for number in range(23):
        submit(store, 0x10 * (number + 1) + 0xA, "flood", low_priority=True)
    new = submit(store, 0xFFFA, "small", accepted_at=150.0)
    queue = JobQueue(job_store(store), "a")
    seen = 0
    for _ in range(6):
        queue.look(["a"])
        seen += new in {marker.ref for marker in queue}
    assert seen >= 1


async def test_a_unit_that_kills_replicas_kills_three_although_others_were_with_it(store):
    """At the first death all that were at the replicas are suspects; then each is spoken with nothing of it beside."""
    killed: list[int] = []

    def fail(unit: Unit) -> ReplicaLost | None:
        if unit.index != 2:
            return None
        killed.append(unit.index)
        error = ReplicaLost("the replica ended")
        # the one whose answer fails first need not be the one that killed it
        error.unit_index, error.unit_indexes = (1, frozenset({1, 2, 3})) if len(killed) == 1 else (2, frozenset({2}))
        return error

    speak = SpeakUnits(4, fail)
    ref, r = submit(store), runner(store, speak)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "failed"
    assert job_store(store).status(ref).outcome.error.code == "poison_job"
    assert (len(killed), set(speak.alone) >= {2}) == (3, True)
