"""Whose turn it is, what a replica looks at, and where a job stands in the queue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app import job_queue, keys
from serve_app.job_queue import JobQueue, chosen, fair_order
from serve_app.jobs import JobRef, Marker, marker_of
from serve_app.storage import MemoryStore
from tests.support.jobs import job_id_of, job_request, job_store, submit


def marker(number: int, tenant: str = "t", accepted_ms: int | None = None, low: bool = False) -> Marker:
    ref = JobRef(tenant=tenant, job_id=job_id_of(number))
    return Marker(ref=ref, accepted_ms=number if accepted_ms is None else accepted_ms, low_priority=low)


def test_tenants_take_turns_the_oldest_job_first():
    """A tenant with a hundred jobs does not keep one with two waiting."""
    many = [marker(number, "many") for number in range(100)]
    few = [marker(number, "few") for number in (200, 201)]
    order = [(each.ref.tenant, each.accepted_ms) for each in fair_order([*many[::-1], *few])]
    assert order[:5] == [("many", 0), ("few", 200), ("many", 1), ("few", 201), ("many", 2)]
    assert len(order) == 102


def test_what_runs_already_counts():
    """The tenant that has the fewest running is next, although its job is younger."""
    running = [marker(number, "a").ref for number in (1, 2)] + [marker(3, "b").ref]
    order = fair_order([marker(10, "a"), marker(11, "b"), marker(12, "b"), marker(13, "c")], running)
    assert [each.accepted_ms for each in order] == [13, 11, 10, 12]


def test_low_priority_comes_after_all_others():
    """Of whatever tenant and age."""
    order = fair_order([marker(1, "a", low=True), marker(2, "b", low=True), marker(3, "a"), marker(4, "a")])
    assert [each.accepted_ms for each in order] == [3, 4, 2, 1]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.booleans()), max_size=30),
    st.lists(st.sampled_from("abc"), max_size=5),
)
def test_every_job_has_its_turn_once_and_none_of_a_tenant_overtakes(jobs, running):
    """The order is the same whatever order they were seen in, and within a tenant and class it is that of age."""
    waiting = [marker(number, *job) for number, job in enumerate(jobs)]
    served = [marker(100 + number, tenant).ref for number, tenant in enumerate(running)]
    order = [*fair_order(waiting, served)]
    assert order == [*fair_order(waiting[::-1], served)]
    assert sorted(order, key=repr) == sorted(waiting, key=repr)
    for tenant in "abc":
        mine = [(each.low_priority, each.accepted_ms, each.ref.job_id) for each in order if each.ref.tenant == tenant]
        assert mine == sorted(mine)


@pytest.mark.parametrize(("replicas", "looks"), [(0, 1), (1, 1), (2, 2), (3, 3), (16, 16), (100, 16)])
def test_replicas_share_the_shards_and_each_sees_all_in_turn(replicas, looks):
    """The more there are the fewer each looks at, and after enough looks it has seen every shard."""
    queue = JobQueue(job_store(MemoryStore()), "a")
    shares = [queue.share(replicas) for _ in range(looks)]
    assert all(len(share) == -(-16 // max(1, replicas)) for share in shares)
    assert {shard for share in shares for shard in share} == set(keys.SHARDS)


def test_replicas_begin_at_different_shards():
    """So that they do not all look at the same ones at the same time."""
    first = {JobQueue(job_store(MemoryStore()), f"replica-{n}").share(16)[0] for n in range(40)}
    assert len(first) > 8


def test_a_queue_is_what_the_last_look_at_each_shard_saw():
    """What another replica ended goes with the next look at its shard; what ended here goes at once."""
    store = MemoryStore()
    jobs = job_store(store)
    refs = [submit(store, number, audio_s=seconds) for number, seconds in ((0x1A, 2.5), (0x2A, 10.0), (0x1B, 1.0))]
    queue = JobQueue(jobs, "a")
    queue.look("ab")
    assert ({each.ref for each in queue}, len(queue), queue.audio_s) == (set(refs), 3, 14.0)
    jobs.markers.remove(marker_of(job_request(0x2A, audio_s=10.0)))
    jobs.markers.remove(marker_of(job_request(0x1B, audio_s=1.0)))
    queue.look("a")
    assert {each.ref for each in queue} == {refs[0], refs[2]}
    queue.discard(refs[0])
    queue.discard(refs[0])
    assert [each.ref for each in queue] == refs[2:]


def test_a_queue_can_be_gone_through_while_a_look_at_it_goes_on():
    """The look is in a thread of its own, and the loop does not wait for it."""
    store = MemoryStore()
    refs = [submit(store, number) for number in (0x1A, 0x2A, 0x1B)]
    queue = JobQueue(job_store(store), "a")
    queue.look("a")
    seen = iter(queue)
    first = next(seen)
    queue.look("b")
    job_store(store).markers.remove(marker_of(job_request(0x2A)))
    queue.look("a")
    assert {first.ref, *(each.ref for each in seen)} >= {*refs[:2]}
    assert {each.ref for each in queue} == {refs[0], refs[2]}


def test_all_replicas_choose_the_same_one_and_choices_are_even():
    """By id alone, whoever asks; one that goes takes only its own share with it."""
    refs = [JobRef(tenant="t", job_id=job_id_of(number)) for number in range(400)]
    names = ["a", "b", "c", "d"]
    before = {ref: chosen(ref, names) for ref in refs}
    assert before == {ref: chosen(ref, names[::-1]) for ref in refs}
    assert all(60 < [*before.values()].count(name) < 140 for name in names)
    after = {ref: chosen(ref, ["a", "b", "c"]) for ref in refs}
    assert all(after[ref] == name for ref, name in before.items() if name != "d")


@pytest.mark.parametrize("place", [0, 5, 9])
def test_a_name_that_is_no_marker_hides_nothing_behind_the_first_page(monkeypatch, place):
    """Of a newer version, or of nobody: a page that tells of fewer jobs for it is followed by the next all the same."""
    monkeypatch.setattr(job_queue, "SWEEP_PAGE", 10)
    store = MemoryStore()
    refs = [submit(store, 0x10 * number + 0xA, accepted_at=1.0 + number) for number in range(35)]
    foreign = marker_of(job_request(accepted_at=1.0 + place)).name
    store.put(f"pending/a/{foreign}.of-a-newer-version", b"", content_type="text/plain")
    queue, seen = JobQueue(job_store(store), "a"), set()
    for _ in range(3):
        queue.look("a")
        seen |= {each.ref for each in queue}
    assert seen == {*refs}


def test_the_looks_behind_the_first_page_begin_anew_at_its_end():
    """Markers of an older version among them, whose names say more than their keys: all are seen, again and again."""
    store = MemoryStore()
    refs = [JobRef(tenant="default", job_id=job_id_of(0x10 * number + 0xA)) for number in range(2500)]
    for ref in refs:
        store.put(f"pending/a/{ref.job_id}.default", b"", content_type="text/plain")
    queue = JobQueue(job_store(store), "a")
    for _ in range(2):
        seen: list[JobRef] = []
        for _ in range(2):
            queue.look("a")
            seen += [each.ref for each in queue]
        assert {*seen} == {*refs}
