"""A store without conditions lets two replicas begin the same run: one of them goes on."""

import asyncio
import threading

import pytest

from serve_app.storage import MemoryStore
from tests.support.deadline import DEADLINE_S
from tests.support.jobs import Clock, Speak, finish, job_store, runner, submit, told, until


class TwoBeginAtOnce(MemoryStore):
    """Both have seen the job without a run before either writes that it has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.both = threading.Barrier(2, timeout=DEADLINE_S)

    def put(self, key, body, *, content_type):
        if "/run-" in key:
            self.both.wait()
        return super().put(key, body, content_type=content_type)


def closed() -> Speak:
    speak = Speak()
    speak.gate.clear()
    return speak


@pytest.mark.parametrize("first", [0, 1])
async def test_of_two_that_began_one_run_the_last_to_write_goes_on(first):
    """Whoever looks first. The other stops, and says nothing: the run that it leaves is not its own."""
    store, clock, speaks = TwoBeginAtOnce(), Clock(), [closed(), closed()]
    ref = submit(store)
    replicas = [runner(store, speak, clock, name) for name, speak in zip("ab", speaks, strict=True)]
    for r in replicas:
        assert await r.start(told(store, ref))
    await until(lambda: all(speak.requests for speak in speaks))
    assert job_store(store).standing(ref).run == 1
    for r in (replicas[first], replicas[1 - first], replicas[first]):
        await r.watch()
    owner = job_store(store).status(ref).run.owner
    goes_on, stopped = replicas if owner == "a" else reversed(replicas)
    async with asyncio.timeout(DEADLINE_S):
        await stopped.wait(ref)
    assert (ref in goes_on._tasks, ref in stopped._tasks) == (True, False)
    assert [key for key in store._objects if "/ended-" in key] == []
    for speak in speaks:
        speak.gate.set()
    assert await finish(store, goes_on, ref) == "completed"
    outcome = job_store(store).status(ref).outcome
    assert (outcome.run, stopped.counters.completed, goes_on.counters.completed) == (1, 0, 1)


async def test_a_store_with_conditions_is_not_asked_who_owns_a_run():
    """There the second never began: each watch is one listing."""
    reads: list[str] = []

    class Counting(MemoryStore):
        def get(self, key):
            reads.append(key)
            return super().get(key)

    store, speak = Counting(), closed()
    ref, r = submit(store), runner(store, speak, exclusive=True)
    await r.start(told(store, ref))
    await until(lambda: speak.requests)
    reads.clear()
    await r.watch()
    assert reads == []
    speak.gate.set()
    assert await finish(store, r, ref) == "completed"


async def test_one_that_cannot_be_watched_keeps_no_other(monkeypatch):
    """A broken answer for one job is logged, and the next is looked at."""
    store, clock, speak = MemoryStore(), Clock(), closed()
    refs = [submit(store, number) for number in (0xA, 0x1B)]
    r = runner(store, speak, clock)
    for ref in refs:
        await r.start(told(store, ref))
    await until(lambda: len(speak.requests) == 2)
    standing = r._jobs.standing

    def broken(ref):
        if ref == refs[0]:
            raise ValueError("no listing")
        return standing(ref)

    job_store(store, clock).cancel(refs[1])
    monkeypatch.setattr(r._jobs, "standing", broken)
    await r.watch()
    await r.wait(refs[1])
    assert (refs[0] in r._tasks, refs[1] in r._tasks) == (True, False)
    monkeypatch.undo()
    speak.gate.set()
    assert await finish(store, r, refs[0]) == "completed"
