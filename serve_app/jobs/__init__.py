"""Durable jobs on a plain object store: records, the state machine, lists, progress, results, retention.

`store.JobStore` is what the rest works with; `states` owns what the records mean. docs/jobs.md draws it.
"""

from serve_app.jobs.collector import COLLECT_PAGE, Collector
from serve_app.jobs.endings import job_expired
from serve_app.jobs.idempotency import Claim, Idempotency, check_key
from serve_app.jobs.lists import Entry, JobLists, Listed, ListName, Part
from serve_app.jobs.older import OlderJobs
from serve_app.jobs.outbox import Letter, Outbox
from serve_app.jobs.progress import KeptProgress
from serve_app.jobs.records import (
    RETENTION_S,
    AudioRecord,
    ErrorRecord,
    JobOutcome,
    JobRef,
    JobRequest,
    JobRun,
    Marker,
    RunEnd,
    RunEndReason,
    marker_of,
    parse_marker,
)
from serve_app.jobs.results import Results
from serve_app.jobs.settling import RETRYABLE
from serve_app.jobs.states import OUTCOMES, Standing
from serve_app.jobs.status import JobStatus
from serve_app.jobs.store import JobStore

__all__ = [
    "COLLECT_PAGE",
    "OUTCOMES",
    "RETENTION_S",
    "RETRYABLE",
    "AudioRecord",
    "Claim",
    "Collector",
    "Entry",
    "ErrorRecord",
    "Idempotency",
    "JobLists",
    "JobOutcome",
    "JobRef",
    "JobRequest",
    "JobRun",
    "JobStatus",
    "JobStore",
    "KeptProgress",
    "Letter",
    "ListName",
    "Listed",
    "Marker",
    "OlderJobs",
    "Outbox",
    "Part",
    "Results",
    "RunEnd",
    "RunEndReason",
    "Standing",
    "check_key",
    "job_expired",
    "marker_of",
    "parse_marker",
]
