"""Settles what a version without lists and retention had ended, so that it is listed, kept and removed as all else is.

    collector/scanned-v1/{shard}    how far the looks through the jobs of a shard have come, or that they are over
    collector/named-v1/{shard}      the first look through it is over: its jobs name their audio

Such a job has an outcome that does not say when it is removed, and names its audio nowhere else. So there are two
looks: the first names all audio; when it is over in every shard, the second settles. Only then is any audio removed,
whoever names it (`JobAudio.all_named`): an older job that nobody has looked at yet may be the one that wants it.

A turn is one page; doing it again is harmless, and once a shard was looked through it is asked for no more. It begins
an hour after the first Jobs replica of this version, when none of the version before ends jobs any more, and is over at
the first job accepted since, so it ends however fast new ones come. Only the default tenant: that version had no other.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
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
TIME = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7")


@dataclass(frozen=True, slots=True)
class _Scan:
    """`after`: the key that the next page begins behind. `begins_at`: Unix seconds. `named`: the first look is over;
    `done`: the second too."""

    after: str
    begins_at: float
    named: bool = False
    done: bool = False


class OlderJobs:
    """Blocks on the store. `wall_clock`: Unix seconds."""

    def __init__(self, store: ObjectStore, jobs: JobStore, wall_clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._jobs = jobs
        self._wall_clock = wall_clock
        self._folders = JobFolders(store)
        self._audio = JobAudio(store, wall_clock)
        self._done: set[str] = set()

    def settle(self, shard: str) -> None:
        """Look at the next page of a shard, if there is any that was not looked at."""
        if shard in self._done:
            return
        scan = self._read(shard)  # each time: a shard may have been another replica's meanwhile
        if scan.done:
            self._done.add(shard)
        elif self._wall_clock() >= scan.begins_at and (not scan.named or self._audio.all_named()):
            self._look(shard, scan)

    def _look(self, shard: str, scan: _Scan) -> None:
        page = self._store.list(keys.jobs(shard), after=scan.after, limit=PAGE)
        of_jobs = [(job, list(found)) for job, found in groupby((info.key for info in page.items), _folder)]
        if page.next_after is not None and len(of_jobs) > 1:
            of_jobs.pop()  # perhaps cut in two: it begins the next page
        after, is_over = scan.after, page.next_after is None
        for folder, found in of_jobs:
            ref = JobRef(tenant=DEFAULT_TENANT, job_id=folder.rpartition("/")[2])
            if _is_since(ref, scan.begins_at):
                is_over = True
                break
            if not self._is_looked_at(ref, {key.rpartition("/")[2] for key in found}, scan):
                is_over = False
                break
            after = found[-1]
        if is_over and not scan.named:
            self._audio.note_named(shard)
            self._write(shard, replace(scan, after="", named=True))
        else:
            self._write(shard, replace(scan, after=after, done=is_over))

    def _is_looked_at(self, ref: JobRef, names: set[str], scan: _Scan) -> bool:
        """False where the next page is to begin with this job again."""
        found = states.standing(names)
        if found.outcome is None or found.gone or not found.exists:
            return True
        try:
            outcome = self._folders.read(ref, states.outcome_name(found.outcome, found.generation), JobOutcome)
            if outcome.expires_at is not None:
                return True
            if outcome.audio is not None and not self._is_named(ref, names, outcome.audio.name, scan):
                return False
            if scan.named:
                self._jobs.settle(self._folders.read(ref, REQUEST, JobRequest), outcome)
                logs.event("older_job_settled", job_id=ref.job_id, state=outcome.state)
        except (ObjectCorrupt, ObjectNotFound, ValueError) as error:  # it keeps no other
            logs.failure("older_job_not_settled", error, job_id=ref.job_id)
        return True

    def _is_named(self, ref: JobRef, names: set[str], audio: str, scan: _Scan) -> bool:
        """Have the job name its audio; False where somebody may be removing that just now, for up to STALE_S."""
        if scan.named and f"audio-{audio}.v1" in names:
            return True
        return self._audio.refer(ref, audio) or self._audio.cleared(ref.tenant, audio)

    def _read(self, shard: str) -> _Scan:
        try:
            told: Mapping[str, object] = json.loads(self._store.get(keys.scanned(shard)).body)
            begins_at = float(str(told["begins_at"]))
            if "named" not in told:  # by a version that knew one look only
                return _Scan("", begins_at)
            return _Scan(str(told["after"]), begins_at, bool(told["named"]), bool(told["done"]))
        except (ObjectNotFound, ObjectCorrupt, ValueError, KeyError, TypeError):
            begins = _Scan("", self._wall_clock() + SETTLES_AFTER_S)
            self._write(shard, begins)
            return begins

    def _write(self, shard: str, scan: _Scan) -> None:
        told = {"schema_version": 1, **asdict(scan)}
        self._store.put(keys.scanned(shard), json.dumps(told).encode(), content_type="application/json")


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _is_since(ref: JobRef, begins_at: float) -> bool:
    """Whether the job was accepted after that (Unix seconds), as its id says: a UUIDv7 begins with the time."""
    return (found := TIME.match(ref.job_id)) is not None and int(found[1] + found[2], 16) > 1000 * begins_at
