"""Lists of jobs, the newest first, a page at a time; and the list of what is to be removed when."""

import contextlib
import time

import pytest

from serve_app.job_client import JobClient
from serve_app.job_pages import DOUBTED_S, SCANNED, WINDOW
from serve_app.jobs import OUTCOMES, JobLists, JobRequest, RunEnd
from serve_app.storage import MemoryStore
from tests.support.interleaving import Crash, Crashing, Hooked
from tests.support.jobs import Clock, job_outcome, job_request, job_store, lists_of


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def client_of(store: MemoryStore) -> JobClient:
    return JobClient(store, None, wall_clock=Clock().wall)


def add(store: MemoryStore, number: int, state: str = "queued", tenant: str = "default") -> None:
    """A job accepted at `number` seconds; its id says nothing of its age."""
    request = request_of(number, tenant)
    jobs = job_store(store)
    jobs.submit(request)
    if state == "in_progress":
        jobs.begin(request, run=1, owner="a", started_at=150.0)
    if state in OUTCOMES:
        end(store, number, state, tenant)


def request_of(number: int, tenant: str = "default") -> JobRequest:
    return job_request((number * 7919) % 4096, tenant, accepted_at=float(number))


def end(store: MemoryStore, number: int, state: str, tenant: str = "default") -> None:
    request = request_of(number, tenant)
    outcome = job_outcome(state, job_id=request.job_id, tenant=tenant)
    job_store(store).settle(request, job_store(store).finish(outcome))


async def pages(client: JobClient, state: str | None = None, limit: int = 3, between=lambda: None) -> list:
    found, after = [], ""
    while True:
        page = await client.page("default", state, after=after, limit=limit)
        assert len(page.items) <= limit
        found += page.items
        if page.next_after is None:
            return found
        after = page.next_after
        between()


STATES = ["queued", "in_progress", *OUTCOMES]


async def test_all_jobs_come_newest_first_whatever_their_state(store):
    """In pages without gaps or repeats, by acceptance and not by id."""
    for number in range(1, 26):
        add(store, number, STATES[number % len(STATES)])
    found = await pages(client_of(store))
    assert [each.accepted_at for each in found] == [float(number) for number in range(25, 0, -1)]
    assert [each.state for each in found] == [STATES[number % len(STATES)] for number in range(25, 0, -1)]
    assert len({each.job_id for each in found}) == 25


@pytest.mark.parametrize("state", STATES)
async def test_jobs_of_one_state(store, state):
    """Exactly those, the newest first."""
    for number in range(1, 25):
        add(store, number, STATES[number % len(STATES)])
    found = await pages(client_of(store), state, limit=2)
    wanted = [number for number in range(24, 0, -1) if STATES[number % len(STATES)] == state]
    assert [(each.accepted_at, each.state) for each in found] == [(float(number), state) for number in wanted]


async def test_jobs_that_end_or_come_between_two_pages_make_no_gap_and_no_repeat(store):
    """What was there when the first page was asked for is seen once, in the state of its page."""
    for number in range(1, 21):
        add(store, number)
    ends, comes = iter(range(1, 21)), iter(range(21, 60))

    def meanwhile() -> None:
        for _ in range(3):
            end(store, next(ends), "completed")
        add(store, next(comes))

    found = await pages(client_of(store), limit=4, between=meanwhile)
    assert [each.accepted_at for each in found] == [float(number) for number in range(20, 0, -1)]


async def test_a_stale_entry_tells_the_state_of_the_job_itself(store):
    """An `open` entry that a crash left is that of a job which has ended: it is in one list only, and in its state."""
    add(store, 1, "completed")
    add(store, 2)
    JobLists(store).put(request_of(1), "open")
    JobLists(store).put(request_of(1), "begun")
    assert [each.state for each in await pages(client_of(store))] == ["queued", "completed"]
    assert [each.accepted_at for each in await pages(client_of(store), "queued")] == [2.0]
    assert [each.accepted_at for each in await pages(client_of(store), "in_progress")] == []
    assert [each.accepted_at for each in await pages(client_of(store), "completed")] == [1.0]


@pytest.mark.parametrize("exclusive", [True, False])
async def test_a_retried_job_is_listed_as_waiting_wherever_its_retry_broke_off(store, exclusive):
    """It is in two lists then, and what it says itself counts, also where only failed jobs are asked for; its next end
    makes that good."""
    add(store, 1, "failed")
    job_store(store).retry(request_of(1).ref)
    JobLists(store).put(request_of(1), "failed")
    assert [each.state for each in await pages(client_of(store))] == ["queued"]
    assert [each.state for each in await pages(client_of(store), "queued")] == ["queued"]
    assert await pages(client_of(store), "failed") == []
    jobs = job_store(store, exclusive=exclusive)
    jobs.settle(request_of(1), jobs.finish(job_outcome("completed", job_id=request_of(1).job_id, generation=1)))
    assert lists_of(store, request_of(1).job_id) == ["completed"]


