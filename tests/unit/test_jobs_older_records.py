"""What the release before this one wrote is read, and run to its end: the rolling update of a service in mid-load."""

import json

import pytest

from serve_app.jobs import RETENTION_S, JobRequest, Marker
from serve_app.jobs.records import parse_marker
from serve_app.storage import MemoryStore
from tests.support.interleaving import contents
from tests.support.jobs import Clock, Speak, finish, job_store, runner
from tests.support.older import ACCEPTED_MS, FAILED, JOB_ID, OUTCOME, REQUEST, RUN

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


def test_fields_of_a_newer_release_are_passed_over():
    """While replicas are replaced, the old ones read what the new ones write."""
    newer = json.loads(REQUEST) | {"field_of_tomorrow": [1]}
    assert JobRequest.model_validate_json(json.dumps(newer)) == JobRequest.model_validate_json(REQUEST)
