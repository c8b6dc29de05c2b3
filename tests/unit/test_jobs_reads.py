"""What it costs to ask for one job again and again: one listing, and what is read anew because it may have changed."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from serve_app.errors import JobExpired, ObjectNotFound
from serve_app.jobs import Collector, JobStore
from serve_app.storage import MemoryStore, Page
from tests.support.deadline import DEADLINE_S
from tests.support.interleaving import Hooked
from tests.support.jobs import JOB_ID, REF, Clock, job_outcome, job_request, job_store

ONCE = {"list": 1}


class Asked:
    """A store that counts, and a JobStore on it that remembers, as an ingress has them."""

    def __init__(self, *, exclusive: bool, kept_bytes: int = 100_000) -> None:
        self.store, self.clock = MemoryStore(), Clock()
        self._counts = Counter[str]()
        hooked = Hooked(self.store, lambda operation, _: self._counts.update([operation]))
        self.jobs = JobStore(hooked, exclusive=exclusive, wall_clock=self.clock.wall, kept_bytes=kept_bytes)
        self.others = job_store(self.store, self.clock, exclusive=exclusive)

    @contextlib.contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        before, found = self._counts.copy(), Counter[str]()
        yield found
        found.update(self._counts - before)

    def second_status(self) -> Counter[str]:
        """What a status costs that was asked for before."""
        self.jobs.status(REF)
        with self.counted() as found:
            self.jobs.status(REF)
        return found


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("submitted_here", [True, False])
def test_a_job_that_waits_is_asked_for_by_one_listing(exclusive, submitted_here):
    """Its request is remembered, and its marker, once seen or written, is there until the end."""
    asked = Asked(exclusive=exclusive)
    (asked.jobs if submitted_here else asked.others).submit(job_request())
    assert asked.second_status() == ONCE


@pytest.mark.parametrize(("exclusive", "costs"), [(True, ONCE), (False, {"list": 1, "get": 1})])
@pytest.mark.parametrize("ended", [True, False])
def test_runs_and_outcomes_are_remembered_where_only_one_can_be_written(exclusive, costs, ended):
    """Elsewhere the last of two owners has it, so it is read anew."""
    asked = Asked(exclusive=exclusive)
    asked.others.submit(job_request())
    asked.others.begin(job_request(), run=1, owner="a", started_at=150.0)
    if ended:
        asked.others.finish(job_outcome("completed"))
    assert asked.second_status() == costs


def test_where_two_owners_may_write_one_record_the_last_is_told():
    """Without conditional writes a run that another owner has taken over, and an outcome that another has written."""
    asked = Asked(exclusive=False)
    asked.others.submit(job_request())
    for owner in "ab":
        asked.others.begin(job_request(), run=1, owner=owner, started_at=150.0)
        assert asked.jobs.status(REF).run.owner == owner
    for units in (1, 2):
        key = f"jobs/a/{JOB_ID}/completed.v1.json"
        body = job_outcome("completed", units=units).model_dump_json().encode()
        asked.store.put(key, body, content_type="application/json")
        assert asked.jobs.status(REF).outcome.units == units


@pytest.mark.parametrize(("exclusive", "counts"), [(True, "Text 1."), (False, "Text 2.")])
def test_a_request_that_came_with_a_key_is_remembered_where_only_one_can_be_written(exclusive, counts):
    """Elsewhere two that come at once may both write it, and the last one is what is spoken."""
    asked = Asked(exclusive=exclusive)
    first, second = (job_request(text=f"Text {number}.", body_sha256="0" * 64) for number in (1, 2))
    asked.others.submit(first)
    assert asked.jobs.status(REF).request == first
    if exclusive:
        asked.others.submit(second)
    else:
        body = second.model_dump_json().encode()  # of one that has not seen the first
        asked.store.put(f"jobs/a/{JOB_ID}/request.v1.json", body, content_type="application/json")
    assert asked.jobs.status(REF).request.speech.text == counts
    assert asked.second_status() == (ONCE if exclusive else {"list": 1, "get": 1})


def test_a_retry_is_seen_and_marked_where_the_job_was_known():
    """Each generation has an outcome and a marker of its own: what is remembered of one says nothing of the next."""
    asked = Asked(exclusive=True)
    asked.others.submit(job_request())
    asked.jobs.status(REF)
    asked.others.settle(job_request(), asked.others.finish(job_outcome("failed")))
    assert asked.jobs.status(REF).state == "failed"
    asked.others.retry(REF)
    for info in asked.store.list("pending/").items:  # a crash came before it was written
        asked.store.delete(info.key)
    assert asked.jobs.status(REF).state == "queued"
    assert [marker.generation for marker in asked.others.markers.oldest("a", limit=10)] == [1]
    asked.others.finish(job_outcome("failed", generation=1, run=2))
    assert asked.jobs.status(REF).outcome.run == 2


def test_what_is_remembered_is_bounded_in_bytes():
    """A record over the bound is read each time, and answered all the same."""
    asked = Asked(exclusive=True, kept_bytes=300)
    asked.others.submit(job_request(text="A long text. " * 100))
    assert asked.second_status() == {"list": 1, "get": 1}


def test_request_and_outcome_are_read_side_by_side():
    """Neither read comes before the other has begun: they wait together."""
    store, both = MemoryStore(), threading.Barrier(2, timeout=DEADLINE_S)
    job_store(store).submit(job_request())
    job_store(store).finish(job_outcome("completed"))
    with ThreadPoolExecutor(1) as pool:
        hooked = Hooked(store, lambda operation, _: both.wait() if operation == "get" else None)
        status = JobStore(hooked, wall_clock=Clock().wall, pool=pool).status(REF)
    assert (status.state, status.request, status.outcome) == ("completed", job_request(), job_outcome("completed"))


def between(act, name: str) -> tuple[MemoryStore, Hooked]:
    """A store, and another way into it on which `act` happens once: before what has a key that ends so is read."""
    store = MemoryStore()

    def hook(operation: str, key: str) -> None:
        if operation != "list" and key.endswith(name) and not done:
            done.append(True)
            act(store)

    done: list[bool] = []
    return store, Hooked(store, hook)


@pytest.mark.parametrize("name", ["request.v1.json", "completed.v1.json"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_job_that_is_removed_while_it_is_read_is_gone(name, exclusive):
    """Its records go between the listing and the read: 410, not that the store lacks an object."""
    kept_s = 1000.0
    clock = Clock()

    def remove(store: MemoryStore) -> None:
        later = Clock()
        later.now = kept_s + 1
        Collector(store, later.wall).collect("a")

    store, hooked = between(remove, name)
    job_store(store).submit(job_request())
    outcome = job_outcome("completed", expires_at=Clock().wall() + kept_s)
    job_store(store).settle(job_request(), job_store(store).finish(outcome))
    with pytest.raises(JobExpired):
        job_store(hooked, clock, exclusive=exclusive).status(REF)


def test_what_is_not_there_for_good_is_said_to_be_missing():
    """An outcome whose record cannot be found however often is looked: that is no job that was removed."""
    store = MemoryStore()
    job_store(store).submit(job_request())

    class Lists(MemoryStore):
        def list(self, prefix, *, after="", limit=1000):
            page = super().list(prefix, after=after, limit=limit)
            ended = replace(page.items[0], key=f"jobs/a/{JOB_ID}/failed.v1.json")
            return Page([*page.items, ended], None)

    lists = Lists()
    lists._objects = store._objects
    with pytest.raises(ObjectNotFound):
        job_store(lists).status(REF)


def test_a_job_that_is_retried_while_its_ttl_ends_it_waits():
    """Another has ended it, a client has it run again, and then the first would: it reads anew, and is no conflict."""
    clock = Clock()

    def end_and_retry(store: MemoryStore) -> None:
        jobs = job_store(store, clock)
        assert jobs.status(REF).state == "expired"
        assert jobs.retry(REF).state == "queued"

    store, hooked = between(end_and_retry, "request.v1.json")
    job_store(store).submit(job_request(ttl_s=150.0))
    clock.now = 60.0
    assert job_store(hooked, clock).status(REF).state == "queued"
