"""Settles what a version without lists and retention had ended, so that it is listed, kept and removed as all else is.

    collector/scanned-v1/{shard}      how far the look through the jobs of a shard has come, or that it is over

Such a job has an outcome that does not say when it is removed, and names its audio nowhere else. Its audio is named
first, then the outcome settled: the audio cannot go while it is wanted, and doing it again is harmless. A look is one
page; once a shard was looked through it is asked for no more. It begins an hour after the first Jobs replica of this
version, when none of the version before ends jobs any more. Only the default tenant: that version had no other.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from serve_app import keys, logs
from serve_app.domain import DEFAULT_TENANT
from serve_app.errors import ObjectCorrupt, ObjectNotFound
from serve_app.jobs import states
from serve_app.jobs.audio import JobAudio
from serve_app.jobs.folders import JobFolders
from serve_app.jobs.records import JobOutcome, JobRef, JobRequest
from serve_app.jobs.states import REQUEST
from serve_app.jobs.store import JobStore
from serve_app.storage import ObjectStore

__all__ = ["SETTLES_AFTER_S", "OlderJobs"]

SETTLES_AFTER_S = 3600.0
PAGE = 1000


@dataclass(frozen=True, slots=True)
class _Scan:
    """`after`: the key that the next page begins behind. `begins_at`: Unix seconds."""

    after: str
    begins_at: float
    done: bool


class OlderJobs:
    """Blocks on the store. `wall_clock`: Unix seconds."""

    def __init__(self, store: ObjectStore, jobs: JobStore, wall_clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._jobs = jobs
        self._wall_clock = wall_clock
        self._folders = JobFolders(store)
        self._audio = JobAudio(store, wall_clock)
        self._scans: dict[str, _Scan] = {}

    def settle(self, shard: str) -> None:
        """Look at the next page of a shard, if there is any that was not looked at."""
        scan = self._scans.get(shard) or self._read(shard)
        self._scans[shard] = scan
        if scan.done or self._wall_clock() < scan.begins_at:
            return
        page = self._store.list(keys.jobs(shard), after=scan.after, limit=PAGE)
        of_jobs = [(job, list(found)) for job, found in groupby((info.key for info in page.items), _folder)]
        if page.next_after is not None and len(of_jobs) > 1:
            of_jobs.pop()  # perhaps cut in two: it begins the next page
        for folder, found in of_jobs:
            ref = JobRef(tenant=DEFAULT_TENANT, job_id=folder.rpartition("/")[2])
            try:
                self._look_at(ref, {key.rpartition("/")[2] for key in found})
            except (ObjectCorrupt, ObjectNotFound, ValueError) as error:  # it keeps no other
                logs.failure("older_job_not_settled", error, job_id=ref.job_id)
        last = of_jobs[-1][1][-1] if of_jobs else ""
        self._write(shard, replace(scan, after=last, done=page.next_after is None))

    def _look_at(self, ref: JobRef, names: set[str]) -> None:
        found = states.standing(names)
        if found.outcome is None or found.gone or not found.exists or any(name.startswith("audio-") for name in names):
            return
        outcome = self._folders.read(ref, states.outcome_name(found.outcome, found.generation), JobOutcome)
        if outcome.expires_at is not None:
            return
        if outcome.audio is not None:
            self._audio.refer(ref, outcome.audio.name)
        self._jobs.settle(self._folders.read(ref, REQUEST, JobRequest), outcome)
        logs.event("older_job_settled", job_id=ref.job_id, state=outcome.state)

    def _read(self, shard: str) -> _Scan:
        try:
            told: Mapping[str, object] = json.loads(self._store.get(keys.scanned(shard)).body)
            return _Scan(str(told["after"]), float(str(told["begins_at"])), bool(told["done"]))
        except (ObjectNotFound, ObjectCorrupt, ValueError, KeyError, TypeError):
            begins = _Scan("", self._wall_clock() + SETTLES_AFTER_S, done=False)
            self._write(shard, begins)
            return begins

    def _write(self, shard: str, scan: _Scan) -> None:
        told = {"schema_version": 1, "after": scan.after, "begins_at": scan.begins_at, "done": scan.done}
        self._store.put(keys.scanned(shard), json.dumps(told).encode(), content_type="application/json")
        self._scans[shard] = scan


def _folder(key: str) -> str:
    return key.rpartition("/")[0]
