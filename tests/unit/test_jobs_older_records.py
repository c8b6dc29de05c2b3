"""What the release before this one wrote is read, and run to its end: the rolling update of a service in mid-load."""

import json

import pytest

from serve_app.jobs import RETENTION_S, Collector, JobRef, JobRequest, Marker, OlderJobs, older
from serve_app.jobs.collector import TOMBSTONE_S
from serve_app.jobs.records import parse_marker
from serve_app.storage import MemoryStore
from tests.support.interleaving import Hooked, contents
from tests.support.jobs import Clock, Speak, finish, job_store, runner, speak_now, submit

JOB_ID = "01939f00-1234-7000-8000-00000000000a"
ACCEPTED_MS = 0x01939F001234
REQUEST = f"""{{"schema_version":1,"tenant":"default","job_id":"{JOB_ID}","accepted_at":100.0,"dialect":"runpod",
"speech":{{"text":"Hello.","model":"preview","voice":{{"name":"heart","version":"builtin","tenant":"default"}},
"speed":1.0,"seed":7,"request_id":"r1","tenant":"default","job_id":"{JOB_ID}","sampling":null,"cross_fade_s":null}},
"worker_output":true}}"""
RUN = f"""{{"schema_version":1,"tenant":"default","job_id":"{JOB_ID}","run":1,"owner":"old","started_at":101.0}}"""
OUTCOME = f"""{{"schema_version":1,"tenant":"default","job_id":"{JOB_ID}","state":"completed","run":1,
"started_at":101.0,"finished_at":102.0,"model":"preview","draft":true,"seed":7,"units":1,"audio":{{"key":"audio/ab","sha256":"ab",
"content_type":"audio/wav","size_bytes":4,"duration_s":1.5}},"error":null}}"""
FAILED = f"""{{"schema_version":1,"tenant":"default","job_id":"{JOB_ID}","state":"failed","run":3,"started_at":101.0,
"finished_at":102.0,"model":"preview","draft":false,"seed":7,"units":0,"audio":null,
"error":{{"type":"server_error","code":"synthesis_failed","message":"out of memory"}}}}"""
OLDER_MARKER = f"pending/a/{JOB_ID}.default"


def older_store(*, marker: bool = True, **records: str) -> MemoryStore:
    """As the release before left it: records by the name that they had, and the marker."""
    store = MemoryStore()
    for name, record in records.items():
        key = f"jobs/a/{JOB_ID}/{name.replace('_', '-')}.v1.json"
        store.put(key, record.encode(), content_type="application/json")
    if marker:
        store.put(OLDER_MARKER, b"", content_type="application/json")
    return store


def reference(store: MemoryStore):
    (marker,) = job_store(store).markers.oldest("a", limit=10)
    return marker.ref


def test_an_older_request_has_the_defaults_of_today():
    """What was not asked then is what is asked of nobody now."""
    request = JobRequest.model_validate_json(REQUEST)
    assert (request.speech.text, request.speech.seed, request.worker_output) == ("Hello.", 7, True)
    assert (request.speech.model_version, request.audio_s, request.ttl_s, request.webhook) == (None,) * 4
    assert (request.low_priority, request.execution_timeout_s, request.seeded) == (False, None, False)
    assert request.retention_s == RETENTION_S


def test_an_older_marker_is_one():
    """Its age is that of its id, a UUIDv7."""
    marker = parse_marker(f"{JOB_ID}.default")
    assert marker == Marker(ref=marker.ref, accepted_ms=ACCEPTED_MS)
    assert (marker.ref.job_id, marker.ref.tenant, marker.older_key) == (JOB_ID, "default", OLDER_MARKER)


@pytest.mark.parametrize("name", ["", "x", JOB_ID, f"{JOB_ID}.", f"{JOB_ID}.a/b", f"{JOB_ID.upper()}.default"])
def test_what_is_no_marker_is_none(name):
    """Foreign objects among the markers are passed over."""
    assert parse_marker(name) is None
    assert parse_marker(f"0000000186a0.{name}.n10") is None


async def test_an_older_job_that_waits_is_spoken_and_both_its_markers_go():
    """Accepted by the old service, run by the new one: audio where the old worker's users look, and nothing pending."""
    store, speak = older_store(request=REQUEST), Speak()
    ref, r = reference(store), runner(store, speak)
    for _ in range(3):
        await r.sweep()
    assert await finish(store, r, ref) == "completed"
    assert len(speak.requests) == 1
    assert store.list("pending/").items == []
    audio = job_store(store).status(ref).outcome.audio
    assert store.get(f"output/{JOB_ID}.wav").body == store.get(audio.key).body


async def test_an_older_job_in_mid_run_is_taken_over_from_its_replica():
    """Its owner of the old release has no heartbeat any more: run 2 is the new release's."""
    store, speak, clock = older_store(request=REQUEST, run_0001=RUN), Speak(), Clock()
    ref, r = reference(store), runner(store, speak, clock)
    for clock.now in (0.0, 1.0, 5.0, 6.0):
        await r.sweep()
        await r.wait(ref)
    assert job_store(store).status(ref).outcome.run == 2
    assert store.list("pending/").items == []


