"""Who lives, and how a replica says that it does."""

import asyncio
import math
import threading

import pytest

from serve_app import heartbeats
from serve_app.heartbeats import KEPT_S, Counters, Heartbeats, Liveness
from serve_app.storage import MemoryStore, ObjectStore
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


def watched(store: ObjectStore, clock: Clock) -> tuple[Heartbeats, Heartbeats]:
    """One that beats, and one that beats and looks."""
    beating, looking = (Heartbeats(store, name, 10.0, clock) for name in ("beats", "looks"))
    return beating, looking


@pytest.mark.parametrize("outage_s", [2.5, 5.5, 10.0, 60.0])
def test_an_outage_of_the_store_counts_as_a_quarter_of_the_time(outage_s):
    """Whoever comes back to the store gives the others the rest of `dead_after_s`, and finds the dead one by then."""
    store, clock = MemoryStore(), Clock()
    beating, looking = watched(store, clock)
    for each in (beating, looking):
        each.beat(Counters())
    assert looking.live() == {"beats", "looks"}
    back = clock.now = outage_s
    assert looking.live() == {"beats", "looks"}  # it can look again before it can beat
    looking.beat(Counters())
    while clock.now < back + 7.4:
        assert looking.live() == {"beats", "looks"}
        assert not looking.is_dead("beats")
        clock.now += 2.0
        looking.beat(Counters())
    clock.now = back + 7.5
    assert looking.live() == {"looks"}
    assert looking.is_dead("beats")


@pytest.mark.parametrize("phase", [0, 1, 10, 19, 32])
@pytest.mark.parametrize("outage_s", [1.0, 3.0, 9.0, 10.0, 11.0, 100.0])
def test_live_replicas_outlive_an_outage_of_the_store(phase, outage_s):
    """They beat as seldom as is allowed, `phase` tenths of a second apart, and look at any time: neither takes the
    other for dead."""
    store, clock = MemoryStore(), Clock()
    a, b = watched(store, clock)
    outage = (20.0, 20.0 + outage_s)
    for tenth in range(1500):
        clock.now = tenth / 10
        if outage[0] < clock.now < outage[1]:
            continue
        for replica, starts_at in ((a, 0), (b, phase)):
            if (tenth - starts_at) % 33 == 0:
                replica.beat(Counters())
        if clock.now >= 4.0:
            assert a.live() == b.live() == {"beats", "looks"}, clock.now


@pytest.mark.parametrize(("every_s", "by_s"), [(4.9, 20.0), (5.1, 21.0), (9.0, 40.0), (30.0, 125.0)])
def test_a_slow_store_keeps_no_dead_replica_alive(every_s, by_s):
    """However long each beat takes."""
    store, clock = MemoryStore(), Clock()
    beating, looking = watched(store, clock)
    beating.beat(Counters())
    looking.beat(Counters())
    looking.live()
    while looking.live() == {"beats", "looks"}:
        clock.now += every_s
        looking.beat(Counters())
    assert 10.0 <= clock.now <= by_s


@pytest.mark.parametrize("sweep_s", [3.0, 15.0, 30.0])
def test_a_dead_replica_is_found_in_time_however_seldom_is_looked(sweep_s):
    """At the first look behind `dead_after_s` after the first one that saw its last beat."""
    store, clock = MemoryStore(), Clock()
    beating, looking = watched(store, clock)
    beating.beat(Counters())
    found_at = None
    for second in range(100):
        clock.now = float(second)
        if second % 2 == 0:
            looking.beat(Counters())
        if second % sweep_s == 0 and "beats" not in looking.live():
            found_at = clock.now
            break
    assert found_at == sweep_s * math.ceil(10.0 / sweep_s)


def test_who_never_looked_knows_of_nobody_that_is_dead():
    """However long ago it was asked first."""
    clock = Clock()
    beats = Heartbeats(MemoryStore(), "a", 5.0, clock)
    for clock.now in (0.0, 60.0):
        assert not beats.is_dead("b")


def test_what_is_known_of_replicas_is_bounded(monkeypatch):
    """Those that are asked for stay; of a process that lives for months the others were gone long ago."""
    monkeypatch.setattr(heartbeats, "REMEMBERED", 3)
    clock = Clock()
    liveness = Liveness(5.0, clock)
    for number in range(100):
        for name in ("a", "b", f"gone {number}"):
            liveness.is_dead(name, "1")
    clock.now = 5.0
    assert (liveness.is_dead("a", "1"), len(liveness._seen)) == (True, 3)


def test_all_heartbeats_that_are_old_are_removed():
    """However many there are: more than one listing tells."""
    clock = Clock()
    store = MemoryStore(now=clock.date)
    for number in range(1500):
        store.put(f"heartbeats/{number}.v1.json", b"{}", content_type="application/json")
    clock.now = KEPT_S + 1
    beats = Heartbeats(store, "new", 5.0, clock, clock.wall)
    beats.beat(Counters())
    beats.forget_old()
    assert [info.key for info in store.list("heartbeats/").items] == ["heartbeats/new.v1.json"]
