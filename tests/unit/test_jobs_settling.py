"""What follows from a job's end is right whoever acts on it meanwhile: ends it otherwise, retries it, removes it."""

import contextlib
from functools import partial

import pytest

from serve_app.jobs import RETRYABLE, Collector, JobLists, JobOutcome
from serve_app.jobs.collector import TOMBSTONE_S
from serve_app.jobs.lists import LISTED
from serve_app.jobs.states import outcome_name
from serve_app.storage import MemoryStore
from tests.support.interleaving import Crash, Crashing, Hooked, contents, interleavings
from tests.support.jobs import REF, Clock, job_outcome, job_request, job_store, lists_of

REQUEST = job_request()
PAST, LATER = 190.0, 400.0
"""Of the wall clock, which begins at 200 s."""


def ended(outcome: JobOutcome, request=REQUEST) -> MemoryStore:
    """The outcome is written, and nothing follows from it yet."""
    store = MemoryStore()
    jobs = job_store(store)
    jobs.submit(request)
    jobs.finish(outcome)
    return store


def settle(outcome: JobOutcome, store: MemoryStore, *, exclusive: bool = True, request=REQUEST) -> None:
    job_store(store, exclusive=exclusive).settle(request, outcome)


def collect(store: MemoryStore, at: float = 0.0) -> None:
    clock = Clock()
    clock.now = at
    Collector(store, clock.wall).collect("a")


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_a_job_that_is_removed_while_it_is_settled_is_in_no_list(state):
    """Two settle it, one of them late, beside the collector: in every order nothing of it is listed afterwards."""
    outcome = job_outcome(state, expires_at=PAST)

    def prepare() -> MemoryStore:
        store = ended(outcome)
        settle(outcome, store)
        assert lists_of(store) == [state]
        return store

    for order in interleavings(prepare, partial(settle, outcome), collect, switches=2):
        assert not any(isinstance(result, Exception) for result in order.results), order.results
        collect(order.store)
        assert (lists_of(order.store), job_store(order.store).standing(REF).gone) == ([], True), order.steps
        collect(order.store, TOMBSTONE_S + 60.0)
        assert contents(order.store) == {}, order.steps


def test_a_job_that_is_removed_while_its_end_before_a_retry_is_settled_is_in_no_list():
    """What the late settler puts for the later end is looked at once more."""
    first, second = job_outcome("failed"), job_outcome("completed", run=2, generation=1, expires_at=PAST)

    def prepare() -> MemoryStore:
        store = ended(first)
        job_store(store).retry(REF)
        settle(job_store(store).finish(second), store)
        return store

    for order in interleavings(prepare, partial(settle, first), collect, switches=2):
        collect(order.store)
        assert (lists_of(order.store), job_store(order.store).standing(REF).gone) == ([], True), order.steps


def test_a_job_whose_end_a_client_shortened_is_in_no_list_when_it_is_settled_late():
    """Its outcome says another time than the one at which it went."""
    outcome = job_outcome("cancelled", expires_at=1e6)

    def prepare() -> MemoryStore:
        store = ended(outcome)
        job_store(store).shorten(REQUEST, PAST)
        return store

    def settle_removed(store: MemoryStore) -> None:
        with contextlib.suppress(Exception):  # it is removed between two looks
            job_store(store, exclusive=True).settle_removed(REF)

    for order in interleavings(prepare, settle_removed, collect, switches=2):
        assert (lists_of(order.store), job_store(order.store).standing(REF).gone) == ([], True), order.steps


@pytest.mark.parametrize("state", RETRYABLE)
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_retried_job_is_listed_whenever_a_late_settler_of_its_first_end_is_killed(state, exclusive):
    """It waits, and is in the list of what waits at every moment; what is done again takes it out of the other."""
    outcome = job_outcome(state)
    at, crashed = 0, True
    while crashed:
        store = ended(outcome)
        jobs = job_store(store, exclusive=exclusive)
        jobs.retry(REF)
        crashing = Crashing(store, at)
        with contextlib.suppress(Crash):
            settle(outcome, crashing, exclusive=exclusive)
        crashed = crashing.crashed
        assert "open" in lists_of(store, whole=False), at
        settle(outcome, store, exclusive=exclusive)
        assert set(lists_of(store)) - {"begun"} == {"open"}
        at += 1
    assert at > 3