@pytest.mark.parametrize("outcome", [OUTCOME, FAILED])
async def test_an_older_job_that_ended_is_not_spoken_again_when_its_marker_was_left(outcome):
    """Its end stands, and nothing is pending."""
    state = json.loads(outcome)["state"]
    store, speak = older_store(request=REQUEST, **{state: outcome}), Speak()
    ref, r = reference(store), runner(store, speak)
    for _ in range(3):
        await r.sweep()
    assert await finish(store, r, ref) == state
    assert (speak.requests, store.list("pending/").items) == ([], [])


def test_an_older_outcome_is_kept_for_the_default_time():
    """It does not say when it is removed; seven days after its end, as docs/jobs.md has it."""
    store = older_store(request=REQUEST, completed=OUTCOME, marker=False)
    before = contents(store)
    ref = JobRequest.model_validate_json(REQUEST).ref
    outcome = job_store(store).status(ref).outcome
    assert (outcome.removed_at, outcome.generation, outcome.made_by) == (102.0 + RETENTION_S, 0, "")
    assert contents(store) == before  # a look at what ended writes nothing


def older_jobs(store: MemoryStore, count: int) -> list[str]:
    """So many that ended, every third of them failed; the audio of two is the same."""
    sha256s = [f"{number // 2:064x}" for number in range(count)]
    for number, sha256 in enumerate(sha256s):
        job_id = JOB_ID[:-4] + f"{number:03x}a"
        state, record = ("failed", FAILED) if number % 3 == 2 else ("completed", OUTCOME)
        record = record.replace("audio/ab", f"audio/{sha256}").replace('"ab"', f'"{sha256}"').replace(JOB_ID, job_id)
        for name, body in (("request", REQUEST.replace(JOB_ID, job_id)), (state, record), ("run-0001", RUN)):
            store.put(f"jobs/a/{job_id}/{name}.v1.json", body.encode(), content_type="application/json")
        store.put(f"audio/{sha256}", b"RIFF", content_type="audio/wav")
    return [JOB_ID[:-4] + f"{number:03x}a" for number in range(count)]


def settle_all(store: MemoryStore, clock: Clock, turns: int = 40) -> None:
    """By a new process each turn, as one that is replaced again and again."""
    for _ in range(turns):
        OlderJobs(store, job_store(store, clock), clock.wall).settle("a")


def test_what_an_older_version_had_ended_is_listed_and_removed_like_all_else(monkeypatch):
    """An hour after the start, a page at a time; its audio is named before, and goes with the last job that has it."""
    monkeypatch.setattr(older, "PAGE", 7)
    clock = Clock()
    store = MemoryStore(now=clock.date)
    job_ids = older_jobs(store, 10)
    ref = submit(store, 0xFA)
    speak_now(store, clock, ref, b"RIFF of today", made_by="test")
    before = contents(store)
    settle_all(store, clock)
    assert contents(store, without=("collector/",)) == before
    clock.now = older.SETTLES_AFTER_S
    settle_all(store, clock)
    listed = {state: len(store.list(f"lists/{state}/").items) for state in ("completed", "failed", "open")}
    assert listed == {"completed": 8, "failed": 3, "open": 0}
    assert len(store.list("expiry/a/").items) == 11
    assert len(store.list("references/").items) == 8
    assert job_store(store, clock).status(JobRef(tenant="default", job_id=job_ids[0])).state == "completed"
    clock.now = 2 * RETENTION_S
    for clock.now in (2 * RETENTION_S, 2 * RETENTION_S + TOMBSTONE_S + 1):
        for _ in range(3):
            Collector(store, clock.wall).collect("a")
    assert set(contents(store)) == {"collector/scanned-v1/a"}


def test_a_shard_that_was_looked_through_costs_nothing_more():
    """Not even a look at the note, in one process; and no other process begins anew."""
    clock, asked = Clock(), []
    store = MemoryStore(now=clock.date)
    older_jobs(store, 2)
    clock.now = -older.SETTLES_AFTER_S
    settle_all(store, clock, 1)
    clock.now = 0.0
    settle_all(store, clock, 1)
    looks = OlderJobs(Hooked(store, lambda verb, key: asked.append((verb, key))), job_store(store), clock.wall)
    for _ in range(3):
        looks.settle("a")
    assert asked == [("get", "collector/scanned-v1/a")]


async def test_a_jobs_replica_settles_older_jobs_when_it_collects():
    """In the turn of the collector, in the shards that are its own."""
    clock = Clock()
    store = MemoryStore(now=clock.date)
    older_jobs(store, 2)
    r = runner(store, Speak(), clock)
    for clock.now in (0.0, older.SETTLES_AFTER_S):
        await r.collect()
    assert len(store.list("lists/completed/").items) == 2


def test_fields_of_a_newer_release_are_passed_over():
    """While replicas are replaced, the old ones read what the new ones write."""
    newer = json.loads(REQUEST) | {"field_of_tomorrow": [1]}
    assert JobRequest.model_validate_json(json.dumps(newer)) == JobRequest.model_validate_json(REQUEST)
