"""Reaching jobs from the ingress: the store is the truth, runners only save time."""

import asyncio
import itertools
from collections import Counter

import pytest

from serve_app import job_client, keys
from serve_app.errors import Conflict, JobExpired, JobNotFound, ObjectNotFound, StorageUnreachable, Unavailable
from serve_app.job_client import JobClient, job_ref
from serve_app.jobs import JobRef
from serve_app.jobs.states import ending_name
from serve_app.storage import MemoryStore
from tests.support.interleaving import Hooked
from tests.support.jobs import (
    JOB_ID,
    REF,
    Clock,
    job_id_of,
    job_outcome,
    job_request,
    job_store,
    submit,
    told,
    until,
)


class Runners:
    """Stands in for the Jobs replicas."""

    def __init__(self, store: MemoryStore, error: Exception | None = None, ends: bool = True) -> None:
        self.store, self.error, self.ends = store, error, ends
        self.told: list[str] = []

    async def start(self, markers) -> None:
        self.told += [marker.ref.job_id for marker in markers]
        if self.error:
            raise self.error

    async def run(self, marker) -> None:
        await self.start([marker])
        if self.ends:
            job_store(self.store).finish(job_outcome("completed"))
        else:
            await asyncio.Event().wait()


def client_of(store: MemoryStore, runners, clock: Clock | None = None, **changes) -> JobClient:
    clock = clock or Clock()
    return JobClient(store, runners, clock, wall_clock=clock.wall, **changes)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def test_submit_makes_the_job_durable_before_anybody_is_told(store):
    """The 202's promise rests on the store alone."""
    runners = Runners(store)
    ref = (await client_of(store, runners).submit(job_request())).request.ref
    assert (ref, job_store(store).status(ref).state, runners.told) == (REF, "queued", [])


async def test_a_runner_that_cannot_be_told_costs_nothing(store):
    """tell() swallows no job: the marker stays for a sweep."""
    runners = Runners(store, Unavailable("gone"))
    client = client_of(store, runners)
    await client.submit(job_request())
    client.tell(told(store, REF))
    await until(lambda: runners.told)
    assert [marker.ref for marker in job_store(store).markers.oldest("a", limit=10)] == [REF]


async def test_run_answers_with_the_end(store):
    """A synchronous call gets the outcome."""
    client = client_of(store, Runners(store))
    status = await client.run((await client.submit(job_request())).request.ref, timeout_s=60)
    assert status.state == "completed"


async def test_run_answers_with_the_state_when_the_wait_is_over(store):
    """What does not end in time goes on; the caller is told where it stands."""
    client = client_of(store, Runners(store, ends=False))
    status = await client.run((await client.submit(job_request())).request.ref, timeout_s=0.01)
    assert status.state == "queued"


async def test_run_outlives_the_runner_that_had_the_job(store):
    """When the runner is lost, the store is asked until another one has ended the job."""
    client = client_of(store, Runners(store, Unavailable("replica died")))
    ref = (await client.submit(job_request())).request.ref
    waiting = asyncio.create_task(client.run(ref, timeout_s=60))
    await asyncio.to_thread(job_store(store).finish, job_outcome("completed", run=2))
    assert (await waiting).state == "completed"


class Short(Runners):
    """Returns before the job has ended, which then ends, and its time is over, while its caller looks away."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        super().__init__(store)
        self.clock = clock

    async def run(self, marker) -> None:
        self.clock.now += 5.0
        job_store(self.store, self.clock).finish(job_outcome("completed", expires_at=self.clock.wall() + 1.0))
        self.clock.now += 2.0


async def test_who_waits_is_told_of_an_end_whose_time_is_over_by_then(store):
    """RunPod's shortest ttl is a second, and a caller looks once a second; another call is told that it is over."""
    clock = Clock()
    client = client_of(store, Short(store, clock), clock)
    ref = (await client.submit(job_request())).request.ref
    assert (await client.run(ref, timeout_s=60)).state == "completed"
    with pytest.raises(JobExpired):
        await client.status(ref)


