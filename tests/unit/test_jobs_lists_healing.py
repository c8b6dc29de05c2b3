"""What a page of jobs makes good where it comes across it, and what it costs to ask for little."""

import asyncio
import threading

import pytest

from serve_app.errors import StorageUnreachable
from serve_app.job_client import AT_ONCE, JobClient
from serve_app.job_pages import BEGUN_AGAIN_S, BEGUN_AGE_S, DOUBTED_S, SCANNED, WINDOW
from serve_app.jobs import JobLists, RunEnd, marker_of
from serve_app.storage import MemoryStore
from tests.support.interleaving import Crash, Crashing, Hooked
from tests.support.jobs import Clock, job_outcome, job_request, job_store


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def pending(store: MemoryStore) -> set[str]:
    return {info.key for info in store.list("pending/").items}


def listed(store: MemoryStore, name: str) -> int:
    return len(store.list(f"lists/{name}/").items)


async def states(client: JobClient, state: str | None = None, limit: int = 20) -> list[str]:
    return [each.state for each in (await client.page("default", state, limit=limit)).items]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("exclusive", [False, True])
async def test_jobs_accepted_without_a_marker_get_it_from_a_page(store, exclusive):
    """Their ingress died before it, so no Jobs replica can see them; more of them than there are threads to ask in."""
    requests = [job_request(number) for number in range(AT_ONCE + 8)]
    for request in requests:
        with pytest.raises(Crash):
            job_store(Crashing(store, 2)).submit(request)
    assert (listed(store, "open"), pending(store)) == (len(requests), set())
    clock = Clock()
    client = JobClient(store, None, clock, wall_clock=clock.wall, exclusive=exclusive)
    clock.now = DOUBTED_S
    assert await states(client, limit=100) == ["queued"] * len(requests)
    assert pending(store) == {marker_of(request).key for request in requests}


async def test_a_job_retried_without_a_marker_gets_it_from_a_page(store):
    """The retry is written and its ingress died: the job is listed as waiting, and it is run."""
    jobs, request = job_store(store), job_request()
    jobs.submit(request)
    jobs.settle(request, jobs.finish(job_outcome("failed")))
    with pytest.raises(Crash):
        job_store(Crashing(store, 2)).retry(request.ref)
    assert (jobs.standing(request.ref).generation, pending(store)) == (1, set())
    assert await states(JobClient(store, None, wall_clock=Clock().wall)) == ["queued"]
    assert pending(store) == {marker_of(request, 1).key}


async def test_a_request_that_cannot_be_read_keeps_no_other_from_the_page(store):
    """It is listed as it stands, without a marker."""
    broken, other = job_request(0x1A), job_request(0x2A)
    for request in (broken, other):
        job_store(store).submit(request)
    [key] = [info.key for info in store.list("jobs/").items if broken.job_id in info.key]
    store.put(key, b"{", content_type="application/json")
    clock = Clock()
    clock.now = DOUBTED_S
    assert await states(JobClient(store, None, clock, wall_clock=clock.wall)) == ["queued"] * 2


async def test_a_running_job_is_not_believed_to_wait_for_an_hour(store):
    """One that lost its entry of what was begun is asked."""
    jobs, request = job_store(store), job_request()
    jobs.submit(request)
    jobs.begin(request, run=1, owner="a", started_at=150.0)
    JobLists(store).remove(request, "begun")
    clock = Clock()
    clock.now = DOUBTED_S
    client = JobClient(store, None, clock, wall_clock=clock.wall)
    assert [await states(client) for _ in range(2)] == [["in_progress"]] * 2


@pytest.mark.parametrize("state", ["cancelled", "expired"])
async def test_an_entry_that_was_begun_as_its_job_ended_goes(store, state):
    """Nobody else takes it away, and every page of what runs would look at its job; not before the end is listed."""
    jobs, request = job_store(store), job_request()
    jobs.submit(request)
    outcome = jobs.finish(job_outcome(state, run=0))
    JobLists(store).put(request, "begun")
    client = JobClient(store, None, wall_clock=Clock().wall)
    assert (await states(client, "in_progress"), listed(store, "begun")) == ([], 1)
    assert await states(client) == [state]
    jobs.settle(request, outcome)
    JobLists(store).put(request, "begun")
    assert (await states(client, "in_progress"), listed(store, "begun")) == ([], 0)


