"""Who lives, and how a replica says that it does."""

import asyncio
import threading

from serve_app.heartbeats import Counters, Heartbeats
from serve_app.storage import MemoryStore
from tests.support.deadline import DEADLINE_S
from tests.support.jobs import Clock, Speak, job_store, runner, submit, told, until


async def test_a_replica_whose_threads_are_all_taken_beats_and_watches():
    """Long calls hold every thread that all share: to others it lives, and it stops what was cancelled."""
    store, clock, speak = MemoryStore(), Clock(), Speak()
    speak.gate.clear()
    ref, r = submit(store), runner(store, speak, clock)
    await r.start(told(store, ref))
    await until(lambda: speak.requests)
    release, loop = threading.Event(), asyncio.get_running_loop()
    held = [loop.run_in_executor(None, release.wait) for _ in range(64)]
    try:
        job_store(store, clock).cancel(ref)
        async with asyncio.timeout(DEADLINE_S):
            await r.beat()
            assert Heartbeats(store, "other", 5.0).live() == {"a"}
            await r.watch()
            await r.wait(ref)
    finally:
        release.set()
        await asyncio.gather(*held)


def test_an_old_look_is_no_proof_of_death():
    """Whoever could not look for long knows nothing of the time since."""
    store, clock = MemoryStore(), Clock()
    beating, looking = (Heartbeats(store, name, 5.0, clock) for name in ("beats", "looks"))
    beating.beat(Counters())
    looking.live()
    assert not looking.is_dead("beats")
    clock.now = 60.0
    assert not looking.is_dead("beats")
    beating.beat(Counters())
    assert looking.live() == {"beats"}
    assert not looking.is_dead("beats")
    clock.now = 65.0
    assert looking.live() == set()
    assert looking.is_dead("beats")


def test_one_that_never_beat_is_dead_in_time():
    """It has no heartbeat for as long as is looked."""
    store, clock = MemoryStore(), Clock()
    looking = Heartbeats(store, "looks", 5.0, clock)
    for clock.now, dead in ((0.0, False), (4.9, False), (5.0, True)):
        looking.live()
        assert looking.is_dead("never seen") is dead
