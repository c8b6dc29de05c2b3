"""What is past its retention goes, and nothing else: on a memory store with a wall clock that the test moves."""

import contextlib
import hashlib
import threading
from dataclasses import replace

import numpy as np
import pytest

from serve_app import keys
from serve_app.domain import Speech
from serve_app.errors import JobExpired, JobNotFound, ObjectNotFound
from serve_app.jobs import Collector, JobLists, JobRef, Results, results
from serve_app.jobs.collector import GRACE_S, TOMBSTONE_S
from serve_app.storage import MemoryStore
from tests.support.deadline import DEADLINE_S
from tests.support.interleaving import Crash, Crashing, contents
from tests.support.jobs import (
    NOTHING_OLDER,
    Clock,
    job_id_of,
    job_request,
    job_store,
    nothing_older,
    speak_now,
    submit,
)

KEPT_S = 10 * 86_400.0
WAV = b"RIFF one"
HOOK = "https://client.example/hook"
KEY = f"audio/{hashlib.sha256(WAV).hexdigest()}"
HOUSEHOLD = {
    "voices/anna.wav": b"v", "voices/anna.txt": b"t", "prepared/anna/1.wav": b"p", "models/f5/x": b"m",
    "timings/x.srt": b"s", "output/of-the-old-worker.wav": b"o", "heartbeats/a.v1.json": b"{}",
    "runtimes/f5.v1.json": b"{}", "webhook-secret.v1": b"w", "audio/" + "0" * 64: b"nobody's, and not ours to judge",
    **NOTHING_OLDER,
}  # fmt: skip


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    store = MemoryStore(now=clock.date)
    for key, body in HOUSEHOLD.items():
        store.put(key, body, content_type="x/y")
    return store


def collect(store: MemoryStore, clock: Clock, times: int = 3) -> None:
    collector = Collector(store, clock.wall)
    for _ in range(times):
        for shard in keys.SHARDS:
            collector.collect(shard)


def spoken(store, clock, number: int = 0xA, wav: bytes = WAV, **changes) -> JobRef:
    ref = submit(store, number, **({"retention_s": KEPT_S} | changes))
    assert speak_now(store, clock, ref, wav).state == "completed"
    return ref


def told(store: MemoryStore, clock: Clock, ref: JobRef) -> None:
    """Its webhook was sent."""
    jobs = job_store(store, clock)
    jobs.notified(jobs.status(ref).outcome, sent=True, attempts=1)


def ours(store: MemoryStore) -> dict[str, bytes]:
    return {key: body for key, body in contents(store).items() if key not in HOUSEHOLD}


def test_a_job_goes_when_its_time_is_over_and_not_before(store, clock):
    """410 at once; then a tombstone and no audio; after thirty days 404 and nothing at all."""
    ref = spoken(store, clock, webhook=HOOK, worker_output=True, seeded=True)
    told(store, clock, ref)
    before = contents(store)
    clock.now = KEPT_S - 0.01
    collect(store, clock)
    assert contents(store) == before
    clock.now = KEPT_S
    with pytest.raises(JobExpired):
        job_store(store, clock).status(ref)
    assert contents(store) == before
    clock.now = KEPT_S + 0.01
    collect(store, clock)
    assert [key.split("/")[0] for key in ours(store)] == ["expiry", "jobs"]
    with pytest.raises(JobExpired):
        job_store(store, clock).status(ref)
    clock.now += TOMBSTONE_S - 0.1
    collect(store, clock)
    assert job_store(store, clock).standing(ref).gone
    clock.now += 0.2
    collect(store, clock)
    assert contents(store) == HOUSEHOLD
    with pytest.raises(JobNotFound):
        job_store(store, clock).status(ref)


def test_what_a_client_shortened_goes_sooner(store, clock):
    """The first entry that is due decides; the later one finds nothing to do."""
    ref = spoken(store, clock)
    job_store(store, clock).shorten(job_request(), clock.wall() + 2 * GRACE_S)
    clock.now = 2 * GRACE_S - 1
    collect(store, clock)
    assert store.head(KEY)
    clock.now = 2 * GRACE_S + 1
    collect(store, clock)
    with pytest.raises(ObjectNotFound):
        store.head(KEY)
    clock.now = KEPT_S + 1
    collect(store, clock)
    with pytest.raises(JobExpired):
        job_store(store, clock).status(ref)


