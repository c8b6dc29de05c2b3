"""How a job ends: outcomes and their precedence, ttl, cancel, retry; two that end it at once, in every order."""

from functools import partial

import pytest

from serve_app.errors import Conflict, JobExpired, JobNotFound
from serve_app.jobs import OUTCOMES, JobStore, Letter, Outbox
from serve_app.storage import MemoryStore
from tests.support.interleaving import Crash, Crashing, Interleaving, interleavings
from tests.support.jobs import JOB_ID, REF, Clock, Speak, finish, job_outcome, job_request, job_store, lists_of, runner


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def jobs(store: MemoryStore) -> JobStore:
    return job_store(store)


def outcomes_in(store: MemoryStore) -> list[str]:
    names = (info.key.rsplit("/", 1)[1].split(".")[0] for info in store.list(f"jobs/a/{JOB_ID}/").items)
    return [name for name in names if name.split("-")[0] in OUTCOMES]


@pytest.mark.parametrize("first", OUTCOMES)
@pytest.mark.parametrize("second", OUTCOMES)
@pytest.mark.parametrize("exclusive", [True, False])
def test_the_first_outcome_counts_for_whoever_comes_later(store, first, second, exclusive):
    """finish says which outcome counts, and writes none beside it."""
    jobs = job_store(store, exclusive=exclusive)
    jobs.submit(job_request())
    assert jobs.finish(job_outcome(first)) == job_outcome(first)
    assert jobs.finish(job_outcome(second, run=2)) == job_outcome(first)
    assert (jobs.status(REF).state, outcomes_in(store)) == (first, [first])


def submitted() -> MemoryStore:
    store = MemoryStore()
    job_store(store).submit(job_request())
    return store


def ended_as(state: str, run: int, *, exclusive: bool, store: MemoryStore):
    jobs = job_store(store, exclusive=exclusive)
    counts = jobs.finish(job_outcome(state, run=run))
    jobs.settle(job_request(), counts)
    return counts.state


def both(first: str, second: str, *, exclusive: bool) -> list[Interleaving]:
    """Every order in which two end and settle one job, one operation at a time."""

    def end(state: str, run: int):
        return lambda store: job_store(store, exclusive=exclusive).finish(job_outcome(state, run=run))

    return [*interleavings(submitted, end(first, 1), end(second, 2))]


@pytest.mark.parametrize(("first", "second"), [("completed", "cancelled"), ("failed", "completed")])
def test_where_conditional_writes_hold_exactly_one_outcome_is_written(first, second):
    """However two finishers interleave, both are told of the same outcome, and it is the only one."""
    orders = both(first, second, exclusive=True)
    assert len(orders) > 5
    for order in orders:
        assert len(outcomes_in(order.store)) == 1
        assert order.results[0] == order.results[1]
        assert job_store(order.store).status(REF).outcome == order.results[0]
    assert {order.results[0].state for order in orders} == {first, second}


@pytest.mark.parametrize(("first", "second"), [("completed", "cancelled"), ("failed", "completed")])
def test_where_they_do_not_precedence_decides(first, second):
    """Two outcomes may be written, and one of them is the state: what counts is the first in OUTCOMES."""
    orders = both(first, second, exclusive=False)
    assert {len(outcomes_in(order.store)) for order in orders} == {1, 2}
    for order in orders:
        written = outcomes_in(order.store)
        assert job_store(order.store).status(REF).state == min(written, key=OUTCOMES.index)


@pytest.mark.parametrize("exclusive", [True, False])
def test_two_that_settle_leave_one_list_entry_and_no_marker(exclusive):
    """The lists say what the state says, whichever of two owners came last."""
    acts = [partial(_settled, state, run, exclusive) for state, run in (("cancelled", 0), ("completed", 1))]
    for order in interleavings(submitted, *acts):
        state = job_store(order.store).status(REF).state
        assert (lists_of(order.store), order.store.list("pending/").items) == ([state], []), order.steps


