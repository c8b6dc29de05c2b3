"""Removes what is past its retention: the records of jobs, and audio that no job names any more.

    expiry/{shard}/ -> the job, if it ended and its time is over -> `removing-G` -> if no client had it run again:
    `gone`, 410 from here -> its audio, if nobody else names it -> its records -> after TOMBSTONE_S `gone` itself: 404

An ingress whose clock is behind may have a failed job run again just when it is removed. Both write before they look,
it `again` and this `removing-G` (G: the generation that ended), so at least one sees the other: a removal that sees a
retry is none, and a retry that sees a removal promises nothing. It is told 410 if `gone` is there and else 409, for the
removal may or may not have seen it. `removing-G` says nothing of later generations, and nobody takes it back, so that
this is right however many are at it, and wherever they are killed.

Bounded: a call looks at some due entries of one shard, a few at once. It removes nothing outside audio, results and the
records of jobs and calls, so never what belongs to a voice or a model. Doing it again after a crash is harmless.
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from serve_app import keys, logs
from serve_app.errors import ObjectCorrupt, ObjectNotFound, ServiceError, StorageUnreachable
from serve_app.jobs import states
from serve_app.jobs.audio import STALE_S, JobAudio
from serve_app.jobs.folders import JobFolders
from serve_app.jobs.lists import LISTED, Due, JobLists
from serve_app.jobs.outbox import Letter, Outbox
from serve_app.jobs.records import JobOutcome, JobRef, JobRequest
from serve_app.jobs.results import Results, digest
from serve_app.jobs.settling import RETRYABLE
from serve_app.jobs.states import GONE, REQUEST, Standing
from serve_app.jobs.status import removed_at
from serve_app.storage import ObjectStore

__all__ = ["COLLECT_PAGE", "GRACE_S", "TOMBSTONE_S", "Collector", "removing_name"]

COLLECT_PAGE = 100
AT_ONCE = 8
"""Jobs that are looked at at the same time: a look is some twenty requests, one after the other."""
GRACE_S = 3600.0
"""Audio this young is left: a job that has just written it, or found it again, may be about to name it."""
UNTOLD_S, TOLD_WITHIN_S = 600.0, 86_400.0
"""How soon a job is looked at again whose webhook is still to be sent; and past its time by how much it goes unsent."""
TOMBSTONE_S = 30 * 86_400.0
"""How long a removed job answers 410 rather than 404."""
SPEECH = re.compile(r"speech-([0-9a-f]{64})\.v1")
AUDIO = re.compile(r"audio-([0-9a-f]{64}(?:-[0-9a-f]{8})?)\.v1")
LASTING = (ServiceError, ValueError, KeyError, TypeError)
"""What another look in a moment will find the same: it cannot be read, or the store refuses to remove it. Not where the
store does not answer."""


class Collector:
    """Blocks on the store. `wall_clock`: Unix seconds."""

    def __init__(self, store: ObjectStore, wall_clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._wall_clock = wall_clock
        self._folders = JobFolders(store)
        self._lists = JobLists(store)
        self._outbox = Outbox(store)
        self._results = Results(store, wall_clock)
        self._audio = JobAudio(store, wall_clock)

    def collect(self, shard: str, *, limit: int = COLLECT_PAGE) -> int:
        """Look at what is due in a shard, at most `limit` entries; how many were dealt with."""
        of_one: dict[JobRef, list[Due]] = {}
        for due in self._lists.due(shard, self._wall_clock(), limit=limit):
            of_one.setdefault(due.ref, []).append(due)
        if not of_one:
            return 0
        with ThreadPoolExecutor(min(AT_ONCE, len(of_one)), thread_name_prefix="collect") as pool:
            return sum(pool.map(self._look_at_all, of_one.values()))

    def _look_at_all(self, dues: Sequence[Due]) -> int:
        """The entries of one job; how many were dealt with. What cannot be removed keeps no other."""
        dealt_with = 0
        for due in dues:
            try:
                self._look_at_or_put_off(due)
                dealt_with += 1
            except ServiceError as error:
                logs.failure("not_removed", error, job_id=due.ref.job_id)
        return dealt_with

    def _look_at_or_put_off(self, due: Due) -> None:
        try:
            self._look_at(due)
        except StorageUnreachable:
            raise
        except LASTING as error:
            logs.failure("not_removed", error, job_id=due.ref.job_id)
            # To the full hour: where this entry is not to be removed either, each look until then writes the same one.
            self._put_off(due, GRACE_S - self._wall_clock() % GRACE_S)

    def _put_off(self, due: Due, seconds: float = GRACE_S) -> None:
        """Look at it again later: what cannot be dealt with now is not in the way of what can."""
        self._lists.expire(due.ref, self._wall_clock() + seconds)
        self._lists.done(due)

    def _look_at(self, due: Due) -> None:
        names = self._folders.names(due.ref)
        found = states.standing(names)
        if not found.exists:
            self._end_of(due, names)
        elif found.outcome is not None or found.gone:
            request = self._folders.read(due.ref, REQUEST, JobRequest)
            outcome = self._outcome(due.ref, found)
            if not found.gone and outcome is not None and removed_at(outcome, found) > self._wall_clock():
                # Whoever wrote this outcome may have died before there was an entry of its own.
                self._lists.expire(due.ref, removed_at(outcome, found))
                self._lists.done(due)
            elif self._must_wait(due.ref, names):
                self._put_off(due)
            elif outcome is not None and self._is_to_be_told(request, outcome, found):
                self._put_off(due, UNTOLD_S)
            else:
                since = self._gone_since(due) if found.gone else self._wall_clock()
                self._remove(due, request, outcome, names, since)
        else:
            self._lists.done(due)  # retried since: its end will say when

    def _end_of(self, due: Due, names: set[str]) -> None:
        """What has no request: the answer of a call that was no job, speech that no job asked for, a tombstone, or
        nothing any more."""
        ref = due.ref
        if self._must_wait(ref, names):
            self._put_off(due)
            return
        if GONE in names and self._gone_since(due) + TOMBSTONE_S > self._wall_clock():
            self._lists.done(due)
            return
        if not self._remove_audio(due, names):
            return
        self._forget_speech(ref, names)
        self._store.delete(keys.call(ref.tenant, ref.job_id))
        for name in names:
            self._folders.delete(ref, name)
        self._lists.done(due)

    def _gone_since(self, due: Due) -> float:
        """When it was removed, Unix seconds. A tombstone that does not say it is made to: at this entry's time."""
        try:
            return float(json.loads(self._folders.body(due.ref, GONE))["removed_at"])
        except (ObjectCorrupt, ValueError, KeyError, TypeError):
            since = due.ms / 1000
            self._write_gone(due.ref, {"removed_at": since})
            self._lists.expire(due.ref, since + TOMBSTONE_S)
            return since

    def _write_gone(self, ref: JobRef, times: Mapping[str, float]) -> None:
        gone = {"schema_version": 1, "tenant": ref.tenant, "job_id": ref.job_id, **times}
        self._folders.note(ref, GONE, json.dumps(gone).encode())

    def _is_to_be_told(self, request: JobRequest, outcome: JobOutcome, found: Standing) -> bool:
        """Whether its webhook is still to be sent or given up, which takes what is known of the job; or whoever settles
        its end may be about to write the letter."""
        late_s = self._wall_clock() - removed_at(outcome, found)
        if request.webhook is None or found.notified or found.gone or late_s >= TOLD_WITHIN_S:
            return False
        return late_s < GRACE_S or self._outbox.attempts(Letter(request.ref, found.generation)) is not None

    def _must_wait(self, ref: JobRef, names: set[str]) -> bool:
        """Whether it names audio that nobody may remove yet: a job of an older version may have it, which says so
        nowhere yet, or it was written a moment ago."""
        audio = _named(names)
        return bool(audio) and (not self._audio.all_named() or any(self._is_young(ref, name) for name in audio))

    def _is_young(self, ref: JobRef, name: str) -> bool:
        """Whether this audio would go with the job, and was written a moment ago."""
        if self._audio.is_named(ref.tenant, name, other_than=ref.job_id):
            return False
        try:
            written = self._store.head(keys.audio(ref.tenant, name)).last_modified.timestamp()
        except ObjectNotFound:
            return False
        return written + GRACE_S > self._wall_clock()

    def _remove_audio(self, due: Due, names: set[str]) -> bool:
        """False where others may be at it: then it is put off."""
        if all([self._audio.remove(due.ref, name) for name in _named(names)]):
            return True
        self._put_off(due, STALE_S + 1.0)
        return False

    def _forget_speech(self, ref: JobRef, names: set[str]) -> None:
        for of in (found[1] for name in names if (found := SPEECH.fullmatch(name))):
            self._results.forget(ref, of)

    def _remove(self, due: Due, request: JobRequest, outcome: JobOutcome | None, names: set[str], since: float) -> None:
        tenant, job_id = request.tenant, request.job_id
        if GONE not in names:
            generation = states.standing(names).generation
            if outcome is not None and outcome.state in RETRYABLE:
                self._folders.note(due.ref, removing_name(generation))
                names = self._folders.names(due.ref)
            if states.standing(names).generation != generation:
                return  # a client has it run again: the next look finds it so
            self._write_gone(due.ref, {"removed_at": since, "accepted_at": request.accepted_at})
        for listed in LISTED:  # a crash, or another outcome, may have left an entry anywhere
            self._lists.remove(request, listed)
        if outcome is not None:
            self._results.forget(due.ref, outcome.result_digest or digest(request.speech, outcome.made_by))
        if not self._remove_audio(due, names):
            return
        for generation in range(states.standing(names).generation + 1):
            self._outbox.remove(Letter(due.ref, generation))
        self._store.delete(keys.worker_output(tenant, job_id))
        for name in sorted(names - {GONE, REQUEST}, key=lambda name: states.standing([name]).outcome is not None):
            self._folders.delete(due.ref, name)  # outcomes last: they say what else there is to remove
        self._lists.expire(due.ref, since + TOMBSTONE_S)
        self._folders.delete(due.ref, REQUEST)
        self._lists.done(due)
        logs.event("job_removed", job_id=job_id)

    def _outcome(self, ref: JobRef, found: Standing) -> JobOutcome | None:
        if found.outcome is None:
            return None
        return self._folders.read(ref, states.outcome_name(found.outcome, found.generation), JobOutcome)


def removing_name(generation: int) -> str:
    """Written before a job of this generation is removed that could be run again: no retry is promised from then on."""
    return f"removing-{generation:04d}.v1"


def _named(names: set[str]) -> list[str]:
    """All audio that a job with these records names."""
    return [found[1] for name in names if (found := AUDIO.fullmatch(name))]