async def test_a_begun_job_between_two_runs_waits(store):
    """It is in the list of what was begun until its end, and is asked whether it runs."""
    add(store, 1, "in_progress")
    assert [each.state for each in await pages(client_of(store))] == ["in_progress"]
    ended = RunEnd(job_id=request_of(1).job_id, run=1, reason="failed", ended_at=160.0, not_before=162.0)
    job_store(store).end_run(ended)
    for state in (None, "queued"):
        assert [each.state for each in await pages(client_of(store), state)] == ["queued"]
    assert await pages(client_of(store), "in_progress") == []


async def test_a_begun_job_is_listed_as_such_before_its_run_can_be_seen(store):
    """No moment at which it runs and only `open` has it; at the end `begun` goes, and with the job all else."""
    request, written = request_of(1), []
    job_store(store).submit(request)
    hooked = Hooked(store, lambda _, key: written.append(key))
    job_store(hooked).begin(request, run=1, owner="a", started_at=150.0)
    assert [key.split("/")[0:2] for key in written] == [["lists", "begun"], ["jobs", request.job_id[-1]]]
    assert lists_of(store, request_of(1).job_id) == ["begun", "open"]
    end(store, 1, "completed")
    assert lists_of(store, request_of(1).job_id) == ["completed"]


async def test_an_old_entry_is_asked_about_once_an_hour(store):
    """What two who were accepted at once left is found out; what does wait is believed until the next hour."""
    ghost, waits = request_of(1), request_of(2)
    add(store, 1, "completed")
    JobLists(store).remove(ghost, "completed")
    JobLists(store).put(ghost.model_copy(update={"accepted_at": 1.5}), "open")
    JobLists(store).put(request_of(3), "open")  # of a job that is removed, all but this
    job_store(store).submit(waits)
    clock, listed = Clock(), []
    looks = Hooked(store, lambda operation, key: listed.append(key) if operation == "list" else None)
    client = JobClient(looks, None, clock, wall_clock=clock.wall)

    async def states() -> list:
        listed.clear()
        return [(each.accepted_at, each.state) for each in (await client.page("default", None)).items]

    clock.now = DOUBTED_S
    assert await states() == [(2.0, "queued"), (1.5, "completed")]
    assert len([key for key in listed if key.startswith("jobs/")]) == 3
    assert lists_of(store, request_of(3).job_id) == []
    assert await states() == [(2.0, "queued"), (1.5, "completed")]
    assert waits.job_id not in "".join(listed)
    clock.now += DOUBTED_S
    await states()
    assert waits.job_id in "".join(listed)


async def test_another_tenants_jobs_are_not_listed(store):
    """Each tenant has lists of its own."""
    add(store, 1)
    add(store, 2, tenant="acme")
    assert [each.accepted_at for each in await pages(client_of(store))] == [1.0]


async def test_one_page_looks_at_a_bounded_number_of_entries(store):
    """A page may be empty before the end, so that one call never scans a million jobs."""
    for number in range(1, SCANNED + 30):
        add(store, number, "in_progress" if number == 1 else "queued")
        JobLists(store).put(request_of(number), "begun")
    listings: list[str] = []
    client = client_of(Hooked(store, lambda operation, key: listings.append(key) if operation == "list" else None))
    page = await client.page("default", "in_progress", limit=5)
    looked_at = [key for key in listings if key.startswith("jobs/")]
    assert (page.items, page.next_after is not None, len(looked_at)) == ((), True, SCANNED)
    last = await client.page("default", "in_progress", after=page.next_after, limit=5)
    assert ([each.accepted_at for each in last.items], last.next_after) == ([1.0], None)


@pytest.mark.parametrize(
    ("state", "jobs", "costs"),
    [
        (None, "queued", 3),
        (None, "completed", 3),
        ("queued", "queued", 3),
        ("completed", "completed", 1),
        ("failed", "failed", 2),
        ("in_progress", "in_progress", 21),
        (None, "in_progress", 23),
    ],
)
async def test_a_page_costs_a_listing_of_each_list_and_of_each_job_that_was_begun(store, state, jobs, costs):
    """Twenty that wait cost no more than twenty that ended, however many there are."""
    for number in range(1, 61):
        add(store, number, jobs)
    asked: list[str] = []
    client = client_of(Hooked(store, lambda operation, key: asked.append(operation)))
    page = await client.page("default", state, limit=20)
    assert [each.state for each in page.items] == [jobs] * 20
    assert asked == ["list"] * costs