def _settled(state: str, run: int, exclusive: bool, store: MemoryStore) -> None:
    ended_as(state, run, exclusive=exclusive, store=store)


@pytest.mark.parametrize("first_state", ["failed", "expired"])
def test_a_retry_while_the_end_is_settled_loses_no_job(first_state):
    """The runner has ended it, the client saw that and asks again: the job is marked and listed as open."""

    def ended() -> MemoryStore:
        store = submitted()
        job_store(store).finish(job_outcome(first_state))
        return store

    def settle(store: MemoryStore) -> None:
        job_store(store).settle(job_request(), job_outcome(first_state))

    def retry(store: MemoryStore) -> None:
        job_store(store).retry(REF)

    for order in interleavings(ended, settle, retry):
        marked = [marker.ref for marker in job_store(order.store).markers.oldest("a", limit=10)]
        listed = [name for name in lists_of(order.store) if name != "begun"]  # where a retry may be begun
        assert (marked, listed) == ([REF], ["open"]), order.steps


def test_a_ttl_ends_a_job_by_itself(store):
    """A mere look at it, once its time is over: expired, with a code, settled, and not before."""
    clock = Clock()
    jobs = job_store(store, clock)
    jobs.submit(job_request(ttl_s=150.0))  # accepted at 100
    clock.now = 49.9
    assert jobs.status(REF).state == "queued"
    clock.now = 50.0
    status = jobs.status(REF)
    assert (status.state, status.outcome.error.code) == ("expired", "ttl_over")
    assert jobs.status(REF).state == "expired"
    assert (lists_of(store), jobs.markers.oldest("a", limit=10)) == (["expired"], [])


def test_a_job_without_a_ttl_waits_for_ever(store):
    """No limit was sent, so none is applied here."""
    clock = Clock()
    jobs = job_store(store, clock)
    jobs.submit(job_request())
    clock.now = 1e9
    assert jobs.status(REF).state == "queued"


def test_an_end_before_the_ttl_is_no_expiry(store):
    """What completed stays completed, its ttl over or not."""
    clock = Clock()
    jobs = job_store(store, clock)
    jobs.submit(job_request(ttl_s=150.0))
    jobs.settle(job_request(ttl_s=150.0), jobs.finish(job_outcome("completed")))
    clock.now = 60.0
    assert jobs.status(REF).state == "completed"


@pytest.mark.parametrize("runs", [0, 1])
def test_a_client_cancels_what_has_not_ended(store, jobs, runs):
    """Queued or running: cancelled, settled, off the pending list; the webhook is to be told."""
    request = job_request(webhook="https://client.example/hook")
    jobs.submit(request)
    if runs:
        jobs.begin(request, run=1, owner="a", started_at=150.0)
    status = jobs.cancel(REF)
    assert (status.state, status.outcome.error.code, status.outcome.run) == ("cancelled", "cancelled", runs)
    assert (lists_of(store), jobs.markers.oldest("a", limit=10)) == (["cancelled"], [])
    assert Outbox(store).page(limit=10)[0] == [Letter(REF, 0)]


@pytest.mark.parametrize("state", OUTCOMES)
def test_what_has_ended_is_not_cancelled(jobs, state):
    """The client is told how it ended."""
    jobs.submit(job_request())
    jobs.finish(job_outcome(state))
    assert jobs.cancel(REF).outcome == job_outcome(state)


def test_an_unknown_or_removed_job_is_neither_cancelled_nor_retried(jobs):
    """404 and 410, and nothing is written for it."""
    for ask in (jobs.cancel, jobs.retry):
        with pytest.raises(JobNotFound):
            ask(REF)
    jobs.submit(job_request())
    jobs.finish(job_outcome("failed", expires_at=150.0))
    for ask in (jobs.cancel, jobs.retry):
        with pytest.raises(JobExpired):
            ask(REF)