@pytest.mark.parametrize("first", [0xA, 0x1B])
def test_audio_of_two_jobs_stays_until_the_last_has_gone(store, clock, first):
    """Whichever goes first."""
    refs = {
        number: spoken(store, clock, number, retention_s=KEPT_S * (1 if number == first else 2))
        for number in (0xA, 0x1B)
    }
    clock.now = KEPT_S + 1
    collect(store, clock)
    (other,) = (ref for number, ref in refs.items() if number != first)
    assert job_store(store, clock).status(other).outcome.audio.key == KEY
    assert store.get(KEY).body == WAV
    clock.now = 2 * KEPT_S + 1
    collect(store, clock)
    with pytest.raises(ObjectNotFound):
        store.head(KEY)


def test_audio_that_was_written_a_moment_ago_is_left_for_a_while(store, clock):
    """Its job is 410 all the same; after the grace everything goes."""
    ref = spoken(store, clock, retention_s=5.0)
    for clock.now in (6.0, GRACE_S - 1.0):
        collect(store, clock)
        assert store.head(KEY)
        with pytest.raises(JobExpired):
            job_store(store, clock).status(ref)
    clock.now = 6.0 + GRACE_S + 1.0
    collect(store, clock)
    with pytest.raises(ObjectNotFound):
        store.head(KEY)


def test_a_result_that_is_removed_is_not_found_by_a_later_request(store, clock):
    """Nor one that is about to be: whoever finds it needs time to name it."""
    speech = replace(job_request().speech, model_version="test")
    spoken(store, clock, speech=speech, seeded=True)
    later = job_request(0xC, seeded=True).model_copy(update={"speech": speech})
    results = Results(store, clock.wall)
    assert results.find(later).audio.key == KEY
    for clock.now in (KEPT_S - 59.0, KEPT_S + 1):
        assert results.find(later) is None
    collect(store, clock)
    assert store.list("results/").items == []


def test_a_result_that_another_job_spoke_since_is_not_forgotten(store, clock):
    """Only what still names the job goes with it."""
    speech = replace(job_request().speech, model_version="test")
    spoken(store, clock, speech=speech)
    spoken(store, clock, 0x1B, speech=speech, retention_s=2 * KEPT_S)  # not seeded, so it was spoken again
    clock.now = KEPT_S + 1
    collect(store, clock)
    asks = job_request(0xC, seeded=True).model_copy(update={"speech": speech})
    assert Results(store, clock.wall).find(asks).job_id == job_id_of(0x1B)


def test_kept_answers_of_calls_go_too(store, clock):
    """A call that was no job has an entry of its own."""
    call_id = job_id_of(0x5A)
    store.put(keys.call("default", call_id), b"{}", content_type="application/json")
    JobLists(store).expire(JobRef(tenant="default", job_id=call_id), clock.wall() + 100.0)
    clock.now = 99.0
    collect(store, clock)
    assert store.head(keys.call("default", call_id))
    clock.now = 101.0
    collect(store, clock)
    assert contents(store) == HOUSEHOLD


def test_one_broken_record_keeps_no_other(store, clock):
    """It is logged and put off; the job behind it in the same shard goes."""
    broken = spoken(store, clock, 0x1A)
    store.put(f"jobs/a/{broken.job_id}/request.v1.json", b"{", content_type="application/json")
    ref = spoken(store, clock, 0x2A, b"another")
    clock.now = KEPT_S + 1
    collect(store, clock)
    assert f"jobs/a/{ref.job_id}/request.v1.json" not in contents(store)


def test_a_look_is_bounded(store, clock):
    """At most so many entries at once; how many it looked at tells whether to go on."""
    for number in range(0x10, 0x60, 0x10):
        spoken(store, clock, number, b"%d" % number)
    clock.now = KEPT_S + 1
    collector = Collector(store, clock.wall)
    assert [collector.collect("0", limit=2) for _ in range(4)] == [2, 2, 1, 0]


