"""Where a job stands in the queue, and what it costs to know that."""

import asyncio
import threading
import time

import pytest

from serve_app import keys
from serve_app.errors import StorageUnreachable
from serve_app.jobs import marker_of
from serve_app.queue_view import VIEW_AGE_S, VIEW_SHARE, QueueView
from serve_app.storage import MemoryStore
from tests.support.interleaving import Hooked
from tests.support.jobs import Clock, job_request, job_store


async def test_a_position_counts_all_that_are_before_it():
    """Older ones of any tenant and shard, low priority behind all others; the first is 1."""
    store = MemoryStore()
    requests = [
        job_request(0x1A, accepted_at=1.0),
        job_request(0x2B, "acme", accepted_at=2.0),
        job_request(0x3A, accepted_at=3.0),
        job_request(0x4A, accepted_at=0.5, low_priority=True),
    ]
    for request in requests:
        job_store(store).submit(request)
    view = QueueView(job_store(store), Clock())
    assert [await view.position(marker_of(request)) for request in requests] == [1, 2, 3, 4]


async def seen(view: QueueView) -> None:
    """Until the look that goes on is over."""
    while view._looking is not None:
        await asyncio.sleep(0)


async def test_a_view_is_shared_and_a_second_old_at_most():
    """A thousand who ask within a second cost one look; after it the next one has it renewed behind his back."""
    store, clock, listed = MemoryStore(), Clock(), []
    first, second = (job_request(number, accepted_at=float(number)) for number in (1, 2))
    for request in (first, second):
        job_store(store).submit(request)
    jobs = job_store(Hooked(store, lambda operation, key: listed.append(key)))
    view = QueueView(jobs, clock, lambda: 0.0)
    clock.now = VIEW_AGE_S
    assert await asyncio.gather(*(view.position(marker_of(second)) for _ in range(50))) == [2] * 50
    assert sorted(listed) == [keys.pending(shard) for shard in keys.SHARDS]
    job_store(store).markers.remove(marker_of(first))
    clock.now += VIEW_AGE_S - 0.01
    assert await view.position(marker_of(second)) == 2
    clock.now += 0.01
    assert await view.position(marker_of(second)) == 2  # it does not wait for the new look
    await seen(view)
    assert await view.position(marker_of(second)) == 1
    assert len(listed) == 32


async def test_nobody_is_told_a_position_that_no_look_has_seen():
    """While the store does not answer, each who asks is told so, also within the second; then it is right at once."""
    store, broken = MemoryStore(), [True, True]
    requests = [job_request(number, accepted_at=float(number)) for number in (1, 2)]
    for request in requests:
        job_store(store).submit(request)

    def fails(operation: str, key: str) -> None:
        if broken and key == keys.pending("a"):
            broken.pop()
            raise StorageUnreachable("no answer")

    view = QueueView(job_store(Hooked(store, fails)), Clock(), lambda: 0.0)
    for _ in range(2):
        with pytest.raises(StorageUnreachable):
            await view.position(marker_of(requests[1]))
    assert await view.position(marker_of(requests[1])) == 2


async def test_looks_take_a_twentieth_of_a_core_at_most():
    """One that took half a second of it, in all threads, is followed by ten seconds without."""
    clock, listed = Clock(), []
    used = threading.local()

    def look(operation: str, key: str) -> None:
        listed.append(key)
        used.s = getattr(used, "s", 0.0) + 0.5 / len(keys.SHARDS)

    view = QueueView(job_store(Hooked(MemoryStore(), look)), clock, lambda: getattr(used, "s", 0.0))
    marker = marker_of(job_request())
    for looks in (1, 2):
        assert await view.position(marker) == 1
        await seen(view)
        assert len(listed) == looks * len(keys.SHARDS)
        clock.now += 0.5 / VIEW_SHARE - 0.01
        await view.position(marker)
        assert view._looking is None
        clock.now += 0.02


async def test_only_the_first_look_keeps_more_than_one_thread():
    """Somebody waits for the first; the others leave the threads to those who ask the store for something."""
    threads: list[int] = []
    slow = Hooked(MemoryStore(), lambda operation, key: (threads.append(threading.get_ident()), time.sleep(0.002)))
    clock = Clock()
    view = QueueView(job_store(slow), clock, lambda: 0.0)
    await view.position(marker_of(job_request()))
    assert len({*threads}) > 1
    threads.clear()
    clock.now += VIEW_AGE_S
    await view.position(marker_of(job_request()))
    await seen(view)
    assert (len(threads), len({*threads})) == (len(keys.SHARDS), 1)
