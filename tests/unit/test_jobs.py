"""Records of jobs in the store: what submit writes, what a read makes of it. On the memory store."""

import json
from dataclasses import replace

import pytest

from serve_app.domain import Sampling
from serve_app.errors import JobExpired, JobNotFound, ObjectNotFound
from serve_app.jobs import OUTCOMES, RETENTION_S, JobRef, JobStore, Results, RunEnd, marker_of
from serve_app.storage import MemoryStore
from tests.support.interleaving import Crash, Crashing, Hooked
from tests.support.jobs import JOB_ID, REF, Clock, job_outcome, job_request, job_store

ENTRY = f"lists/open/{2**48 - 1 - 100_000:012x}.{JOB_ID}"
REQUEST = f"jobs/a/{JOB_ID}/request.v1.json"
MARKER = f"pending/a/{100_000:012x}.{JOB_ID}.default.n10"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def jobs(store: MemoryStore) -> JobStore:
    return job_store(store)


def all_keys(store: MemoryStore) -> list[str]:
    return [info.key for info in store.list("").items]


def marked(jobs: JobStore) -> list[JobRef]:
    return [marker.ref for marker in jobs.markers.oldest("a", limit=10)]


def test_a_submitted_job_is_queued_and_pending(store, jobs):
    """After submit, list entry, request and marker exist, and nothing else."""
    jobs.submit(job_request())
    assert all_keys(store) == sorted([ENTRY, REQUEST, MARKER])
    assert jobs.status(REF).state == "queued"
    assert jobs.status(REF).request == job_request()
    assert jobs.markers.oldest("a", limit=10) == [marker_of(job_request())]


def test_a_marker_tells_age_tenant_priority_and_planned_seconds(store, jobs):
    """A listing alone says whose turn it is; part of a second counts as a whole one."""
    request = job_request(tenant="acme", audio_s=12.3, low_priority=True)
    jobs.submit(request)
    assert f"pending/a/{100_000:012x}.{JOB_ID}.acme.l13" in all_keys(store)
    (marker,) = jobs.markers.oldest("a", limit=10)
    assert marker == marker_of(request)
    assert (marker.accepted_ms, marker.low_priority, marker.audio_s) == (100_000, True, 13)


def test_a_request_keeps_its_parameters_and_an_older_one_has_none(store, jobs):
    """What was accepted is what is spoken later; records from before there were parameters are still read."""
    sampled = replace(job_request().speech, sampling=Sampling(7, 3.0, 0.5), cross_fade_s=0.2)
    jobs.submit(job_request().model_copy(update={"speech": sampled}))
    assert jobs.status(REF).request.speech == sampled
    record = json.loads(store.get(REQUEST).body)
    for name in ("sampling", "cross_fade_s"):
        del record["speech"][name]
    store.put(REQUEST, json.dumps(record).encode(), content_type="application/json")
    assert jobs.status(REF).request.speech == job_request().speech


def test_request_then_entry_then_marker(store):
    """An entry without a request or a marker without an entry cannot be, whenever the process ends."""
    written: list[str] = []
    job_store(Hooked(store, lambda _, key: written.append(key))).submit(job_request())
    assert written == [REQUEST, ENTRY, MARKER]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_crash_in_submit_leaves_no_job_or_one_that_a_read_makes_whole(store, jobs, at):
    """Before the request nothing was promised; after it, whoever reads it writes list entry and marker."""
    with pytest.raises(Crash):
        job_store(Crashing(store, at)).submit(job_request())
    assert marked(jobs) == []
    if at == 0:
        with pytest.raises(JobNotFound):
            jobs.status(REF)
        assert all_keys(store) == []
    else:
        assert jobs.status(REF).state == "queued"
        assert all_keys(store) == sorted([ENTRY, REQUEST, MARKER])


def test_a_begun_job_is_in_progress_with_its_latest_run(jobs):
    """The state of a job with runs and no outcome is in_progress, and names the last run's owner."""
    jobs.submit(job_request())
    jobs.begin(job_request(), run=1, owner="a", started_at=101.0)
    jobs.begin(job_request(), run=2, owner="b", started_at=102.0)
    status = jobs.status(REF)
    assert (status.state, status.run.run, status.run.owner) == ("in_progress", 2, "b")


def test_a_run_that_ended_leaves_the_job_queued_and_says_why(jobs):
    """Between two runs a job waits; its status has what the last run ended with."""
    jobs.submit(job_request())
    jobs.begin(job_request(), run=1, owner="a", started_at=101.0)
    end = RunEnd(job_id=JOB_ID, run=1, reason="failed", ended_at=102.0, not_before=104.0)
    jobs.end_run(end)
    status = jobs.status(REF)
    assert (status.state, status.run_end, status.standing.failed) == ("queued", end, 1)


