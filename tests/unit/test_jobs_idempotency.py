"""One job for one key: claims that come at once, in every order of their store operations, and windows of time."""

import pytest

from serve_app.errors import IdempotencyMismatch, InvalidRequest
from serve_app.jobs import Claim, Collector, Idempotency, JobRequest, marker_of
from serve_app.jobs.folders import JobFolders
from serve_app.jobs.idempotency import MARGIN_S
from serve_app.jobs.lists import entry_name
from serve_app.jobs.states import GONE, REQUEST
from serve_app.storage import MemoryStore
from tests.support.interleaving import contents, interleavings
from tests.support.jobs import STARTED_AT, Clock, job_request, job_store

A, B = "a" * 64, "b" * 64
DAY_S = 86_400.0
NOON = 100.5 * DAY_S


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def keys_at(store: MemoryStore, now: float = NOON) -> Idempotency:
    return Idempotency(store, DAY_S, lambda: now)


def accept(store: MemoryStore, body: str, now: float = NOON, key: str = "k", tenant: str = "default") -> Claim:
    """Claim, and make the job if it is ours to make."""
    claim = keys_at(store, now).claim(tenant, key, body)
    if not claim.known:
        put_request(store, claim, now)
    return claim


def put_request(store: MemoryStore, claim: Claim, now: float) -> None:
    record = job_request(tenant=claim.ref.tenant, accepted_at=now).model_copy(update={"job_id": claim.ref.job_id})
    prefix = "" if claim.ref.tenant == "default" else f"tenants/{claim.ref.tenant}/"
    key = f"{prefix}jobs/{claim.ref.job_id[-1]}/{claim.ref.job_id}/{REQUEST}"
    store.put(key, record.model_dump_json().encode(), content_type="application/json")


def test_the_same_key_and_body_are_the_same_job(store):
    """The first makes it, the others are told of it; what only looks writes nothing."""
    before = keys_at(store).look("default", "k", A)
    assert (before.known, contents(store)) == (False, {})
    first, second = accept(store, A), accept(store, A)
    assert (first.known, second.known) == (False, True)
    assert first.ref == second.ref == before.ref


def test_another_body_is_refused_and_leaves_nothing(store):
    """422 with the key in its message, however often it comes; the first goes on to be the job."""
    accept(store, A)
    before = contents(store)
    for _ in range(2):
        with pytest.raises(IdempotencyMismatch, match="'k'"):
            accept(store, B)
    assert contents(store) == before
    assert accept(store, A).known


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\t", "line\n"])
def test_what_is_no_key_is_refused(store, key):
    """Stripe's limits: 1 to 255 printable characters."""
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        keys_at(store).claim("default", key, A)


def test_keys_of_two_tenants_and_two_keys_do_not_meet(store):
    """Each has a job of its own, whatever the body."""
    claims = [accept(store, body, key=key, tenant=tenant) for tenant, key, body in (
        ("default", "k", A), ("acme", "k", B), ("default", "l", B))]  # fmt: skip
    assert [claim.known for claim in claims] == [False] * 3
    assert len({claim.ref.job_id for claim in claims}) == 3


def test_a_jobs_id_is_a_uuid7_of_the_beginning_of_its_window(store):
    """So that its form and its time are those of all other ids."""
    job_id = accept(store, A).ref.job_id
    assert int(job_id.replace("-", "")[:12], 16) == 1000 * 100 * DAY_S
    assert (job_id[14], job_id[19] in "89ab", len(job_id)) == ("7", True, 36)


def test_after_the_window_the_key_is_free(store):
    """24 hours from acceptance, to the second, and then another body is another job."""
    first = accept(store, A)
    with pytest.raises(IdempotencyMismatch):
        accept(store, B, NOON + DAY_S - 0.001)
    assert accept(store, A, NOON + DAY_S - 0.001) == Claim(first.ref, known=True)
    second = accept(store, B, NOON + DAY_S)
    assert (second.known, second.ref != first.ref) == (False, True)


