"""What a long queue must not cost: slots that stay empty, and a look at each job again and again."""

import asyncio
import threading
from contextlib import suppress

import pytest

from serve_app.job_queue import chosen
from serve_app.job_runner import LOOKED_AT
from serve_app.job_waiting import OTHERS_TURN, TENDED_EVERY, TENDED_MOST
from serve_app.jobs import JobRef, RunEnd
from serve_app.storage import MemoryStore
from tests.support.deadline import DEADLINE_S
from tests.support.interleaving import Hooked
from tests.support.jobs import Clock, Speak, job_id_of, job_store, runner, submit, told, until


class Counted:
    """A store that says which jobs were looked at: their folders were listed."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.asked = 0
        self.looks: list[str] = []
        self.store = Hooked(self.inner, self._count)

    def _count(self, operation: str, key: str) -> None:
        self.asked += 1
        if operation == "list" and key.startswith("jobs/"):
            self.looks.append(key.split("/")[-2])

    def since(self) -> list[str]:
        """The jobs that were looked at since the last call."""
        looks, self.looks, self.asked = self.looks, [], 0
        return looks


@pytest.fixture
def counted() -> Counted:
    return Counted()


def closed() -> Speak:
    speak = Speak()
    speak.gate.clear()
    return speak


def begin(store: MemoryStore, ref: JobRef, owner: str, run: int = 1) -> None:
    jobs = job_store(store)
    jobs.begin(jobs.status(ref).request, run=run, owner=owner, started_at=200.0)


async def test_the_first_sweep_reads_no_job_and_the_second_begins_as_many_as_may_run(counted):
    """Three hundred wait: markers alone at first, and then a look at those that are begun."""
    for number in range(300):
        submit(counted.inner, number)
    speak = closed()
    r = runner(counted.store, speak)
    await r.sweep()
    assert (counted.since(), len(r._tasks)) == ([], 0)
    await r.look()
    await r.fill()
    await until(lambda: len(speak.requests) == 2)
    assert len({*counted.since()}) == 2
    await r.close()


async def test_a_freed_slot_costs_a_look_at_the_next_job_alone(counted):
    """Before it in the queue are forty that another replica runs: they are looked at once, and then now and then."""
    b = runner(counted.inner, closed(), name="b")
    await b.beat()
    for number in range(300):
        ref = submit(counted.inner, number, accepted_at=100.0 + number / 1000)
        if number < 40:
            begin(counted.inner, ref, "b")
    speak, clock = closed(), Clock()
    a = runner(counted.store, speak, clock, max_running_jobs=1)
    await a.beat()
    for clock.now in (0.0, 1.0, 2.0, 3.0):  # two replicas: each look is at half of the shards
        await b.beat()
        await a.look()
    await a.fill()
    await until(lambda: speak.requests)
    assert len({*counted.since()}) == 19  # of the forty 18 are a's turn
    for ended in range(1, 6):
        await b.beat()
        await a.look()
        speak.gate.set()
        await asyncio.gather(*a._tasks.values())
        speak.gate.clear()
        counted.since()
        await a.fill()
        await until(lambda: len(speak.requests) > ended)  # noqa: B023
        assert {*counted.since()} == {speak.requests[-1].job_id}
    await a.close()


async def test_jobs_that_another_runs_are_looked_at_now_and_then(counted):
    """Not at every sweep, although there is room; and one that is let go by a replica that lives is gone on with."""
    clock = Clock()
    b = runner(counted.inner, closed(), clock, name="b")
    refs = [submit(counted.inner, number) for number in range(20)]
    for ref in refs:
        begin(counted.inner, ref, "b")
    a = runner(counted.store, Speak(), clock, max_running_jobs=50)
    as_turn = [ref for ref in refs if chosen(ref, ["a", "b"]) == "a"]
    sweeps = 3 * TENDED_EVERY
    for _ in range(sweeps):
        clock.now += 1.0
        await b.beat()
        await a.beat()
        await a.sweep()
    assert len(counted.since()) <= len(refs) * (1 + sweeps // OTHERS_TURN)
    for ref in refs:
        job_store(counted.inner).end_run(
            RunEnd(job_id=ref.job_id, run=1, reason="released", ended_at=1.0, not_before=1.0)
        )
    for sweeps, expected in ((OTHERS_TURN + 1, as_turn), (2 * TENDED_EVERY, refs)):
        for _ in range(sweeps):
            clock.now += 1.0
            await b.beat()
            await a.beat()
            await a.sweep()
            await asyncio.gather(*a._tasks.values())
        assert {job_store(counted.inner).standing(ref).state for ref in expected} == {"completed"}


async def test_a_job_between_two_runs_is_not_looked_at_before_its_time(counted):
    """The pause is in the record of the run that failed; then it is begun by any replica."""
    clock, ref = Clock(), submit(counted.inner)
    begin(counted.inner, ref, "gone")
    end = RunEnd(job_id=ref.job_id, run=1, reason="failed", ended_at=clock.wall(), not_before=clock.wall() + 5.0)
    job_store(counted.inner).end_run(end)
    r = runner(counted.store, Speak(), clock)
    for clock.now in (0.0, 1.0, 2.0, 3.0, 4.9):
        await r.sweep()
    assert (len(counted.since()), len(r._tasks)) == (1, 0)
    clock.now = 5.0
    await r.sweep()
    assert [*r._tasks] == [ref]
    await r.wait(ref)


async def test_one_turn_looks_at_a_bounded_number_of_jobs(counted):
    """Whatever they are found to be; the next turn, at once, looks at the others."""
    for number in range(LOOKED_AT + 8):
        begin(counted.inner, submit(counted.inner, number), "never seen")
    last = submit(counted.inner, 0xFFF, accepted_at=150.0)
    r = runner(counted.store, Speak())
    for _ in range(2):
        await r.look()
        counted.since()
        await r.fill()
    assert (len(counted.since()), r._wake.is_set(), len(r._tasks)) == (LOOKED_AT, True, 0)
    await r.fill()
    assert [*r._tasks] == [last]
    await r.wait(last)


async def test_jobs_for_an_empty_replica_are_looked_at_once_a_sweep(counted):
    """Two replicas died with each: while others run here they wait, and are not read at every turn."""
    r = runner(counted.store, closed(), clock := Clock(), max_running_jobs=3)
    await r.start(told(counted.inner, submit(counted.inner, 0xFFF)))
    for number in range(4):
        ref = submit(counted.inner, number)
        for run in (1, 2):
            begin(counted.inner, ref, "gone", run)
    for clock.now in (0.0, 5.0, 10.0):
        await r.sweep()
    counted.since()
    await r.look()
    for _ in range(5):
        await r.fill()
    assert (sorted(counted.since()), len(r._tasks)) == ([job_id_of(number) for number in range(4)], 1)
    await r.close()


async def test_tending_is_spread_over_sweeps_and_passes_over_nobody(counted):
    """All were seen at once; a few are looked at after each sweep, and each in its turn."""
    clock = Clock()
    r = runner(counted.store, closed(), clock, max_running_jobs=1)
    await r.start(told(counted.inner, submit(counted.inner, 0xFFF)))
    for number in range(200):
        submit(counted.inner, number)
    looks: list[list[str]] = []
    for _ in range(1 + TENDED_EVERY):
        await r.sweep()
        looks.append(counted.since())
    assert max(map(len, looks)) <= TENDED_MOST
    assert min(map(len, looks[2:])) > 0
    assert len({job_id for some in looks for job_id in some} - {job_id_of(0xFFF)}) == 200
    await r.close()


async def test_what_waits_is_tended_in_turn_although_it_is_too_many_for_one_round(counted):
    """Those that were not looked at for the longest time come first."""
    r = runner(counted.store, closed(), max_running_jobs=1)
    await r.start(told(counted.inner, submit(counted.inner, 0xFFF)))
    many = 2 * TENDED_EVERY * TENDED_MOST
    for number in range(many):
        submit(counted.inner, number)
    for _ in range(4 * TENDED_EVERY):
        await r.sweep()
    assert len({*counted.since()} - {job_id_of(0xFFF)}) == many
    await r.close()


@pytest.mark.parametrize("stuck", ["tend", "look"])
async def test_a_freed_slot_waits_for_no_other_loop(stuck):
    """A look at the markers, or at jobs that wait, goes on for minutes; the next job is begun all the same."""
    store, clock, speak, gate, stuck_now = MemoryStore(), Clock(), closed(), threading.Event(), threading.Event()
    tended = job_id_of(0xFFA)

    def wait(operation: str, key: str) -> None:
        if armed and ((stuck == "look" and key == "pending/b/") or (stuck == "tend" and tended in key)):
            stuck_now.set()
            gate.wait()

    armed: list[bool] = []
    for number in range(4):
        submit(store, number)
    submit(store, 0xFFA, accepted_at=190.0)
    r = runner(Hooked(store, wait), speak, clock, max_running_jobs=1, sweep_s=0.01, heartbeat_s=3600.0, watch_s=3600.0)
    for _ in range(2):
        await r.sweep()
    await until(lambda: speak.requests)
    armed.append(True)
    serving = asyncio.create_task(r.serve())
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not stuck_now.is_set():
                clock.now += 0.01
                await asyncio.sleep(0.001)
            speak.gate.set()
            await until(lambda: len(speak.requests) >= 3)
        assert not gate.is_set()
    finally:
        gate.set()
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
        await r.close()
