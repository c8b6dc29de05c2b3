"""Whose job is begun next by a replica whose slots come free again and again, and what several replicas make of it."""

import asyncio

import pytest

from serve_app import job_queue
from serve_app.domain import Speech, SpeechRequest
from serve_app.job_queue import Turns, chosen_for
from serve_app.job_waiting import OTHERS_TURN
from serve_app.jobs import JobRef
from serve_app.storage import MemoryStore
from serve_app.unit_speech import NO_PROGRESS, Progress
from tests.support.jobs import Speak, job_id_of, runner, submit, told, until


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class OneByOne:
    """A speaker each of whose jobs ends when the test says so. `begun`: in the order of their runs."""

    def __init__(self) -> None:
        self.begun: list[JobRef] = []
        self.running: list[asyncio.Event] = []

    async def __call__(self, request: SpeechRequest, progress: Progress = NO_PROGRESS) -> Speech:
        self.begun.append(JobRef(request.tenant, request.job_id))
        self.running.append(gate := asyncio.Event())
        await gate.wait()
        return await Speak()(request)

    def end_oldest(self) -> None:
        self.running.pop(0).set()


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("tenants", [["first", "last"], ["first", "second", "last"]])
async def test_a_tenant_with_a_backlog_has_no_two_turns_while_another_waits(store, tenants, slots, replicas):
    """However much older its jobs are. What is another replica's turn, and makes no part of this, comes after that."""
    speak, each = OneByOne(), 12
    r = runner(store, speak, max_running_jobs=slots)
    for number in range(each * len(tenants)):  # all of a tenant's before any of the next
        submit(store, number, tenants[number // each], accepted_at=100.0 + number)
    for number in range(1, replicas):
        await runner(store, Speak(), name=f"full-{number}").beat()
    for _ in range(2 * OTHERS_TURN):
        await r.look()
    mine = {marker.ref for marker in r._waiting._queue if r._waiting.is_mine(marker.ref.job_id) or replicas == 1}
    rounds = min(sum(ref.tenant == tenant for ref in mine) for tenant in tenants)
    for ended in range(rounds * len(tenants)):
        await r.fill()
        await until(lambda: len(speak.begun) >= min(ended + slots, rounds * len(tenants)))  # noqa: B023
        speak.end_oldest()
        await until(lambda: len(r._tasks) < slots)
    by_tenant = [sorted(ref for ref in mine if ref.tenant == tenant)[:rounds] for tenant in tenants]
    assert speak.begun[: rounds * len(tenants)] == [ref for turn in zip(*by_tenant, strict=True) for ref in turn]
    await r.close()


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("word", ["chosen", "told", "new"])
async def test_no_job_of_low_priority_is_begun_before_another_that_waits_for_a_full_replica(store, word, exclusive):
    """Whosever turn it is, by its id or since it was told of it, whoever has room takes it; it is run once."""
    a, b = (runner(store, OneByOne(), name=name, max_running_jobs=1, exclusive=exclusive) for name in "ab")
    for_a, for_b = ([job for job in map(job_id_of, range(99)) if chosen_for(job, "ab") == name] for name in "ab")
    for each in (a, b):
        await each.beat()
    await b.start(told(store, submit(store, int(for_b[0][-3:], 16))))
    await until(lambda: b._executor._speak.begun)
    low = submit(store, int(for_a[0][-3:], 16), low_priority=True)
    for _ in range(2):  # each look is at half of the shards
        await a.look()
    normal = submit(store, int(for_b[1][-3:], 16), accepted_at=150.0)
    if word == "told":
        assert not await b.start(told(store, normal))
    while normal not in {marker.ref for marker in a._waiting._queue}:
        await a.look()
    for _ in range(0 if word == "new" else 2):
        await a.look()
    await a.fill()
    await until(lambda: a._executor._speak.begun)
    assert a._executor._speak.begun == [normal]
    for each in (b, a):
        each._executor._speak.end_oldest()
        await until(lambda: not each._tasks)  # noqa: B023
        await each.look()
        await each.fill()
    await until(lambda: len(a._executor._speak.begun) == 2)
    assert (a._executor._speak.begun, b._executor._speak.begun[1:]) == ([normal, low], [])
    for each in (a, b):
        await each.close()


async def test_what_another_runs_keeps_no_job_of_low_priority_waiting(store):
    """It is looked at once, and then it is known."""
    a, b = (runner(store, OneByOne(), name=name, max_running_jobs=4) for name in "ab")
    for each in (a, b):
        await each.beat()
    for number in range(4):
        await b.start(told(store, submit(store, number)))
    await until(lambda: len(b._executor._speak.begun) == 4)
    low = submit(store, 0x10, low_priority=True)
    for _ in range(2 * OTHERS_TURN):
        await a.look()
    await a.fill()
    await until(lambda: a._executor._speak.begun)
    assert a._executor._speak.begun == [low]
    for each in (a, b):
        await each.close()


def test_turns_are_remembered_of_a_bounded_number_of_tenants(monkeypatch):
    """Those who had theirs the longest ago are forgotten first, and count as never served."""
    monkeypatch.setattr(job_queue, "TENANTS", 3)
    turns = Turns()
    for tenant in ("a", "b", "c", "a", "d"):
        turns.took(tenant)
    assert dict(turns.last) == {"c": 3, "a": 4, "d": 5}