def test_a_claim_just_before_the_end_of_a_window_is_found_in_the_next(store):
    """Windows begin at midnight, and a key is remembered across it."""
    first = accept(store, A, 101 * DAY_S - 0.5)
    assert accept(store, A, 101 * DAY_S + 0.5) == Claim(first.ref, known=True)
    with pytest.raises(IdempotencyMismatch):
        accept(store, B, 101 * DAY_S + 0.5)


def test_a_claim_that_is_becoming_a_job_at_midnight_is_joined(store):
    """Of two that come at once, one before and one after midnight, both have one id; two bodies do not."""
    before = keys_at(store, 101 * DAY_S - 0.5).claim("default", "k", A)
    after = keys_at(store, 101 * DAY_S + 0.5).claim("default", "k", A)
    assert after == before == Claim(before.ref, known=False)
    with pytest.raises(IdempotencyMismatch):
        keys_at(store, 101 * DAY_S + 0.5).claim("default", "k", B)
    much_later = keys_at(store, 101 * DAY_S + 3600.0).claim("default", "k", B)
    assert (much_later.known, much_later.ref != before.ref) == (False, True)


def test_a_removed_job_still_has_its_key(store):
    """Until its window is over the answer is 410 and not a second job."""
    first = accept(store, A)
    folder = f"jobs/{first.ref.job_id[-1]}/{first.ref.job_id}/"
    store.delete(folder + REQUEST)
    store.put(folder + GONE, b"{}", content_type="application/json")
    assert accept(store, A) == Claim(first.ref, known=True)


def test_a_key_is_found_behind_a_thousand_records(store):
    """A job that ran for hours has kept many objects; its request sorts behind them."""
    first = accept(store, A)
    folder = f"jobs/{first.ref.job_id[-1]}/{first.ref.job_id}/"
    for number in range(1001):
        store.put(f"{folder}progress-{number:04d}", b"", content_type="x/y")
    assert accept(store, A).known


def test_two_equal_requests_at_once_are_one_job():
    """In every order of their operations."""
    orders = [*interleavings(MemoryStore, lambda store: accept(store, A), lambda store: accept(store, A))]
    assert len(orders) > 20
    for order in orders:
        assert order.results[0].ref == order.results[1].ref, order.steps
    assert any(order.results[1].known for order in orders)


def test_two_bodies_at_once_are_never_both_accepted():
    """In every order of their operations; where both are refused, neither has left a trace and the key is free."""
    orders = [*interleavings(MemoryStore, lambda store: accept(store, A), lambda store: accept(store, B))]
    counts = set()
    for order in orders:
        accepted = [result for result in order.results if isinstance(result, Claim)]
        refused = [result for result in order.results if isinstance(result, IdempotencyMismatch)]
        assert len(accepted) + len(refused) == 2
        assert len(accepted) < 2, order.steps
        assert accepted or contents(order.store, without=("expiry/",)) == {}
        counts.add(len(accepted))
    assert counts == {0, 1}


def test_a_repeated_request_beside_another_body_lets_only_one_body_through():
    """Three at once, two of them equal: what one twin takes back is not what the other relies on."""
    acts = [lambda store, body=body: accept(store, body) for body in (A, A, B)]
    for order in interleavings(MemoryStore, *acts):
        accepted = {body for body, result in zip((A, A, B), order.results, strict=True) if isinstance(result, Claim)}
        assert len(accepted) < 2, order.steps


def test_a_body_that_was_accepted_stays_the_keys_although_another_was_left_beside_it(store):
    """An ingress that dies before it has taken another body back does not turn the client's own replay away."""
    keyed = keys_at(store)
    claim = keyed.claim("default", "k", A)
    record = job_request(body_sha256=A, accepted_at=NOON).model_copy(update={"job_id": claim.ref.job_id})
    job_store(store).submit(record)
    JobFolders(store).note(claim.ref, f"body-{B}-{'0' * 16}.v1")
    assert keyed.claim("default", "k", A).known
    with pytest.raises(IdempotencyMismatch):
        keyed.claim("default", "k", B)