class Holding(Runners):
    """A replica that holds the call for as long as it may, and has the job end in the third."""

    def __init__(self, store: MemoryStore, clock: Clock, holds_s: float) -> None:
        super().__init__(store)
        self.clock, self.holds_s = clock, holds_s

    async def run(self, marker) -> None:
        self.told.append(marker.name)
        self.clock.now += self.holds_s
        if len(self.told) == 3:
            job_store(self.store).finish(job_outcome("completed"))


async def test_a_call_that_a_replica_held_is_made_again(store):
    """So a long job is asked for once in some seconds, and its end is known at once."""
    clock, asked = Clock(), []
    runners = Holding(store, clock, 5.0)
    hooked = Hooked(store, lambda operation, key: asked.append(key) if operation == "list" else None)
    client = client_of(hooked, runners, clock)
    ref = (await client.submit(job_request())).request.ref
    asked.clear()
    assert (await client.run(ref, timeout_s=60)).state == "completed"
    assert len(asked) == 5


async def test_a_call_that_is_not_held_is_not_made_again(store):
    """That replica does not run it: the store tells of the end."""
    clock = Clock()
    runners = Holding(store, clock, 0.0)
    client = client_of(store, runners, clock)
    ref = (await client.submit(job_request())).request.ref
    waiting = asyncio.create_task(client.run(ref, timeout_s=60))
    await until(lambda: runners.told)
    await asyncio.to_thread(job_store(store).finish, job_outcome("completed"))
    assert ((await waiting).state, len(runners.told)) == ("completed", 1)


@pytest.mark.parametrize("job_id", ["", "x", "../../etc/passwd", JOB_ID.upper() + "/", JOB_ID + "/", "a" * 5000])
def test_what_cannot_be_an_id_is_not_found(job_id):
    """No key is ever built from a string that the service did not give out."""
    with pytest.raises(JobNotFound):
        job_ref("default", job_id)


def test_an_id_is_an_id():
    """Ids that the service gives out name their job, in capitals too: they are UUIDs."""
    assert job_ref("default", JOB_ID) == job_ref("default", JOB_ID.upper()) == REF


async def test_events_tell_that_the_ttl_is_over(store):
    """As one question about the job would, though nothing in the store has changed."""
    clock = Clock()
    submit(store, ttl_s=150.0)
    changes = client_of(store, Runners(store), clock, watch_s=0.0).events(REF)
    assert (await anext(changes)).state == "queued"
    clock.now += 51
    status = await anext(changes)
    assert (status.state, status.outcome.error.code) == ("expired", "ttl_over")
    assert [each async for each in changes] == []


async def test_events_carry_out_an_end_that_was_announced(store):
    """Who announced it died before the outcome: the stream ends with it nevertheless."""
    submit(store)
    changes = client_of(store, Runners(store), watch_s=0.0).events(REF)
    assert (await anext(changes)).state == "queued"
    announced = job_outcome("cancelled", run=0).model_dump_json().encode()
    store.put(keys.job("default", JOB_ID, ending_name(0)), announced, content_type="application/json")
    assert [each.state async for each in changes] == ["cancelled"]


async def test_a_look_of_events_is_one_listing(store, monkeypatch):
    """Whichever look it is: while nothing changes a stream asks the store for no more."""
    submit(store)
    asked: list[tuple[str, str]] = []
    client = client_of(Hooked(store, lambda *operation: asked.append(operation)), Runners(store), watch_s=0.0)
    pauses = iter(range(39))

    async def sleep(seconds: float) -> None:
        if next(pauses, None) is None:
            raise Unavailable("enough looks")

    monkeypatch.setattr(job_client.asyncio, "sleep", sleep)
    with pytest.raises(Unavailable):
        [each async for each in client.events(REF)]
    found = Counter(operation for operation, key in asked if key.startswith("jobs/"))
    assert found == {"list": 40, "get": 1}  # its request, once