def test_a_crash_at_any_write_is_made_good_by_the_next_look(clock):
    """Whatever was done already: in the end the same is gone, and the audio of the other job is there."""
    for at in range(50):
        clock.now = 0.0
        store = nothing_older(MemoryStore(now=clock.date))
        told(store, clock, spoken(store, clock, worker_output=True, seeded=True, webhook=HOOK))
        spoken(store, clock, 0x1A, b"other")
        other = spoken(store, clock, 0x2B, b"other", retention_s=9 * KEPT_S)
        clock.now = KEPT_S + 1
        crashing = Crashing(store, at)
        collector = Collector(crashing, clock.wall)
        with contextlib.suppress(Crash):
            collector.collect("a")
        collect(store, clock)
        clock.now += TOMBSTONE_S + 1
        collect(store, clock)
        left = contents(store)
        assert job_store(store, clock).status(other).state == "completed"
        assert not [key for key in left if job_id_of(0xA) in key or job_id_of(0x1A) in key], at
        assert [key for key in left if key.startswith("audio/")] == [f"audio/{hashlib.sha256(b'other').hexdigest()}"]
        if not crashing.crashed:
            return
    raise AssertionError("the collector never came to its end")


def test_unreadable_entries_block_no_shard(store, clock):
    """More of them than a look takes, all due before the others: they are put off, and looked at again."""
    for number in range(0x10, 0x80, 0x10):
        broken = spoken(store, clock, number, b"%d" % number)
        store.put(keys.job("default", broken.job_id, "request.v1.json"), b"{", content_type="application/json")
    ref = spoken(store, clock, 0xF0, b"another", retention_s=KEPT_S + 0.5)
    store.put("expiry/0/!not one of ours", b"", content_type="text/plain")
    clock.now = KEPT_S + 1
    collector = Collector(store, clock.wall)
    for _ in range(4):
        collector.collect("0", limit=3)
    assert job_store(store).standing(ref).gone
    assert len([key for key in contents(store) if key.startswith("expiry/0/0")]) == 8  # seven, and the tombstone's
    clock.now += GRACE_S + 1
    assert collector.collect("0") == 7


def test_a_tombstone_that_does_not_say_since_when_is_one_all_the_same(store, clock):
    """It counts from its entry's time, once: it neither fails for ever nor stays for ever."""
    ref = spoken(store, clock)
    clock.now = KEPT_S + 1
    collect(store, clock)
    for body in (b"{}", b"", b"[]"):
        store.put(keys.job("default", ref.job_id, "gone.v1.json"), body, content_type="application/json")
        clock.now += TOMBSTONE_S
        collect(store, clock)
        assert job_store(store).standing(ref).gone
    clock.now += TOMBSTONE_S + 1
    collect(store, clock)
    assert contents(store) == HOUSEHOLD


@pytest.mark.parametrize("with_job", [True, False])
def test_what_an_older_plan_spoke_is_forgotten_with_its_job(store, clock, monkeypatch, with_job):
    """The digest under which it was kept is the job's, whatever plans are made now."""
    speech = replace(job_request().speech, model_version="test")
    if with_job:
        spoken(store, clock, speech=speech, seeded=True)
    else:
        ref = JobRef(tenant="default", job_id=job_id_of(0x7A))
        said = Speech(np.zeros(10, np.float32), "preview", 7, draft=False, units=1, made_by="test")
        Results(store, clock.wall).keep(ref, speech, said, WAV, KEPT_S)
    monkeypatch.setattr(results, "PLAN_VERSION", "another")
    clock.now = KEPT_S + 1
    collect(store, clock)
    assert store.list("results/").items == []


def test_jobs_are_looked_at_side_by_side(clock):
    """Eight at once: each look is some twenty requests, one after the other."""
    meeting = threading.Barrier(8, timeout=DEADLINE_S)

    class Meets(MemoryStore):
        def list(self, prefix, *, after="", limit=1000):
            if prefix.startswith("jobs/0/") and is_collected:
                meeting.wait()
            return super().list(prefix, after=after, limit=limit)

    is_collected: list[bool] = []
    store = nothing_older(Meets(now=clock.date))
    for number in range(0x10, 0x90, 0x10):
        spoken(store, clock, number, b"%d" % number)
    clock.now = KEPT_S + 1
    is_collected.append(True)
    assert Collector(store, clock.wall).collect("0") == 8
    assert (meeting.broken, store.list("audio/").items) == (False, [])