async def test_what_waits_is_found_among_many_that_ended(store):
    """Those that wait are old, and more ended since than a page lists: these are asked for themselves."""
    for number in range(1, 61):
        add(store, number, "queued" if number in (1, 31) else "completed")
    asked: list[str] = []
    client = client_of(Hooked(store, lambda operation, key: asked.append(key) if operation == "list" else None))
    page = await client.page("default", "queued", limit=2)
    assert [each.accepted_at for each in page.items] == [31.0, 1.0]
    assert len([key for key in asked if key.startswith("jobs/")]) == 1


async def test_a_page_that_ends_between_two_ends_of_a_job_tells_the_one_that_counts(store):
    """Two ended it at once, and one end is settled: one entry ends a listing, the other begins the next."""
    for number in range(1, WINDOW + 3):
        add(store, number, "completed")
    for number in (WINDOW + 2, 3):  # so that the first of the latter is the last of WINDOW + 1 entries
        JobLists(store).put(request_of(number), "cancelled")
    found = await pages(client_of(store), limit=WINDOW)
    assert [each.state for each in found] == ["completed"] * (WINDOW + 2)


@pytest.mark.parametrize("junk", ["0", "0000ffffffff", f"{2**48 - 1 - 2000:012x}.x.completed", "~"])
async def test_what_is_no_entry_is_passed_over(store, junk):
    """Somebody put it there; each page goes on behind it."""
    for number in range(1, 5):
        add(store, number, "completed")
    for number in range(WINDOW + 1):
        store.put(f"lists/ended/{junk}{number:03d}", b"", content_type="text/plain")
    assert [each.accepted_at for each in await pages(client_of(store), limit=2)] == [4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("listing", ["open", "begun", "ended"])
async def test_a_job_that_ends_while_a_page_is_read_is_not_missed(store, begun, listing):
    """It ends just before one of the listings of the page, which is slow; it is in one of them all the same."""
    for number in (1, 2, 3):
        add(store, number, "in_progress" if begun and number == 2 else "queued")

    def ends(operation: str, key: str) -> None:
        if key == f"lists/{listing}/":
            time.sleep(0.05)
            end(store, 2, "completed")

    client = JobClient(Hooked(store, ends), None, wall_clock=Clock().wall)
    found = await client.page("default", None)
    assert [each.accepted_at for each in found.items] == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("ends_as", ["completed", "failed"])
async def test_after_a_crash_at_any_write_the_lists_say_what_the_job_says(exclusive, ends_as):
    """From acceptance over two runs to the end, a retry and its end; at once, and as soon as it is made good."""

    def life(store: MemoryStore) -> None:
        jobs, request = job_store(store, exclusive=exclusive), request_of(1)
        jobs.submit(request)
        jobs.begin(request, run=1, owner="a", started_at=150.0, token="a")
        jobs.end_run(RunEnd(job_id=request.job_id, run=1, reason="released", ended_at=160.0, not_before=160.0))
        jobs.begin(request, run=2, owner="a", started_at=170.0, token="b")
        outcome = job_outcome(ends_as, job_id=request.job_id, run=2)
        jobs.settle(request, jobs.finish(outcome))
        if ends_as == "failed":
            jobs.retry(request.ref)
            jobs.begin(request, run=3, owner="a", started_at=180.0, token="c")
            again = job_outcome("completed", job_id=request.job_id, run=3, generation=1)
            jobs.settle(request, jobs.finish(again))

    at, crashed = 0, True
    while crashed:
        store = MemoryStore()
        crashing = Crashing(store, at)
        with contextlib.suppress(Crash):
            life(crashing)
        crashed = crashing.crashed
        jobs, ref = job_store(store, exclusive=exclusive), request_of(1).ref
        state = jobs.status(ref).state if jobs.standing(ref).exists else None
        if crashed and at > 1:  # where it was accepted, a look at it is not needed for it to be listed
            await check(store, state, settled=False)
        if state in OUTCOMES:
            status = jobs.status(ref)
            jobs.settle(status.request, status.outcome)
        await check(store, state, settled=True)
        at += 1
    assert at > 10
    assert lists_of(store, request_of(1).job_id) == ["completed"]


async def check(store: MemoryStore, state: str | None, *, settled: bool) -> None:
    """The job is in the page of all jobs and in that of its state, and in no other; before an end is settled, the
    page of the state before it may still have it."""
    found = {each: [job.state for job in await pages(client_of(store), each)] for each in (None, *STATES)}
    expected = [state] if state else []
    if settled or state not in OUTCOMES:
        assert found == {each: expected if each in (None, state) else [] for each in (None, *STATES)}
    else:
        assert found[None] in ([state], ["queued"], ["in_progress"])
