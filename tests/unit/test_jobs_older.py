"""What a version without lists and retention had ended is named, listed and removed; meanwhile no audio goes."""

import pytest

from serve_app import keys
from serve_app.jobs import RETENTION_S, Collector, JobRef, OlderJobs, older
from serve_app.jobs.audio import STALE_S, JobAudio
from serve_app.jobs.collector import GRACE_S, TOMBSTONE_S
from serve_app.storage import MemoryStore
from tests.support.interleaving import Crash, Crashing, Hooked, contents
from tests.support.jobs import STARTED_AT, Clock, Speak, job_store, lists_of, nothing_older, runner, speak_now, submit
from tests.support.older import put_older

DAY_S = 86_400.0
TODAY = 1_800_000_000.0 - STARTED_AT  # of the clock; the older jobs are of 2024, as their ids say
AUDIO = "ab" * 32
WAV = b"RIFF"


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = TODAY
    return clock


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    """The audio that older jobs name; it is old enough to go."""
    clock.now = TODAY - 9 * DAY_S
    store = MemoryStore(now=clock.date)
    store.put(f"audio/{AUDIO}", WAV, content_type="audio/wav")
    clock.now = TODAY
    return store


def turn(store: MemoryStore, clock: Clock, shards=keys.SHARDS) -> None:
    """Of new processes, as if replaced again and again: what is due is removed, older jobs are looked at."""
    for shard in shards:
        Collector(store, clock.wall).collect(shard)
        OlderJobs(store, job_store(store, clock), clock.wall).settle(shard)


def turns(store: MemoryStore, clock: Clock, count: int = 12) -> None:
    for _ in range(count):
        turn(store, clock)


def begin(store: MemoryStore, clock: Clock) -> None:
    """The first replica of this version, and the hour until it looks."""
    turn(store, clock)
    clock.now += older.SETTLES_AFTER_S


def listed(store: MemoryStore) -> dict[str, int]:
    return {state: lists_of(store).count(state) for state in ("completed", "failed", "open")}


