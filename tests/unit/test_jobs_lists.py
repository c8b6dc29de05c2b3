"""Lists of jobs, the newest first, a page at a time; and the list of what is to be removed when."""

import pytest

from serve_app import keys
from serve_app.job_client import SCANNED, JobClient
from serve_app.jobs import OUTCOMES, JobLists, JobRef
from serve_app.storage import MemoryStore
from tests.support.interleaving import Hooked
from tests.support.jobs import Clock, job_id_of, job_outcome, job_request, job_store


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def client_of(store: MemoryStore) -> JobClient:
    return JobClient(store, None, wall_clock=Clock().wall)


def add(store: MemoryStore, number: int, state: str = "queued", tenant: str = "default") -> None:
    """A job accepted at `number` seconds; its id says nothing of its age."""
    request = job_request((number * 7919) % 4096, tenant, accepted_at=float(number))
    jobs = job_store(store)
    jobs.submit(request)
    if state == "in_progress":
        jobs.begin(request, run=1, owner="a", started_at=150.0)
    if state in OUTCOMES:
        end(store, number, state, tenant)


def end(store: MemoryStore, number: int, state: str, tenant: str = "default") -> None:
    request = job_request((number * 7919) % 4096, tenant, accepted_at=float(number))
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
    for number in (1, 3):  # 3 was never accepted: the crash came before its request
        request = job_request((number * 7919) % 4096, accepted_at=float(number))
        JobLists(store).put(request, "open")
    assert [each.state for each in await pages(client_of(store))] == ["queued", "completed"]
    assert [each.accepted_at for each in await pages(client_of(store), "queued")] == [2.0]
    assert [each.accepted_at for each in await pages(client_of(store), "completed")] == [1.0]


async def test_another_tenants_jobs_are_not_listed(store):
    """Each tenant has lists of its own."""
    add(store, 1)
    add(store, 2, tenant="acme")
    assert [each.accepted_at for each in await pages(client_of(store))] == [1.0]


async def test_one_page_looks_at_a_bounded_number_of_entries(store):
    """A page may be empty before the end, so that one call never scans a million jobs."""
    for number in range(1, SCANNED + 30):
        add(store, number, "in_progress" if number == 1 else "queued")
    listings: list[str] = []
    client = client_of(Hooked(store, lambda operation, key: listings.append(key) if "jobs/" in key else None))
    page = await client.page("default", "in_progress", limit=5)
    assert (page.items, page.next_after is not None, len(listings)) == ((), True, SCANNED)
    last = await client.page("default", "in_progress", after=page.next_after, limit=5)
    assert ([each.accepted_at for each in last.items], last.next_after) == ([1.0], None)


def test_what_is_due_comes_in_order_and_not_before_its_time(store):
    """The longest due first, at most `limit`, of one shard; done with, it is not seen again."""
    lists = JobLists(store)
    refs = [JobRef(tenant=tenant, job_id=job_id_of(number)) for number, tenant in ((0x1A, "default"), (0x2A, "acme"))]
    lists.expire(refs[0], 300.0)
    lists.expire(refs[1], 250.0)
    lists.expire(JobRef(tenant="default", job_id=job_id_of(0x1B)), 1.0)
    store.put(keys.expiry("a", "no entry"), b"", content_type="x/y")
    assert lists.due("a", 249.999) == []
    assert [due.ref for due in lists.due("a", 250.5)] == [refs[1]]
    assert [due.ref for due in lists.due("a", 301.0)] == refs[::-1]
    assert [due.ref for due in lists.due("a", 301.0, limit=1)] == refs[1:]
    lists.done(lists.due("a", 301.0)[0])
    assert [due.ref for due in lists.due("a", 301.0)] == refs[:1]


@pytest.mark.parametrize("at", [0.0005, 1000.0004, 123456789.9999])
def test_what_is_due_is_never_seen_a_moment_too_early(store, at):
    """An entry counts milliseconds; looked at before its time it would be done with, and nothing ever removed."""
    lists = JobLists(store)
    lists.expire(JobRef(tenant="default", job_id=job_id_of(0xA)), at)
    assert lists.due("a", at - 1e-6) == []
    assert len(lists.due("a", at + 0.002)) == 1
