"""What is to be removed at a time: in order, and never before it."""

import pytest

from serve_app import keys
from serve_app.jobs import JobLists, JobRef
from serve_app.storage import MemoryStore
from tests.support.interleaving import Hooked
from tests.support.jobs import job_id_of


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


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


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_names_that_are_no_entries_hide_nothing_that_is_due(store, limit):
    """However many sort first or lie between; and the list is read no further than what is due."""
    lists = JobLists(store)
    refs = [JobRef(tenant="default", job_id=job_id_of(number)) for number in (0x1A, 0x2A, 0x3A)]
    for ref, at in zip(refs, (250.0, 300.0, 400.0), strict=True):
        lists.expire(ref, at)
    for number in range(250):
        store.put(keys.expiry("a", f"0 no entry {number}"), b"", content_type="x/y")
        store.put(keys.expiry("a", f"{255_000:012x}.no entry {number}"), b"", content_type="x/y")
        store.put(keys.expiry("a", f"no entry {number}"), b"", content_type="x/y")
    listed: list[str] = []
    looks = JobLists(Hooked(store, lambda operation, key: listed.append(operation)))
    assert [due.ref for due in looks.due("a", 301.0, limit=limit)] == refs[:limit][:2]
    assert listed == ["list"] * len(listed)
    assert len(listed) <= 502 // limit + 1


def test_behind_a_name_that_is_no_entry_there_come_no_more_than_asked_for(store):
    """One of two on the first page, two on the next: the last of these is left for another time."""
    lists = JobLists(store)
    refs = [JobRef(tenant="default", job_id=job_id_of(number)) for number in (0x1A, 0x2A, 0x3A)]
    for number, ref in enumerate(refs):
        lists.expire(ref, 1.0 + number)
    store.put(keys.expiry("a", f"{1500:012x}.no entry"), b"", content_type="x/y")
    assert [due.ref for due in lists.due("a", 10.0, limit=2)] == refs[:2]
