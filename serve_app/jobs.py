"""The durable state of jobs: which objects exist *is* the state, so no process can lose it.

    jobs/{shard}/{id}/request.v1.json     written first; never changes
    pending/{shard}/{id}.{tenant}         written second; then the client gets its 202
    jobs/{shard}/{id}/run-0001.v1.json    a replica started run 1
    audio/{sha256}                        the result's bytes, content-addressed
    jobs/{shard}/{id}/completed.v1.json   the outcome, written last; then the marker is removed

Keys are immutable and deterministic, so nothing needs compare-and-swap: a record written twice is the same
record, and where two different outcomes were written, OUTCOMES says which one counts. A read that finds a
request with neither marker nor outcome restores the marker. Knows nothing of HTTP, Ray or models; all methods
block on the store, so async callers run them in a thread.
"""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from serve_app import keys
from serve_app.domain import DEFAULT_TENANT, JobState, SpeechRequest
from serve_app.errors import JobNotFound, ObjectNotFound
from serve_app.storage import ObjectStore

__all__ = [
    "OUTCOMES",
    "AudioRecord",
    "ErrorRecord",
    "JobOutcome",
    "JobRef",
    "JobRequest",
    "JobRun",
    "JobStatus",
    "JobStore",
]

OutcomeState = Literal["completed", "cancelled", "failed", "expired"]
OUTCOMES: tuple[OutcomeState, ...] = ("completed", "cancelled", "failed", "expired")
"""Precedence, highest first, for the rare job that two owners ended differently."""

JSON = "application/json"
MARKER = re.compile(r"(?P<job_id>[0-9a-f-]{36})\.(?P<tenant>[A-Za-z0-9][A-Za-z0-9_-]*)")


class Record(BaseModel):
    """A JSON object in the store. `schema_version` is also in its key."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer writer may add fields

    schema_version: Literal[1] = 1
    tenant: str = DEFAULT_TENANT
    job_id: str


class JobRequest(Record):
    """A job as it was accepted. Times are Unix seconds."""

    accepted_at: float
    dialect: str
    speech: SpeechRequest
    worker_output: bool = False  # also write output/{job_id}.wav, as the replaced worker did


class JobRun(Record):
    """One attempt at a job, by the Jobs replica `owner`."""

    run: int
    owner: str
    started_at: float


class AudioRecord(BaseModel):
    """Where the spoken audio lies and what it is."""

    model_config = ConfigDict(frozen=True)

    key: str
    sha256: str
    content_type: str
    size_bytes: int
    duration_s: float


class ErrorRecord(BaseModel):
    """Why a job failed, in the fields that every error has."""

    model_config = ConfigDict(frozen=True)

    type: str
    code: str
    message: str


class JobOutcome(Record):
    """How a job ended. `audio` is set when it completed, `error` when it did not."""

    state: OutcomeState
    run: int
    started_at: float
    finished_at: float
    model: str
    draft: bool = False
    seed: int
    units: int = 0
    audio: AudioRecord | None = None
    error: ErrorRecord | None = None


class JobRef(BaseModel):
    """Names a job."""

    model_config = ConfigDict(frozen=True)

    tenant: str
    job_id: str


class JobStatus(BaseModel):
    """All that the store knows of a job, from one listing."""

    model_config = ConfigDict(frozen=True)

    request: JobRequest
    state: JobState
    run: JobRun | None = None
    outcome: JobOutcome | None = None


class JobStore:
    """Reads and writes the records of jobs."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def submit(self, request: JobRequest) -> None:
        """Make the job durable. When this returns, a client may be told 202."""
        self._write(keys.job(request.tenant, request.job_id, "request.v1.json"), request)
        self._mark_pending(JobRef(tenant=request.tenant, job_id=request.job_id))

    def status(self, ref: JobRef) -> JobStatus:
        """The state of a job. Raises JobNotFound."""
        prefix = keys.job(ref.tenant, ref.job_id)
        names = {info.key.removeprefix(prefix) for info in self._store.list(prefix).items}
        if "request.v1.json" not in names:
            raise JobNotFound(f"job {ref.job_id!r} does not exist: check the id that the submitting call returned")
        request = JobRequest.model_validate_json(self._read(ref, "request.v1.json"))
        runs = sorted(name for name in names if name.startswith("run-"))
        run = JobRun.model_validate_json(self._read(ref, runs[-1])) if runs else None
        for state in OUTCOMES:
            if f"{state}.v1.json" in names:
                outcome = JobOutcome.model_validate_json(self._read(ref, f"{state}.v1.json"))
                return JobStatus(request=request, state=state, run=run, outcome=outcome)
        self._restore_marker(ref)
        return JobStatus(request=request, state="in_progress" if run else "queued", run=run)

    def begin(self, request: JobRequest, *, run: int, owner: str, started_at: float) -> JobRun:
        """Record that `owner` starts run number `run` (1 is the first)."""
        record = JobRun(tenant=request.tenant, job_id=request.job_id, run=run, owner=owner, started_at=started_at)
        self._write(keys.job(request.tenant, request.job_id, f"run-{run:04d}.v1.json"), record)
        return record

    def store_audio(
        self, request: JobRequest, body: bytes, sha256: str, content_type: str, duration_s: float
    ) -> AudioRecord:
        """Write the spoken audio under its content's name, and where the replaced worker's users look for it."""
        key = keys.audio(request.tenant, sha256)
        self._store.put(key, body, content_type=content_type)
        if request.worker_output:
            self._store.put(keys.worker_output(request.tenant, request.job_id), body, content_type=content_type)
        return AudioRecord(
            key=key, sha256=sha256, content_type=content_type, size_bytes=len(body), duration_s=duration_s
        )

    def finish(self, outcome: JobOutcome) -> None:
        """Write the outcome, then take the job off the pending list."""
        self._write(keys.job(outcome.tenant, outcome.job_id, f"{outcome.state}.v1.json"), outcome)
        self.clear_marker(JobRef(tenant=outcome.tenant, job_id=outcome.job_id))

    def clear_marker(self, ref: JobRef) -> None:
        """Take an ended job off the pending list."""
        self._store.delete(keys.pending(ref.job_id[-1], ref.tenant, ref.job_id))

    def pending(self, shard: str, *, limit: int) -> Sequence[JobRef]:
        """The oldest jobs of `shard` that are not ended, at most `limit`; what is no marker is passed over."""
        prefix = keys.pending(shard)
        page = self._store.list(prefix, limit=limit)
        markers = (MARKER.fullmatch(info.key.removeprefix(prefix)) for info in page.items)
        return [JobRef(tenant=marker["tenant"], job_id=marker["job_id"]) for marker in markers if marker]

    def _mark_pending(self, ref: JobRef) -> None:
        self._store.put(keys.pending(ref.job_id[-1], ref.tenant, ref.job_id), b"", content_type=JSON)

    def _restore_marker(self, ref: JobRef) -> None:
        try:
            self._store.head(keys.pending(ref.job_id[-1], ref.tenant, ref.job_id))
        except ObjectNotFound:
            self._mark_pending(ref)

    def _write(self, key: str, record: Record) -> None:
        self._store.put(key, record.model_dump_json().encode(), content_type=JSON)

    def _read(self, ref: JobRef, name: str) -> bytes:
        return self._store.get(keys.job(ref.tenant, ref.job_id, name)).body
