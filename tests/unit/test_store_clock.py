"""A machine whose clock is wrong judges no job by it: the store says what time it is."""

import asyncio
import threading
from datetime import UTC, datetime

import pytest

from serve_app.job_runner import JobRunner
from serve_app.storage import MemoryStore
from serve_app.store_clock import AGREEING, CLOSE_S, StoreClock
from tests.support.jobs import Clock, Speak, finish, job_store, runner_settings, submit, told, until

DAY_S = 86_400.0


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@pytest.mark.parametrize(
    ("before", "after", "stored", "told"),
    [
        (1000.0, 1000.1, 1000.0, 1000.1),  # the same clock
        (1000.9, 1001.0, 1000.0, 1001.0),  # stores tell whole seconds
        (1004.0, 1004.1, 1000.0, 1004.1),  # close enough
        (1000.0, 1000.1, 1004.0, 1000.1),
        (4600.0, 4600.1, 1000.0, 1001.1),  # an hour fast: what is certain of it
        (1000.0, 1000.1, 4600.0, 4600.0),  # an hour slow
        (1000.0, 1060.0, 1055.0, 1060.0),  # a slow write says little
        (1000.0, 1060.0, 4600.0, 4600.0),
    ],
)
def test_the_clock_is_corrected_by_what_is_certain(before, after, stored, told):
    """By the least that the two can differ, beyond what the store's rounding and a slow write explain."""
    clock = StoreClock(lambda: after)
    for _ in range(AGREEING):
        clock.learn(before, after, at(stored))
    assert clock() == pytest.approx(told)
    assert clock.own() == after


def test_a_clock_that_was_set_right_is_believed_again():
    """The last write says how it is now, where that moves time back; forward, several in a row."""
    now = 4600.0
    clock = StoreClock(lambda: now)
    clock.learn(now, now, at(1000.0))
    assert clock() == 1001.0
    now = 1010.0
    clock.learn(now, now, at(1010.0))
    assert clock() == 1010.0


def test_one_answer_that_is_ahead_moves_nothing_forward():
    """A gateway whose own clock is fast answers now and then: nothing is over sooner for it."""
    clock = StoreClock(lambda: 1000.0)
    for stored in (1000.0, 1600.0, 1600.0, 1000.0, 1600.0, 1600.0):
        clock.learn(1000.0, 1000.1, at(stored))
        assert clock() == 1000.0
    clock.learn(1000.0, 1000.1, at(1600.0))
    assert clock() == pytest.approx(1599.9)


@pytest.mark.parametrize("ahead_s", [3600.0, 30 * DAY_S])
async def test_a_replica_whose_clock_is_fast_ends_and_removes_nothing_before_its_time(ahead_s):
    """After its first beat: neither by ttl, nor the result of a job that ended; and its times are the store's."""
    clock = Clock()
    store, speak = MemoryStore(now=clock.date), Speak()
    wrong = StoreClock(lambda: clock.wall() + ahead_s)
    r = JobRunner(store, speak, runner_settings(), clock, store_clock=wrong)
    await r.beat()
    refs = [submit(store, number, ttl_s=1800.0, retention_s=DAY_S) for number in (0xA, 0x1B)]
    await r.start(told(store, refs[0]))
    assert await finish(store, r, refs[0]) == "completed"
    await r.collect()
    outcome = job_store(store, clock).status(refs[0]).outcome
    assert outcome.finished_at == pytest.approx(clock.wall(), abs=CLOSE_S)
    for _ in range(12):
        await r.sweep()
    await until(lambda: not r._tasks)
    assert job_store(store, clock).standing(refs[1]).outcome == "completed"


async def test_a_ttl_is_over_when_it_is():
    """By the store's time, on a replica whose clock is an hour slow."""
    clock = Clock()
    store = MemoryStore(now=clock.date)
    r = JobRunner(store, Speak(), runner_settings(), clock, store_clock=StoreClock(lambda: clock.wall() - 3600.0))
    ref = submit(store, ttl_s=200.0)
    clock.now = 101.0
    for _ in range(AGREEING):
        await r.beat()
    for _ in range(3):
        await r.sweep()
    await until(lambda: not r._tasks)
    assert job_store(store, clock).standing(ref).outcome == "expired"


class SlowBeats(MemoryStore):
    """Takes no heartbeat until it may."""

    def __init__(self, now) -> None:
        super().__init__(now=now)
        self.may = threading.Event()
        self.listed: list[str] = []

    def put(self, key: str, body: bytes, *, content_type: str):
        if key.startswith("heartbeats/"):
            self.may.wait()
        return super().put(key, body, content_type=content_type)

    def list(self, prefix: str, **more):
        self.listed.append(prefix)
        return super().list(prefix, **more)


async def test_nothing_is_judged_before_the_first_beat_has_told_the_time():
    """A replica whose clock is fast, and whose first heartbeat is slow, removes no result before its time."""
    clock = Clock()
    store = SlowBeats(clock.date)
    ref = submit(store, retention_s=300.0)
    job_store(store, clock).cancel(ref)
    r = JobRunner(store, Speak(), runner_settings(), clock, store_clock=StoreClock(lambda: clock.wall() + 600.0))
    store.listed.clear()
    serving = asyncio.create_task(r.serve())
    try:
        for _ in range(50):
            await asyncio.sleep(0.002)
        assert {prefix for prefix in store.listed if not prefix.startswith("heartbeats/")} == set()
        store.may.set()
        await until(lambda: any(prefix.startswith("expiry/") for prefix in store.listed))
        await r.collect()
    finally:
        store.may.set()
        serving.cancel()
    assert job_store(store, clock).status(ref).state == "cancelled"
