"""Removes what is past its retention: the records of jobs, and audio that no job names any more.

    expiry/{shard}/ -> the job, if it ended and its time is over -> `gone`: 410 from here -> its audio, if nobody else
    names it -> its records -> after TOMBSTONE_S `gone` itself: 404

Bounded: a call looks at some due entries of one shard. It removes nothing outside audio, results and the records of
jobs and calls, so never what belongs to a voice or a model. Doing it again after a crash is harmless.
"""

import json
import re
import time
from collections.abc import Callable

from serve_app import keys, logs
from serve_app.errors import ObjectNotFound, ServiceError
from serve_app.jobs import states
from serve_app.jobs.folders import JobFolders
from serve_app.jobs.lists import Due, JobLists
from serve_app.jobs.outbox import Letter, Outbox
from serve_app.jobs.records import JobOutcome, JobRef, JobRequest
from serve_app.jobs.results import Results, digest
from serve_app.jobs.states import GONE, REQUEST, Standing
from serve_app.jobs.status import removed_at
from serve_app.storage import ObjectStore

__all__ = ["COLLECT_PAGE", "GRACE_S", "TOMBSTONE_S", "Collector"]

COLLECT_PAGE = 100
GRACE_S = 3600.0
"""Audio this young is left: a job that has just written it, or found it again, may be about to name it."""
TOMBSTONE_S = 30 * 86_400.0
"""How long a removed job answers 410 rather than 404."""
SPEECH = re.compile(r"speech-([0-9a-f]{64})\.v1")
AUDIO = re.compile(r"audio-([0-9a-f]{64})\.v1")


class Collector:
    """Blocks on the store. `wall_clock`: Unix seconds."""

    def __init__(self, store: ObjectStore, wall_clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._wall_clock = wall_clock
        self._folders = JobFolders(store)
        self._lists = JobLists(store)
        self._outbox = Outbox(store)
        self._results = Results(store, wall_clock)

    def collect(self, shard: str, *, limit: int = COLLECT_PAGE) -> int:
        """Look at what is due in a shard, at most `limit` entries; how many were dealt with."""
        dealt_with, due = 0, self._lists.due(shard, self._wall_clock(), limit=limit)
        for each in due:
            try:
                self._look_at(each)
                dealt_with += 1
            except (ServiceError, ValueError) as error:  # one broken record keeps no other
                logs.failure("not_removed", error, job_id=each.ref.job_id)
        return dealt_with

    def _look_at(self, due: Due) -> None:
        names = self._folders.names(due.ref)
        found = states.standing(names)
        if not found.exists:
            self._end_of(due, names)
        elif found.outcome is not None or found.gone:
            request = self._folders.read(due.ref, REQUEST, JobRequest)
            outcome = self._outcome(due.ref, found)
            if not found.gone and outcome is not None and removed_at(outcome, found) > self._wall_clock():
                self._lists.done(due)  # another entry says when
            elif any(self._is_young(due.ref, sha256) for sha256 in _named(names)):
                self._lists.expire(due.ref, self._wall_clock() + GRACE_S)
                self._lists.done(due)
            else:
                self._remove(due, request, outcome, names)
        else:
            self._lists.done(due)  # retried since: its end will say when

    def _end_of(self, due: Due, names: set[str]) -> None:
        """What has no request: the answer of a call that was no job, speech that no job asked for, a tombstone, or
        nothing any more."""
        ref = due.ref
        if any(self._is_young(ref, sha256) for sha256 in _named(names)):
            self._lists.expire(ref, self._wall_clock() + GRACE_S)
            self._lists.done(due)
            return
        if GONE in names:
            removed = json.loads(self._folders.body(ref, GONE))["removed_at"]
            if removed + TOMBSTONE_S > self._wall_clock():
                self._lists.done(due)
                return
        for sha256 in _named(names):
            self._results.remove(ref, sha256)
        for of in (found[1] for name in names if (found := SPEECH.fullmatch(name))):
            self._results.forget(ref, of)
        self._store.delete(keys.call(ref.tenant, ref.job_id))
        for name in names:
            self._folders.delete(ref, name)
        self._lists.done(due)

    def _is_young(self, ref: JobRef, sha256: str) -> bool:
        """Whether this audio would go with the job, and was written a moment ago."""
        if self._results.is_named(ref.tenant, sha256, other_than=ref.job_id):
            return False
        try:
            written = self._store.head(keys.audio(ref.tenant, sha256)).last_modified.timestamp()
        except ObjectNotFound:
            return False
        return written + GRACE_S > self._wall_clock()

    def _remove(self, due: Due, request: JobRequest, outcome: JobOutcome | None, names: set[str]) -> None:
        tenant, job_id, now = request.tenant, request.job_id, self._wall_clock()
        gone = json.dumps({"schema_version": 1, "tenant": tenant, "job_id": job_id, "removed_at": now}).encode()
        self._folders.note(due.ref, GONE, gone)
        if outcome is not None:
            self._lists.remove(request, outcome.state)
            self._results.forget(due.ref, digest(request.speech, outcome.made_by))
        for sha256 in _named(names):
            self._results.remove(due.ref, sha256)
        for generation in range(states.standing(names).generation + 1):
            self._outbox.remove(Letter(due.ref, generation))
        self._store.delete(keys.worker_output(tenant, job_id))
        for name in sorted(names - {GONE, REQUEST}, key=lambda name: states.standing([name]).outcome is not None):
            self._folders.delete(due.ref, name)  # outcomes last: they say what else there is to remove
        self._lists.expire(due.ref, now + TOMBSTONE_S)
        self._folders.delete(due.ref, REQUEST)
        self._lists.done(due)
        logs.event("job_removed", job_id=job_id)

    def _outcome(self, ref: JobRef, found: Standing) -> JobOutcome | None:
        if found.outcome is None:
            return None
        return self._folders.read(ref, states.outcome_name(found.outcome, found.generation), JobOutcome)


def _named(names: set[str]) -> list[str]:
    """The sha256 of all audio that a job with these records names."""
    return [found[1] for name in names if (found := AUDIO.fullmatch(name))]