async def test_what_waits_is_counted_without_any_runner(store):
    """From the markers, whoever's they are; at most some seconds old, also after a silence."""
    clock = Clock()
    client = client_of(store, Runners(store), clock)
    submit(store, 1)
    submit(store, 2, "acme", low_priority=True)
    assert await client.unended() == 2
    submit(store, 3, accepted_at=2.0**38)
    assert await client.unended() == 2
    clock.now += job_client.COUNT_UNASKED_S
    assert await client.unended() == 3


def waiting_jobs(store: MemoryStore, count: int) -> list[JobRef]:
    """All in one shard."""
    return [submit(store, 16 * number + 0xA) for number in range(count)]


async def test_a_purge_holds_few_jobs_at_once(store, monkeypatch):
    """However many wait: tasks and markers are a bounded number, and all are cancelled."""
    monkeypatch.setattr(job_client, "PURGED", 5)
    refs = waiting_jobs(store, 40)
    client, loop, tasks = client_of(store, Runners(store)), asyncio.get_running_loop(), []
    cancel = client._cancel_waiting

    def counted(ref: JobRef) -> bool:
        tasks.append(len(asyncio.all_tasks(loop)))
        return cancel(ref)

    client._cancel_waiting = counted
    assert await client.purge("default") == 40
    assert max(tasks) <= 5 + 3
    assert {job_store(store).status(ref).state for ref in refs} == {"cancelled"}


@pytest.mark.parametrize("error", [Conflict("retried meanwhile"), ObjectNotFound("removed meanwhile")])
async def test_a_job_that_was_retried_or_removed_meanwhile_breaks_no_purge(store, error):
    """It is not counted, and all others are cancelled."""
    first, *others = waiting_jobs(store, 5)
    client = client_of(store, Runners(store))
    breaking(client, first, error)
    assert await client.purge("default") == 4
    assert {job_store(store).status(ref).state for ref in others} == {"cancelled"}


async def test_a_purge_that_the_store_breaks_off_leaves_no_task_behind(store):
    """Whoever asked is told, when what was begun beside it is done."""
    first, *others = waiting_jobs(store, 5)
    client = client_of(store, Runners(store))
    breaking(client, first, StorageUnreachable("no answer"))
    with pytest.raises(StorageUnreachable):
        await client.purge("default")
    assert {job_store(store).status(ref).state for ref in others} == {"cancelled"}


def breaking(client: JobClient, broken: JobRef, error: Exception) -> None:
    cancel = client._jobs.cancel

    def cancelled(ref: JobRef, **more):
        if ref == broken:
            raise error
        return cancel(ref, **more)

    client._jobs.cancel = cancelled


async def test_a_purge_outlives_who_asked_for_it(store):
    """RunPod's SDK waits three seconds: what it asked for is done nevertheless, and the next answer comes after it."""
    refs = waiting_jobs(store, 40)
    client, begun = client_of(store, Runners(store)), []
    cancel = client._cancel_waiting
    client._cancel_waiting = lambda ref: begun.append(ref) or cancel(ref)
    asking = asyncio.create_task(client.purge("default"))
    await until(lambda: begun)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await client.purge("default") == 0
    assert {job_store(store).status(ref).state for ref in refs} == {"cancelled"}


async def test_a_purge_leaves_what_is_accepted_after_it(store):
    """It may take long, and whoever asked for it goes on with new jobs meanwhile."""
    clock = Clock()
    (before,) = waiting_jobs(store, 1)
    client, numbers = client_of(store, Runners(store), clock), itertools.count(0x10B, 16)  # of a shard behind
    cancel = client._cancel_waiting

    def then_another(ref: JobRef) -> bool:
        submit(store, next(numbers), accepted_at=clock.wall() + 1)
        return cancel(ref)

    client._cancel_waiting = then_another
    assert await client.purge("default") == 1
    later = JobRef("default", job_id_of(0x10B))
    assert [job_store(store).status(ref).state for ref in (before, later)] == ["cancelled", "queued"]