@pytest.mark.parametrize("state", OUTCOMES)
def test_an_outcome_ends_the_job_and_settling_removes_its_marker(store, jobs, state):
    """The marker stays until all that follows from the outcome is done."""
    jobs.submit(job_request())
    ended = job_outcome(state)
    assert jobs.finish(ended) == ended
    assert jobs.status(REF).state == state
    assert marked(jobs) == [REF]
    jobs.settle(job_request(), ended)
    assert marked(jobs) == []
    entries = [f"{ENTRY.replace('open', 'ended')}.{state}", ENTRY.replace("open", state)]
    assert sorted(key for key in all_keys(store) if key.startswith("lists/")) == sorted(entries)
    (due,) = [key for key in all_keys(store) if key.startswith("expiry/")]
    assert abs(int(due.split("/")[2][:12], 16) - 1000 * (102.0 + RETENTION_S)) <= 1
    assert due.endswith(f".{JOB_ID}.default")


def test_a_read_restores_a_lost_marker(store, jobs):
    """A request that has neither marker nor outcome becomes pending again when it is read, and is listed again."""
    job_store(store).submit(job_request())
    store.delete(MARKER)
    store.delete(ENTRY)
    jobs.status(REF)
    assert all_keys(store) == sorted([ENTRY, REQUEST, MARKER])


def test_a_read_of_an_ended_job_restores_nothing(jobs):
    """An outcome without marker is the end, not a lost marker."""
    jobs.submit(job_request())
    jobs.settle(job_request(), jobs.finish(job_outcome("completed")))
    jobs.status(REF)
    assert marked(jobs) == []


def test_an_unknown_job_is_not_found(jobs):
    """A job that was never submitted raises JobNotFound with its id."""
    with pytest.raises(JobNotFound, match=JOB_ID):
        jobs.status(REF)


def test_a_result_past_its_retention_is_gone_at_once(store):
    """410 from the moment on, whether a collector came by or not; sooner where a client shortened it."""
    clock = Clock()
    jobs = job_store(store, clock)
    jobs.submit(job_request())
    jobs.finish(job_outcome("completed", expires_at=1000.0))
    for shortened_to, over in ((None, 1000.0), (500.0, 500.0), (700.0, 500.0)):
        if shortened_to is not None:
            jobs.shorten(job_request(), shortened_to)
        clock.now = over - 200.0 - 0.001
        assert jobs.status(REF).state == "completed"
        clock.now = over - 200.0
        with pytest.raises(JobExpired, match=JOB_ID):
            jobs.status(REF)
        clock.now = 0.0


@pytest.mark.parametrize("exclusive", [True, False])
def test_output_is_handed_out_once(store, exclusive):
    """The second to ask is told no, also in another process."""
    assert [job_store(store, exclusive=exclusive).hand_out(REF) for _ in range(3)] == [True, False, False]


def test_another_tenant_does_not_see_the_job(jobs, store):
    """Every key carries the tenant: the same id under another tenant does not exist."""
    jobs.submit(job_request(tenant="acme"))
    assert f"tenants/acme/{REQUEST}" in all_keys(store)
    assert f"tenants/acme/{ENTRY}" in all_keys(store)
    assert marked(jobs) == [JobRef(tenant="acme", job_id=JOB_ID)]
    with pytest.raises(JobNotFound):
        jobs.status(REF)


def test_audio_is_content_addressed_and_written_for_the_old_worker_too(store):
    """The result lies under its hash, and at output/{job_id}.wav only for the old worker's forms."""
    results = Results(store)
    record = results.store_audio(job_request(worker_output=True), b"RIFF", "ab" * 32, "audio/wav", 1.5)
    assert record.key == f"audio/{'ab' * 32}"
    assert store.get(record.key).body == b"RIFF"
    assert store.get(f"output/{JOB_ID}.wav").info.content_type == "audio/wav"
    store.delete(f"output/{JOB_ID}.wav")
    results.store_audio(job_request(), b"RIFF", "ab" * 32, "audio/wav", 1.5)
    with pytest.raises(ObjectNotFound):
        store.head(f"output/{JOB_ID}.wav")


def test_audio_is_named_before_it_is_written(store):
    """Whoever removes audio that nobody names cannot miss a job that is about to have it."""
    written: list[str] = []
    Results(Hooked(store, lambda _, key: written.append(key))).store_audio(
        job_request(), b"RIFF", "ab" * 32, "audio/wav", 1.5
    )
    assert written[-2:] == [f"removals/{'ab' * 32}/", f"audio/{'ab' * 32}"]  # a look between the two: see jobs/audio.py
    assert set(written[:-2]) == {f"references/{'ab' * 32}/{JOB_ID}", f"jobs/a/{JOB_ID}/audio-{'ab' * 32}.v1"}


def test_records_carry_tenant_and_schema_version(store, jobs):
    """Every record says whose it is and in which form it is written."""
    jobs.submit(job_request())
    jobs.begin(job_request(), run=1, owner="a", started_at=101.0)
    jobs.end_run(RunEnd(job_id=JOB_ID, run=1, reason="released", ended_at=102.0, not_before=102.0))
    jobs.finish(job_outcome("failed"))
    jobs.retry(REF)
    jobs.finish(job_outcome("completed", generation=1))
    jobs.notified(job_outcome("completed", generation=1), sent=True, attempts=1)
    names = [info.key.rsplit("/", 1)[1] for info in store.list("jobs/").items]
    assert len(names) == 7
    for info in store.list("jobs/").items:
        record = json.loads(store.get(info.key).body)
        assert (record["schema_version"], record["tenant"], record["job_id"]) == (1, "default", JOB_ID)
