"""What is removed while a client has it run again, and what the store does not let go of."""

import hashlib

import pytest

from serve_app import keys
from serve_app.errors import Conflict, JobExpired, ObjectNotFound, StorageDenied, StorageUnreachable
from serve_app.jobs import Collector, JobRef, JobStatus
from serve_app.jobs.collector import GRACE_S
from serve_app.storage import MemoryStore
from tests.support.interleaving import Crash, Hooked, contents, interleavings
from tests.support.jobs import JOB_ID, REF, Clock, job_outcome, job_request, job_store, nothing_older, speak_now, submit

KEPT_S = 10 * 86_400.0


def at(seconds: float) -> Clock:
    clock = Clock()
    clock.now = seconds
    return clock


def failed(state: str = "failed") -> MemoryStore:
    """A job that ended so, and is kept until KEPT_S."""
    store = nothing_older(MemoryStore(now=at(0.0).date))
    jobs = job_store(store)
    jobs.submit(job_request())
    jobs.settle(job_request(), jobs.finish(job_outcome(state, expires_at=at(KEPT_S).wall())))
    return store


def collect(store: MemoryStore) -> int:
    return Collector(store, at(KEPT_S + 1).wall).collect("a")


def retry(store: MemoryStore) -> JobStatus:
    """By the clock of an ingress that is a little behind."""
    return job_store(store, at(KEPT_S - 1)).retry(REF)


def is_kept(store: MemoryStore) -> bool:
    """It waits, marked; or it is gone with its tombstone, and nothing is left that could bring it back."""
    jobs = job_store(store, at(KEPT_S + 2))
    if jobs.standing(REF).gone:
        return False
    assert jobs.status(REF).state == "queued"
    assert [marker.generation for marker in jobs.markers.oldest("a", limit=10)] == [1]
    return True


@pytest.mark.parametrize("state", ["failed", "expired"])
def test_a_retry_that_was_promised_is_kept(state):
    """In whatever order it and the removal come: where the client was told that the job waits, it does, and where that
    it is gone, it is."""
    outcomes = set()
    for order in interleavings(lambda: failed(state), collect, retry):
        _, told = order.results
        kept = is_kept(order.store)
        assert isinstance(told, JobStatus | JobExpired | ObjectNotFound | Conflict), order.steps
        assert kept or not isinstance(told, JobStatus), order.steps
        assert not kept or not isinstance(told, JobExpired | ObjectNotFound), order.steps
        outcomes.add((kept, isinstance(told, JobStatus)))
    assert outcomes >= {(True, True), (False, False)}


def test_of_two_that_remove_a_job_none_undoes_what_the_other_began():
    """Shards change hands. Whoever listed the job first looks again when the other is in the middle of it, and finds a
    retry that was told 410: that is no reason to take back what it is told by."""

    def at_first_put(act) -> Hooked:
        def hook(operation: str, key: str) -> None:
            if operation == "put" and act not in done:
                done.append(act)
                act()

        return Hooked(store, hook)

    def stop(operation: str, key: str) -> None:
        if operation == "delete":
            raise Crash

    def begin_to_remove() -> None:
        with pytest.raises(Crash):
            collect(Hooked(store, stop))

    def retry_meanwhile() -> None:
        with pytest.raises(JobExpired):
            retry(at_first_put(begin_to_remove))

    store, done = failed(), []
    collect(at_first_put(retry_meanwhile))
    found = job_store(store).standing(REF)
    assert (len(done), found.gone, found.generation) == (2, True, 1)


def test_a_job_that_was_run_again_in_time_is_removed_in_its_turn_and_may_be_retried_before():
    """What a removal that was none has left says nothing of the generations behind it."""
    store = failed()
    store.put(keys.job("default", JOB_ID, "removing-0000.v1"), b"", content_type="text/plain")
    with pytest.raises(Conflict, match="ask for its status"):
        retry(store)
    jobs = job_store(store, at(KEPT_S - 1))
    until = at(2 * KEPT_S).wall()
    jobs.settle(job_request(), jobs.finish(job_outcome("failed", generation=1, expires_at=until)))
    assert retry(store).standing.generation == 2
    jobs.settle(job_request(), jobs.finish(job_outcome("failed", generation=2, expires_at=until)))
    assert collect(store) == 1
    assert job_store(store, at(KEPT_S + 1)).status(REF).state == "failed"
    assert Collector(store, at(2 * KEPT_S + 1).wall).collect("a") == 1
    left = [key for key in contents(store) if JOB_ID in key and key.startswith("jobs/")]
    assert left == [keys.job("default", JOB_ID, "gone.v1.json")]


def refusing(store: MemoryStore, error: Exception, *parts: str) -> Hooked:
    """It deletes nothing whose key has all of these parts."""

    def refuse(operation: str, key: str) -> None:
        if operation == "delete" and all(part in key for part in parts):
            raise error

    return Hooked(store, refuse)


def spoken(store: MemoryStore, number: int, **changes: object) -> JobRef:
    ref = submit(store, number, retention_s=KEPT_S, **changes)
    speak_now(store, Clock(), ref, b"%d" % number)
    return ref


def test_what_the_store_does_not_let_go_of_blocks_no_shard():
    """More of them than a look takes, all due before the other: they are put off, and looked at again."""
    clock = at(0.0)
    store = nothing_older(MemoryStore(now=clock.date))
    locked = [spoken(store, number) for number in range(0x10, 0x80, 0x10)]
    ref = spoken(store, 0xF0)
    clock.now = KEPT_S + 1
    names = ["audio/" + hashlib.sha256(b"%d" % number).hexdigest() for number in range(0x10, 0x80, 0x10)]
    held = Hooked(store, lambda operation, key: deny() if operation == "delete" and key in names else None)

    def deny() -> None:
        raise StorageDenied("403: locked")

    collector = Collector(held, clock.wall)
    for _ in range(4):
        collector.collect("0", limit=3)
    assert [info.key for info in store.list("audio/").items] == sorted(names)
    assert job_store(store).standing(ref).gone
    clock.now += GRACE_S + 1
    assert Collector(store, clock.wall).collect("0") == len(locked)
    assert store.list("audio/").items == []


def test_a_store_that_deletes_nothing_gets_no_more_entries_with_every_look():
    """Nor does that keep a look from coming to its end: the entry of the next hour is the same one each time."""
    clock = at(0.0)
    store = nothing_older(MemoryStore(now=clock.date))
    refs = [spoken(store, number) for number in (0x10, 0x20)]
    clock.now = KEPT_S + 1
    collector = Collector(refusing(store, StorageDenied("403"), ""), clock.wall)
    for _ in range(5):
        clock.now += 60.0
        assert collector.collect("0") == 0
    assert len(store.list("expiry/0/").items) == 2 * len(refs)


def test_where_the_store_does_not_answer_nothing_is_put_off():
    """It is due until it answers again."""
    clock = at(0.0)
    store = nothing_older(MemoryStore(now=clock.date))
    spoken(store, 0x10)
    before = [info.key for info in store.list("expiry/").items]
    clock.now = KEPT_S + 1
    assert Collector(refusing(store, StorageUnreachable("503"), "audio/"), clock.wall).collect("0") == 0
    assert [info.key for info in store.list("expiry/").items] == before
    assert Collector(store, clock.wall).collect("0") == 1