@pytest.mark.parametrize("state", ["failed", "expired"])
def test_a_failed_or_expired_job_is_run_again_under_its_id(store, jobs, state):
    """Queued, marked and listed as open; run numbers go on; only outcomes of the new generation count."""
    jobs.submit(job_request())
    jobs.begin(job_request(), run=1, owner="a", started_at=101.0)
    jobs.settle(job_request(), jobs.finish(job_outcome(state)))
    status = jobs.retry(REF)
    assert (status.state, status.standing.generation, status.standing.run) == ("queued", 1, 1)
    assert (lists_of(store), len(jobs.markers.oldest("a", limit=10))) == (["open"], 1)
    with pytest.raises(Conflict, match="retried meanwhile"):
        jobs.finish(job_outcome("completed", run=1))
    jobs.begin(job_request(), run=2, owner="b", started_at=201.0)
    again = job_outcome("completed", run=2, generation=1)
    jobs.settle(job_request(), jobs.finish(again))
    assert (jobs.status(REF).outcome, lists_of(store), jobs.markers.oldest("a", limit=10)) == (again, ["completed"], [])


@pytest.mark.parametrize("state", ["queued", "in_progress", "completed", "cancelled"])
def test_nothing_else_is_run_again(jobs, state):
    """A job that waits, runs, completed or was cancelled answers 409 with its state."""
    jobs.submit(job_request())
    if state == "in_progress":
        jobs.begin(job_request(), run=1, owner="a", started_at=101.0)
    elif state != "queued":
        jobs.finish(job_outcome(state))
    with pytest.raises(Conflict, match=state):
        jobs.retry(REF)
    assert jobs.status(REF).state == state


def test_a_retry_begins_the_ttl_anew(store):
    """The time of the first try does not count against the second."""
    clock = Clock()
    jobs = job_store(store, clock)
    jobs.submit(job_request(ttl_s=150.0))
    clock.now = 60.0
    assert jobs.status(REF).state == "expired"
    assert jobs.retry(REF).state == "queued"
    clock.now = 60.0 + 149.0
    assert jobs.status(REF).state == "queued"
    clock.now = 60.0 + 150.0
    assert jobs.status(REF).state == "expired"


def test_a_retry_forgets_that_the_first_result_was_to_go_soon(store):
    """What a client said of the error's retention does not remove the audio that the retry speaks."""
    clock = Clock()
    jobs = job_store(store, clock)
    jobs.submit(job_request())
    jobs.finish(job_outcome("failed"))
    jobs.shorten(job_request(), 210.0)
    jobs.retry(REF)
    clock.now = 50.0
    jobs.finish(job_outcome("completed", generation=1, run=2, finished_at=250.0))
    assert jobs.status(REF).state == "completed"


@pytest.mark.parametrize("state", OUTCOMES)
async def test_an_end_that_was_announced_by_one_who_died_is_carried_out(state):
    """Whoever adopts the job writes that outcome and settles it: nothing is spoken again, and the webhook is sent."""
    store, speak = MemoryStore(), Speak()
    request = job_request(webhook="https://client.example/hook")
    job_store(store).submit(request)
    announced = job_outcome(state)
    with pytest.raises(Crash):
        job_store(Crashing(store, 1), exclusive=True).finish(announced)  # ending-0000, and no more
    assert outcomes_in(store) == []
    r = runner(store, speak, exclusive=True)
    for _ in range(3):
        await r.sweep()
        await r.wait(REF)
    assert await finish(store, r, REF) == state
    assert (job_store(store).status(REF).outcome, speak.requests) == (announced, [])
    assert (store.list("pending/").items, lists_of(store)) == ([], [state])
    assert Outbox(store).page(limit=10)[0] == [Letter(REF, 0)]


def test_an_announced_end_is_told_to_whoever_asks(store):
    """A client's question has the end that counts, and a retry of it begins anew."""
    jobs = job_store(store, exclusive=True)
    jobs.submit(job_request())
    with pytest.raises(Crash):
        job_store(Crashing(store, 1), exclusive=True).finish(job_outcome("failed"))
    assert jobs.status(REF).state == "failed"
    assert jobs.retry(REF).state == "queued"
    assert jobs.status(REF).state == "queued"