def keyed_request(accepted_at: float, now: float = NOON, store: MemoryStore | None = None) -> JobRequest:
    """One of several requests with the same key and body: each has a time of its own."""
    ref = keys_at(store or MemoryStore(), now).look("default", "k", A).ref
    return job_request(body_sha256=A, accepted_at=accepted_at).model_copy(update={"job_id": ref.job_id})


def about(store: MemoryStore) -> tuple[JobRequest, list[str], list[str]]:
    """The record of the only job, its entries in the list of those not ended, and its markers."""
    every = contents(store)
    (record,) = [body for key, body in every.items() if key.endswith(REQUEST)]
    entries, markers = ([key for key in every if key.startswith(prefix)] for prefix in ("lists/open/", "pending/"))
    return JobRequest.model_validate_json(record), entries, markers


def test_of_two_requests_with_one_key_at_once_one_counts():
    """In every order, on a store with conditional writes: both are told of the record that lies there, and list entry
    and marker speak of it too."""
    one, other = keyed_request(NOON + 0.25), keyed_request(NOON + 0.5)
    acts = [lambda store, mine=mine: job_store(store, exclusive=True).submit(mine) for mine in (one, other)]
    winners = set()
    for order in interleavings(MemoryStore, *acts):
        record, entries, markers = about(order.store)
        winners.add(record.accepted_at)
        assert order.results == [record, record], order.steps
        assert [key.rsplit("/")[-1] for key in entries] == [entry_name(record)], order.steps
        assert markers == [marker_of(record).key], order.steps
    assert winners == {one.accepted_at, other.accepted_at}


def test_without_conditional_writes_the_last_record_has_its_entry_and_marker():
    """In every order: whoever wrote the record that lies there has told of it, and one who comes after it replaces
    nothing."""
    one, other = keyed_request(NOON + 0.25), keyed_request(NOON + 0.5)
    acts = [lambda store, mine=mine: job_store(store).submit(mine) for mine in (one, other)]
    told_of_one = 0
    for order in interleavings(MemoryStore, *acts):
        record, entries, markers = about(order.store)
        assert record in order.results, order.steps
        assert entry_name(record) in [key.rsplit("/")[-1] for key in entries], order.steps
        assert marker_of(record).key in markers, order.steps
        told_of_one += order.results == [record, record] and len(entries) == len(markers) == 1
    assert told_of_one > 0
    store = MemoryStore()
    first = job_store(store).submit(one)
    before = contents(store)
    assert job_store(store).submit(other) == first == one
    assert contents(store) == before


def test_a_key_that_no_job_came_of_is_removed_when_its_window_is_over(store):
    """Its holder died: the folder does not stay for ever, and goes when nobody can make a job of it any more."""
    ref = keys_at(store).claim("default", "k", A).ref
    end = 101 * DAY_S + MARGIN_S
    Collector(store, lambda: end - 1).collect(ref.job_id[-1])
    assert any(key.startswith("jobs/") for key in contents(store))
    Collector(store, lambda: end + 1).collect(ref.job_id[-1])
    assert contents(store) == {}


@pytest.mark.parametrize("ended", [False, True])
def test_a_job_that_came_of_a_key_is_not_removed_with_it(store, ended):
    """Whether it runs still, or is kept for longer than its key."""
    ref = keys_at(store).claim("default", "k", A).ref
    clock = Clock()
    clock.now = NOON - STARTED_AT
    jobs = job_store(store, clock)
    request = jobs.submit(keyed_request(NOON, store=store))
    if ended:
        jobs.cancel(ref)
    before = contents(store, without=("expiry/",))
    Collector(store, lambda: 101 * DAY_S + MARGIN_S + 1).collect(ref.job_id[-1])
    assert contents(store, without=("expiry/",)) == before
    clock.now += DAY_S / 2
    assert jobs.status(ref).request == request