def test_what_an_older_version_had_ended_is_listed_and_removed_like_all_else(store, clock, monkeypatch):
    """An hour after the start, a page at a time; its audio is named before, and goes with the last job that has it."""
    monkeypatch.setattr(older, "PAGE", 7)
    numbers = [0x10 * number + 0xA for number in range(10)]
    sha256s = [f"{number // 2:064x}" for number in range(10)]
    for number, sha256 in zip(numbers, sha256s, strict=True):
        first = put_older(store, number, sha256, "failed" if number // 16 % 3 == 2 else "completed", clock.wall())
        store.put(f"audio/{sha256}", WAV, content_type="audio/wav")
    ref = submit(store, 0xFA, accepted_at=clock.wall())
    speak_now(store, clock, ref, b"RIFF of today", made_by="test")
    before = contents(store)
    turn(store, clock)
    clock.now += older.SETTLES_AFTER_S - 1.0
    turns(store, clock)
    assert contents(store, without=("collector/",)) == before
    clock.now += 1.0
    turns(store, clock, 20)
    assert listed(store) == {"completed": 8, "failed": 3, "open": 0}
    assert len(store.list("expiry/a/").items) == 11
    assert len(store.list("references/").items) == 8
    assert job_store(store, clock).status(first).state == "completed"
    for passes in (2 * RETENTION_S, TOMBSTONE_S + 1):
        clock.now += passes
        turns(store, clock, 3)
    assert [key for key in contents(store) if not key.startswith(("collector/", f"audio/{AUDIO}"))] == []


@pytest.mark.parametrize("shards", [("a", "a"), ("a", "b"), ("b", "a")])
def test_audio_of_an_older_job_stays_though_another_of_it_is_past_its_time(store, clock, monkeypatch, shards):
    """Of two with equal audio one is due as soon as it is settled; the other is on a later page, or in a shard whose
    replica comes later."""
    monkeypatch.setattr(older, "PAGE", 4)
    due, lives = (int(f"{number}{shard}", 16) for number, shard in zip((1, 2), shards, strict=True))
    put_older(store, due, AUDIO, at=clock.wall() - 8 * DAY_S)
    ref = put_older(store, lives, AUDIO, at=clock.wall() - DAY_S)
    begin(store, clock)
    for _ in range(6):
        turn(store, clock, shards[:1])
        clock.now += GRACE_S
    turns(store, clock)
    assert store.get(job_store(store, clock).status(ref).outcome.audio.key).body == WAV
    assert [info.key for info in store.list("references/").items] == [f"references/{AUDIO}/{ref.job_id}"]
    clock.now += RETENTION_S
    turns(store, clock)
    assert store.list("audio/").items == []


def test_audio_of_an_older_job_stays_though_a_new_one_with_it_is_past_its_time(store, clock):
    """A new job speaks the same, and is kept for a day only, which is over before every older job was looked at."""
    put_older(store, 0x1A, AUDIO, at=clock.wall() - DAY_S)
    ref = submit(store, 0xFB, accepted_at=clock.wall(), retention_s=DAY_S / 2)
    JobAudio(store, clock.wall).refer(ref, AUDIO)
    jobs = job_store(store, clock)
    jobs.settle(jobs.status(ref).request, jobs.finish(jobs.ended(jobs.status(ref), "cancelled", None)))
    begin(store, clock)
    clock.now += DAY_S
    turn(store, clock, [shard for shard in keys.SHARDS if shard != "a"])
    clock.now += GRACE_S + 1.0
    turn(store, clock, "b")
    assert store.get(f"audio/{AUDIO}").body == WAV
    turns(store, clock)
    clock.now += GRACE_S + 1.0
    turns(store, clock)
    assert (store.get(f"audio/{AUDIO}").body, job_store(store).standing(ref).gone) == (WAV, True)


def test_nothing_is_settled_before_every_shard_was_looked_at_for_audio(store, clock):
    """Fifteen are not enough; and what the sixteenth has is no shard's second look."""
    put_older(store, 0x1A, AUDIO)
    begin(store, clock)
    for _ in range(3):
        turn(store, clock, keys.SHARDS[:-1])
    assert (len(store.list("references/").items), listed(store)["completed"]) == (1, 0)
    assert not JobAudio(store).all_named()
    turn(store, clock, keys.SHARDS[-1])
    assert JobAudio(store).all_named()
    turn(store, clock)
    assert listed(store)["completed"] == 1


def test_audio_that_is_being_removed_leaves_its_job_for_another_look(store, clock):
    """By whoever did not wait for this: until that is over, or so old that nobody can be at it, nothing goes on."""
    ref = put_older(store, 0x1A, AUDIO, at=clock.wall() - DAY_S)
    begin(store, clock)
    store.put(f"removals/{AUDIO}/another", b"", content_type="application/json")
    turns(store, clock, 3)
    assert not JobAudio(store).all_named()
    clock.now += STALE_S + 1.0
    turns(store, clock, 3)
    assert JobAudio(store).all_named()
    assert (listed(store)["completed"], store.list("removals/").items) == (1, [])
    assert job_store(store, clock).status(ref).state == "completed"


def test_a_crash_at_any_write_leaves_no_audio_unnamed(clock):
    """The next turn does the page again: what was named by half is named."""
    at, crashed = 0, True
    while crashed:
        clock.now = TODAY
        store = MemoryStore(now=clock.date)
        ref = put_older(store, 0x1A, AUDIO, at=clock.wall() - DAY_S)
        begin(store, clock)
        crashing, crashed = Crashing(store, at), False
        try:
            for _ in range(3):
                for shard in keys.SHARDS:
                    OlderJobs(crashing, job_store(crashing, clock), clock.wall).settle(shard)
        except Crash:
            crashed = True
        turns(store, clock)
        assert (listed(store)["completed"], len(store.list("references/").items)) == (1, 1), at
        assert job_store(store, clock).status(ref).state == "completed"
        at += 1
    assert at > 40


def test_a_new_store_removes_audio_an_hour_after_its_start(clock):
    """One listing of each shard, and one of what was noted: then nothing is put off any more, or asked."""
    store, asked = MemoryStore(now=clock.date), []
    ref = submit(store, 0xA, accepted_at=clock.wall(), retention_s=5.0)
    speak_now(store, clock, ref, WAV)
    seen = Hooked(store, lambda operation, key: asked.append((operation, key)))
    collector, looks = Collector(seen, clock.wall), OlderJobs(seen, job_store(store, clock), clock.wall)
    for _ in range(4):
        for shard in keys.SHARDS:
            collector.collect(shard)
            looks.settle(shard)
        clock.now += older.SETTLES_AFTER_S + 1.0
    assert job_store(store).standing(ref).gone
    assert store.list("audio/").items == []
    listings = [key for operation, key in asked if operation == "list" and key.startswith("jobs/") and len(key) == 7]
    assert len(listings) == 2 * len(keys.SHARDS)
    asked.clear()
    for shard in keys.SHARDS:
        collector.collect(shard)
        looks.settle(shard)
    assert {key.partition("/")[0] for _, key in asked} == {"expiry"}


def test_a_look_is_over_at_the_first_job_of_this_version(store, clock, monkeypatch):
    """However fast new ones come: it would never end where more come in a minute than a page has."""
    monkeypatch.setattr(older, "PAGE", 7)
    put_older(store, 0x1A, AUDIO)
    begin(store, clock)
    new = int(1000 * (clock.wall() + 1.0))
    job_ids = [f"{new >> 16:08x}-{new & 0xFFFF:04x}-7000-8000-{number:011x}a" for number in range(50)]
    for job_id in job_ids:
        store.put(f"jobs/a/{job_id}/request.v1.json", b"", content_type="application/json")
    turns(store, clock, 2)
    assert JobAudio(store).all_named()


def test_a_shard_that_was_looked_through_costs_nothing_more(store, clock):
    """Not even a look at the note, in one process; and no other process begins anew."""
    put_older(store, 0x1A, AUDIO)
    begin(store, clock)
    turns(store, clock)
    asked = []
    looks = OlderJobs(Hooked(store, lambda verb, key: asked.append((verb, key))), job_store(store), clock.wall)
    for _ in range(3):
        looks.settle("a")
    assert asked == [("get", "collector/scanned-v1/a")]


def test_a_note_that_knows_of_one_look_begins_anew(store, clock):
    """It says that all was settled, not that all audio was named before any was removed."""
    nothing = b'{"schema_version": 1, "after": "jobs/a/f", "begins_at": 1790000000.0, "done": true}'
    store.put("collector/scanned-v1/a", nothing, content_type="application/json")
    put_older(store, 0x1A, AUDIO)
    turn(store, clock)
    assert [info.key.rpartition("/")[2] for info in store.list("collector/named-v1/").items] == ["a"]
    assert len(store.list("references/").items) == 1


def test_what_cannot_be_read_keeps_no_other(store, clock):
    """It is logged and passed over, in both looks."""
    broken = put_older(store, 0x1A, AUDIO)
    store.put(f"jobs/a/{broken.job_id}/completed.v1.json", b"{", content_type="application/json")
    put_older(store, 0x2A, AUDIO, at=clock.wall())
    begin(store, clock)
    turns(store, clock)
    assert listed(store)["completed"] == 1


async def test_a_jobs_replica_settles_older_jobs_when_it_collects(store, clock):
    """In the turn of the collector, in the shards that are its own."""
    for number in (0x1A, 0x2B):
        put_older(store, number, AUDIO)
    r = runner(store, Speak(), clock)
    for _ in range(3):
        await r.collect()
        clock.now += older.SETTLES_AFTER_S
    assert listed(store)["completed"] == 2


@pytest.mark.parametrize("missing", [None, *"0f"])
def test_audio_may_be_removed_when_every_shard_says_so(missing):
    """Once it is so, nobody asks the store again."""
    store, asked = nothing_older(MemoryStore()), []
    if missing:
        store.delete(keys.named(missing))
    audio = JobAudio(Hooked(store, lambda _, key: asked.append(key)))
    assert [audio.all_named() for _ in range(2)] == [missing is None] * 2
    assert asked == [keys.named()] * (2 if missing else 1)


def test_a_reference_to_a_job_says_which():
    """The last digit of an older job's number is its shard, which these tests count on."""
    assert put_older(MemoryStore(), 0x1B) == JobRef(tenant="default", job_id="01939f00-1234-7000-8000-00000000001b")
