"""Reaching jobs from the ingress: the store is the truth, runners only save time."""

import asyncio

import pytest

from serve_app.errors import JobNotFound, Unavailable
from serve_app.job_client import JobClient, job_ref
from serve_app.storage import MemoryStore
from tests.support.jobs import JOB_ID, REF, Clock, job_outcome, job_request, job_store, told, until


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


def client_of(store: MemoryStore, runners, **changes) -> JobClient:
    return JobClient(store, runners, wall_clock=Clock().wall, **changes)


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


@pytest.mark.parametrize("job_id", ["", "x", "../../etc/passwd", JOB_ID.upper(), JOB_ID + "/", "a" * 5000])
def test_what_cannot_be_an_id_is_not_found(job_id):
    """No key is ever built from a string that the service did not give out."""
    with pytest.raises(JobNotFound):
        job_ref("default", job_id)


def test_an_id_is_an_id():
    """Ids that the service gives out name their job."""
    assert job_ref("default", JOB_ID) == REF