@pytest.mark.parametrize("left", LISTED)
def test_a_list_entry_that_was_left_goes_with_the_job(left):
    """It would be listed for ever: as one that waits, or as what another outcome would have made of it."""
    outcome = job_outcome("completed", expires_at=PAST)
    store = ended(outcome)
    settle(outcome, store)
    JobLists(store).put(REQUEST, left)
    collect(store)
    assert lists_of(store) == []


def test_a_retried_job_is_kept_from_its_new_end():
    """The entry of its first end finds it waiting or ended anew, and leaves it."""
    first = job_outcome("failed", expires_at=LATER)
    store = ended(first)
    settle(first, store)
    job_store(store).retry(REF)
    collect(store, 201.0)
    assert job_store(store).status(REF).state == "queued"
    settle(first, store)
    second = job_outcome("completed", run=2, generation=1, expires_at=2 * LATER)
    settle(job_store(store).finish(second), store)
    collect(store, 201.0)
    assert (job_store(store).standing(REF).gone, lists_of(store)) == (False, ["completed"])
    collect(store, 601.0)
    assert job_store(store).standing(REF).gone
    collect(store, TOMBSTONE_S + 700.0)
    assert contents(store) == {}


def test_what_a_replica_has_just_begun_is_taken_off_its_list_by_the_end():
    """A client cancelled a job that had no run yet, as a replica was about to begin one."""
    outcome = job_outcome("cancelled", run=0)
    store = ended(outcome)
    JobLists(store).put(REQUEST, "begun")
    settle(outcome, store)
    assert lists_of(store) == ["cancelled"]


@pytest.mark.parametrize("settled", ["cancelled", "failed"])
def test_what_completed_after_another_end_was_settled_is_removed_at_its_own_time(settled):
    """Without conditional writes: its owner died before it said so, and only the other end has an entry."""
    store = ended(job_outcome(settled, expires_at=PAST))
    settle(job_outcome(settled, expires_at=PAST), store, exclusive=False)
    late = job_outcome("completed", expires_at=LATER)
    store.put(
        f"jobs/a/{REF.job_id}/{outcome_name('completed', 0)}", late.model_dump_json().encode(), content_type="x/y"
    )
    collect(store)
    assert job_store(store).status(REF).state == "completed"
    collect(store, 201.0)
    assert (job_store(store).standing(REF).gone, lists_of(store)) == (True, [])
    collect(store, TOMBSTONE_S + 300.0)
    assert contents(store) == {}


def test_an_end_that_was_settled_for_the_other_of_two_requests_with_one_key_is_listed_once():
    """Without conditional writes: of both, which one process may hold though the other is the job's, one is listed."""
    mine, others = (job_request(accepted_at=at, body_sha256="a" * 64) for at in (100.25, 100.5))
    outcome = job_outcome("completed", expires_at=LATER)
    store = ended(outcome, others)
    JobLists(store).put(mine, "open")
    settle(outcome, store, exclusive=False, request=mine)
    assert lists_of(store) == ["completed"]
    (entry,) = JobLists(store).part("default", "ended").entries
    assert (entry.accepted_ms, store.list("pending/").items) == (100_500, [])
    collect(store, 201.0)
    assert lists_of(store) == []


@pytest.mark.parametrize(("state", "listings"), [("completed", 0), ("cancelled", 0), ("failed", 2)])
def test_a_plain_end_is_settled_without_a_look(state, listings):
    """Where conditional writes hold and its time is to come, nobody can have done anything to what completed."""
    outcome, asked = job_outcome(state, expires_at=LATER), []
    settle(outcome, Hooked(ended(outcome), lambda operation, _: asked.append(operation)))
    assert asked.count("list") == listings
