"""The durable state machine, on the memory store."""

import json
from dataclasses import replace

import pytest

from serve_app import keys
from serve_app.domain import BUILTIN, Sampling, SpeechRequest, VoiceRef
from serve_app.errors import JobNotFound, ObjectNotFound
from serve_app.jobs import OUTCOMES, JobOutcome, JobRef, JobRequest, JobStore
from serve_app.storage import MemoryStore

JOB_ID = "01939f00-0000-7000-8000-00000000000a"
REF = JobRef(tenant="default", job_id=JOB_ID)


def request(tenant: str = "default", worker_output: bool = False) -> JobRequest:
    speech = SpeechRequest(
        text="Hello.",
        model="preview",
        voice=VoiceRef("heart", BUILTIN),
        speed=1.0,
        seed=7,
        request_id="r1",
        tenant=tenant,
        job_id=JOB_ID,
    )
    return JobRequest(
        tenant=tenant, job_id=JOB_ID, accepted_at=100.0, dialect="runpod", speech=speech, worker_output=worker_output
    )


def outcome(state: str, run: int = 1) -> JobOutcome:
    return JobOutcome(job_id=JOB_ID, state=state, run=run, started_at=101.0, finished_at=102.0, model="preview", seed=7)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def jobs(store: MemoryStore) -> JobStore:
    return JobStore(store)


def all_keys(store: MemoryStore) -> list[str]:
    return [info.key for info in store.list("").items]


def test_a_submitted_job_is_queued_and_pending(store, jobs):
    """After submit, the request and the marker exist, and nothing else."""
    jobs.submit(request())
    assert all_keys(store) == [f"jobs/a/{JOB_ID}/request.v1.json", f"pending/a/{JOB_ID}.default"]
    assert jobs.status(REF).state == "queued"
    assert jobs.status(REF).request == request()
    assert jobs.pending("a", limit=10) == [REF]


def test_a_request_keeps_its_parameters_and_an_older_one_has_none(store, jobs):
    """What was accepted is what is spoken later; records from before there were parameters are still read."""
    sampled = replace(request().speech, sampling=Sampling(7, 3.0, 0.5), cross_fade_s=0.2)
    jobs.submit(request().model_copy(update={"speech": sampled}))
    assert jobs.status(REF).request.speech == sampled
    key = f"jobs/a/{JOB_ID}/request.v1.json"
    record = json.loads(store.get(key).body)
    for name in ("sampling", "cross_fade_s"):
        del record["speech"][name]
    store.put(key, json.dumps(record).encode(), content_type="application/json")
    assert jobs.status(REF).request.speech == request().speech


def test_the_request_is_written_before_the_marker(jobs, store):
    """A crash between the two writes leaves a request without a marker, never a marker without a request."""
    written: list[str] = []
    put = store.put

    def spy(key, body, *, content_type):
        written.append(key)
        return put(key, body, content_type=content_type)

    store.put = spy
    jobs.submit(request())
    assert [key.split("/")[0] for key in written] == ["jobs", "pending"]


def test_a_begun_job_is_in_progress_with_its_latest_run(jobs):
    """The state of a job with runs and no outcome is in_progress, and names the last run's owner."""
    jobs.submit(request())
    jobs.begin(request(), run=1, owner="a", started_at=101.0)
    jobs.begin(request(), run=2, owner="b", started_at=102.0)
    status = jobs.status(REF)
    assert (status.state, status.run.run, status.run.owner) == ("in_progress", 2, "b")


@pytest.mark.parametrize("state", OUTCOMES)
def test_an_outcome_ends_the_job_and_removes_its_marker(store, jobs, state):
    """Every outcome is the job's state, and takes it off the pending list."""
    jobs.submit(request())
    jobs.finish(outcome(state))
    assert jobs.status(REF).state == state
    assert jobs.pending("a", limit=10) == []


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        ("failed", "completed", "completed"),
        ("completed", "cancelled", "completed"),
        ("cancelled", "failed", "cancelled"),
        ("expired", "failed", "failed"),
    ],
)
def test_of_two_outcomes_the_fixed_precedence_decides(jobs, first, second, counts):
    """Two owners that ended a job differently leave one answer, whichever wrote first."""
    jobs.submit(request())
    jobs.finish(outcome(first))
    jobs.finish(outcome(second))
    assert jobs.status(REF).state == counts


def test_a_read_restores_a_lost_marker(store, jobs):
    """A request that has neither marker nor outcome becomes pending again when it is read."""
    jobs.submit(request())
    store.delete(keys.pending("a", "default", JOB_ID))
    jobs.status(REF)
    assert jobs.pending("a", limit=10) == [REF]


def test_a_read_of_an_ended_job_restores_nothing(jobs):
    """An outcome without marker is the end, not a lost marker."""
    jobs.submit(request())
    jobs.finish(outcome("completed"))
    jobs.status(REF)
    assert jobs.pending("a", limit=10) == []


def test_an_unknown_job_is_not_found(jobs):
    """A job that was never submitted raises JobNotFound with its id."""
    with pytest.raises(JobNotFound, match=JOB_ID):
        jobs.status(REF)


def test_another_tenant_does_not_see_the_job(jobs, store):
    """Every key carries the tenant: the same id under another tenant does not exist."""
    jobs.submit(request("acme"))
    assert f"tenants/acme/jobs/a/{JOB_ID}/request.v1.json" in all_keys(store)
    assert jobs.pending("a", limit=10) == [JobRef(tenant="acme", job_id=JOB_ID)]
    with pytest.raises(JobNotFound):
        jobs.status(REF)


def test_audio_is_content_addressed_and_written_for_the_old_worker_too(store, jobs):
    """The result lies under its hash, and at output/{job_id}.wav only for the old worker's forms."""
    record = jobs.store_audio(request(worker_output=True), b"RIFF", "ab" * 32, "audio/wav", 1.5)
    assert record.key == f"audio/{'ab' * 32}"
    assert store.get(record.key).body == b"RIFF"
    assert store.get(f"output/{JOB_ID}.wav").info.content_type == "audio/wav"
    store.delete(f"output/{JOB_ID}.wav")
    jobs.store_audio(request(), b"RIFF", "ab" * 32, "audio/wav", 1.5)
    with pytest.raises(ObjectNotFound):
        store.head(f"output/{JOB_ID}.wav")


def test_records_carry_tenant_and_schema_version(store, jobs):
    """Every record says whose it is and in which form it is written."""
    jobs.submit(request())
    jobs.begin(request(), run=1, owner="a", started_at=101.0)
    jobs.finish(outcome("completed"))
    for info in store.list("jobs/").items:
        body = store.get(info.key).body.decode()
        assert '"schema_version":1' in body
        assert '"tenant":"default"' in body
