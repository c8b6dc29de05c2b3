"""The records of jobs as they lie in the store, and what names a job.

A record never changes once it is written. Fields are only ever added, with a default: what an older version wrote is
read, and what a newer one adds is passed over.
"""

import math
import re
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from serve_app import keys
from serve_app.domain import DEFAULT_TENANT, SpeechRequest
from serve_app.errors import ServiceError

__all__ = [
    "RETENTION_S",
    "AudioRecord",
    "ErrorRecord",
    "JobOutcome",
    "JobRef",
    "JobRequest",
    "JobRetry",
    "JobRun",
    "Marker",
    "OutcomeState",
    "RunEnd",
    "RunEndReason",
    "marker_of",
    "parse_marker",
]

OutcomeState = Literal["completed", "cancelled", "failed", "expired"]
RunEndReason = Literal["failed", "waiting", "released"]
"""failed: an error that another run may not have; waiting: a model or a store that takes nothing for long; released:
the Jobs replica was stopped. Of these only `failed` counts against the limit of runs; so does a run without an end that
kept nothing new."""

RETENTION_S = 7 * 86_400.0
UNPLANNED_S = 10
"""What a job without planned seconds counts as: it was accepted before there were any."""


class JobRef(NamedTuple):
    """Names a job. A tuple, for a long queue compares and hashes very many."""

    tenant: str
    job_id: str


class Record(BaseModel):
    """A JSON object in the store. `schema_version` is also in its key."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer writer may add fields

    schema_version: Literal[1] = 1
    tenant: str = DEFAULT_TENANT
    job_id: str

    @property
    def ref(self) -> JobRef:
        return JobRef(tenant=self.tenant, job_id=self.job_id)


class JobRequest(Record):
    """A job as it was accepted. Times are Unix seconds, durations seconds.

    `audio_s`: speech that the text will about give. `execution_timeout_s`: of one run, None: it follows from
    `audio_s`. `ttl_s`: from acceptance to the end, None: for ever. `retention_s`: from the end to the removal of the
    result. `base_url`: what the client called the service. `cache`: its result may be another job's, and serve others.
    `seeded`: the client chose the seed, so an equal request may have been spoken before. `body_sha256`: of what the
    client sent, where it came with an idempotency key.
    """

    accepted_at: float
    dialect: str
    speech: SpeechRequest
    worker_output: bool = False  # also write output/{job_id}.wav, as the replaced worker did
    audio_s: float | None = None
    low_priority: bool = False
    execution_timeout_s: float | None = None
    ttl_s: float | None = None
    retention_s: float = RETENTION_S
    webhook: str | None = None
    base_url: str | None = None
    cache: bool = True
    seeded: bool = False
    body_sha256: str | None = None


class JobRun(Record):
    """One attempt at a job, by the Jobs replica `owner`. `token` tells two writers of the same run apart."""

    run: int
    owner: str
    started_at: float
    token: str = ""


class ErrorRecord(BaseModel):
    """Why a job failed, in the fields that every error has."""

    model_config = ConfigDict(frozen=True)

    type: str
    code: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> "ErrorRecord":
        """What a client is told of `error`; of one that is none of ours no more than its name."""
        known = error if isinstance(error, ServiceError) else ServiceError(f"{type(error).__name__}: see the log")
        return cls(type=known.type, code=known.code, message=known.message)


class RunEnd(Record):
    """A run that ended without an outcome; the next one begins at `not_before` at the earliest."""

    run: int
    reason: RunEndReason
    ended_at: float
    not_before: float
    error: ErrorRecord | None = None


class JobRetry(Record):
    """A client asked for an ended job to be run again: `after_run` runs were made before."""

    generation: int
    after_run: int
    asked_at: float


class AudioRecord(BaseModel):
    """Where the spoken audio lies and what it is."""

    model_config = ConfigDict(frozen=True)

    key: str
    sha256: str
    content_type: str
    size_bytes: int
    duration_s: float

    @property
    def name(self) -> str:
        """What references to it call it."""
        return self.key.rpartition("/")[2]


class JobOutcome(Record):
    """How a job ended. `audio` is set when it completed, `error` when it did not.

    `made_by`: what spoke (see `domain.SpokenUnit`). `cached`: the audio was spoken for an equal request before.
    `generation`: how often the job was retried. `expires_at`: when the result is removed, Unix seconds.
    `result_digest`: under which digest later requests find it.
    """

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
    made_by: str = ""
    cached: bool = False
    generation: int = 0
    expires_at: float | None = None
    result_digest: str = ""

    @property
    def removed_at(self) -> float:
        return self.finished_at + RETENTION_S if self.expires_at is None else self.expires_at


class Marker(NamedTuple):
    """A job that is not ended, as a listing of the markers alone tells it. `accepted_ms`: Unix milliseconds.

    `generation`: how often the job was retried; each has a marker of its own, so that what still settles the end of one
    cannot take the next off the list.
    """

    ref: JobRef
    accepted_ms: int
    low_priority: bool = False
    audio_s: int = UNPLANNED_S
    generation: int = 0

    @property
    def name(self) -> str:
        """`{accepted_ms}.{job_id}.{tenant}.{n or l}{audio_s}`, and `.{generation}` of a retry: the oldest is first."""
        priority, retried = "l" if self.low_priority else "n", f".{self.generation}" if self.generation else ""
        return f"{self.accepted_ms:012x}.{self.ref.job_id}.{self.ref.tenant}.{priority}{self.audio_s}{retried}"

    @property
    def key(self) -> str:
        return keys.pending(self.ref.job_id[-1], self.name)

    @property
    def older_key(self) -> str:
        """Of the marker that a version before this one wrote."""
        return keys.pending(self.ref.job_id[-1], f"{self.ref.job_id}.{self.ref.tenant}")


UUID = r"(?P<job_id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
TENANT = r"(?P<tenant>[A-Za-z0-9][A-Za-z0-9_-]*)"
MARKER = re.compile(
    rf"(?P<ms>[0-9a-f]{{12}})\.{UUID}\.{TENANT}\.(?P<priority>[nl])(?P<audio_s>\d{{1,9}})(?:\.(?P<generation>\d{{1,4}}))?"
)
OLDER_MARKER = re.compile(rf"{UUID}\.{TENANT}")


def marker_of(request: JobRequest, generation: int = 0) -> Marker:
    """The marker of a job: it follows from its request, and from how often it was retried."""
    audio_s = UNPLANNED_S if request.audio_s is None else math.ceil(request.audio_s)
    return Marker(
        ref=request.ref,
        accepted_ms=int(1000 * request.accepted_at),
        low_priority=request.low_priority,
        audio_s=audio_s,
        generation=generation,
    )


def parse_marker(name: str) -> Marker | None:
    """What a marker of this name (of this version or the one before) tells; None for what is none."""
    if found := MARKER.fullmatch(name):
        return Marker(
            ref=JobRef(tenant=found["tenant"], job_id=found["job_id"]),
            accepted_ms=int(found["ms"], 16),
            low_priority=found["priority"] == "l",
            audio_s=int(found["audio_s"]),
            generation=int(found["generation"] or 0),
        )
    if found := OLDER_MARKER.fullmatch(name):
        job_id = found["job_id"]  # a UUIDv7: its first 48 bits are the time
        return Marker(ref=JobRef(tenant=found["tenant"], job_id=job_id), accepted_ms=int(job_id[:8] + job_id[9:13], 16))
    return None