async def test_an_entry_of_a_job_that_is_retried_meanwhile_stays(store):
    """The retry may have been begun just before the entry was dropped."""
    jobs, request = job_store(store), job_request()
    jobs.submit(request)
    jobs.settle(request, jobs.finish(job_outcome("failed")))
    JobLists(store).put(request, "begun")

    def retried(operation: str, key: str) -> None:
        if operation == "delete" and key.startswith("lists/begun/"):
            jobs.retry(request.ref)
            jobs.begin(request, run=2, owner="a", started_at=180.0)

    client = JobClient(Hooked(store, retried), None, wall_clock=Clock().wall)
    await states(client, "in_progress")
    assert await states(client, "in_progress") == ["in_progress"]


async def test_a_page_of_one_job_costs_few_listings(store):
    """Where few are of the state that was asked for, the lists are read in parts of a decent size all the same."""
    jobs = job_store(store)
    for number in range(SCANNED):
        jobs.submit(job_request(number, accepted_at=float(number)))
        JobLists(store).put(job_request(number, accepted_at=float(number)), "begun")
    asked: list[str] = []
    looks = Hooked(store, lambda operation, key: asked.append(key) if key.startswith("lists/") else None)
    page = await JobClient(looks, None, wall_clock=Clock().wall).page("default", "in_progress", limit=1)
    assert (page.items, len(asked)) == ((), SCANNED // WINDOW)


async def test_a_begun_job_is_asked_once_in_a_while_and_its_end_shows_at_once(store):
    """The lists tell of the end; only whether it runs, or waits for its next run, is as old as that."""
    request, clock, asked = job_request(), Clock(), []
    jobs = job_store(store, clock)
    jobs.submit(request)
    jobs.begin(request, run=1, owner="a", started_at=150.0)
    hooked = Hooked(store, lambda _, key: asked.append(key) if key.startswith("jobs/") else None)
    client = JobClient(hooked, None, clock, wall_clock=clock.wall)
    for _ in range(3):
        assert await states(client) == ["in_progress"]
    assert len(asked) == 1
    jobs.end_run(RunEnd(job_id=request.job_id, run=1, reason="failed", ended_at=160.0, not_before=162.0))
    clock.now += BEGUN_AGE_S
    assert (await states(client), len(asked)) == (["queued"], 2)
    jobs.settle(request, jobs.finish(job_outcome("completed")))
    assert await states(client) == await states(client, "completed") == ["completed"]


async def test_no_page_waits_for_a_begun_job_that_was_asked_for_a_moment_ago(store):
    """It is looked at again beside the page, once; a store that fails then changes nothing."""
    request, clock, answers = job_request(), Clock(), threading.Event()
    jobs, asked = job_store(store, clock), []
    jobs.submit(request)
    jobs.begin(request, run=1, owner="a", started_at=150.0)

    def slowly(_: str, key: str) -> None:
        if key.startswith("jobs/"):
            asked.append(key)
            if len(asked) == 2:
                answers.wait()
                raise StorageUnreachable("the store is away")

    client = JobClient(Hooked(store, slowly), None, clock, wall_clock=clock.wall)
    assert await states(client) == ["in_progress"]
    jobs.end_run(RunEnd(job_id=request.job_id, run=1, reason="failed", ended_at=160.0, not_before=162.0))
    clock.now += BEGUN_AGAIN_S
    for _ in range(3):
        assert await states(client) == ["in_progress"]
    answers.set()
    while await states(client) == ["in_progress"]:
        await asyncio.sleep(0)
    assert (await states(client), len(asked)) == (["queued"], 3)
