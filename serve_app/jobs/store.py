"""Reads and writes the records of jobs: which of them exist is the state (`states`), so no process can lose it.

    submit   request -> list entry -> marker -> the client gets its 202
    run      list entry of what was begun -> run-N -> progress ... -> audio -> reference -> outcome
    settle   all that follows from the outcome (`settling`); the marker goes, last, so that a crash is made good

Keys are immutable and deterministic, so nothing needs compare-and-swap: a record written twice is the same record. A
read that finds a request with neither marker nor outcome restores entry and marker. Where the store proved conditional
writes (`exclusive`) they save double work: one owner of a run, one outcome. Knows nothing of HTTP, Ray or models; all
methods block on the store, so async callers run them in a thread.
"""

import json
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Executor

from serve_app.errors import Conflict, JobNotFound, ObjectNotFound
from serve_app.jobs import states
from serve_app.jobs.collector import removing_name
from serve_app.jobs.endings import Endings, job_expired
from serve_app.jobs.folders import JobFolders
from serve_app.jobs.lists import JobLists
from serve_app.jobs.markers import Markers
from serve_app.jobs.outbox import Letter, Outbox
from serve_app.jobs.records import (
    AudioRecord,
    ErrorRecord,
    JobOutcome,
    JobRef,
    JobRequest,
    JobRetry,
    JobRun,
    OutcomeState,
    RunEnd,
    marker_of,
)
from serve_app.jobs.results import digest
from serve_app.jobs.settling import RETRYABLE, Settling
from serve_app.jobs.states import REQUEST, Standing
from serve_app.jobs.status import JobStatus, removed_at
from serve_app.storage import ObjectStore

__all__ = ["JobStore"]

CANCELLED = "a client cancelled the job"


class JobStore:
    """`exclusive`: the store proved conditional writes (`storage.conditions_hold`). `wall_clock`: Unix seconds.
    `kept_bytes`: of records that are remembered for the next question; `pool`: where two are read at once.
    `markers`: those of all jobs."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        exclusive: bool = False,
        wall_clock: Callable[[], float] = time.time,
        kept_bytes: int = 0,
        pool: Executor | None = None,
    ) -> None:
        self._store = store
        self._folders = JobFolders(store, exclusive=exclusive, kept_bytes=kept_bytes, pool=pool)
        self._endings = Endings(self._folders)
        self._wall_clock = wall_clock
        self._lists = JobLists(store)
        self.markers = Markers(store)
        self._outbox = Outbox(store)
        self._settling = Settling(store, self._folders, self.markers, wall_clock)

    def submit(self, request: JobRequest) -> JobRequest:
        """Make the job durable. When this returns, a client may be told 202.

        The request that counts: of several with one idempotency key another may have been the first. Raises JobExpired
        where its result is removed already.
        """
        if request.body_sha256 is None:
            self._folders.write(request.ref, REQUEST, request)
        elif not self._is_first_with_key(request):
            return self.status(request.ref).request
        self._lists.put(request, "open")
        self.markers.put(marker_of(request))
        return request

    def standing(self, ref: JobRef) -> Standing:
        """The state by one listing, whether the job exists or not."""
        return self._folders.standing(ref)

    def status(self, ref: JobRef, *, past: bool = False) -> JobStatus:
        """The state of a job. Ends one that is past its ttl, or whose end was announced. Raises JobNotFound, or
        JobExpired where its result is past its time, with `past` only where it is removed."""
        try:
            return self._look(ref, past)
        except (ObjectNotFound, Conflict):  # removed or retried, after it was listed: another look tells
            return self._look(ref, past)

    def _look(self, ref: JobRef, past: bool) -> JobStatus:
        found = self._endings.standing(ref)
        if found.gone:
            raise job_expired(ref)
        if not found.exists:
            raise JobNotFound(f"job {ref.job_id!r} does not exist: check the id that the submitting call returned")
        if found.outcome is not None:
            ended = self._folders.ahead(ref, states.outcome_name(found.outcome, found.generation), JobOutcome)
            request, outcome = self._request(ref), ended()
            if not past and self._wall_clock() >= removed_at(outcome, found):
                raise job_expired(ref)
            return JobStatus(request=request, state=found.state, standing=found, outcome=outcome)
        begun = self._folders.ahead(ref, states.run_name(found.run), JobRun) if found.runs else None
        request = self._request(ref)
        run = begun() if begun else None
        if self._wall_clock() >= self.deadline(request, found):
            return self._ended_by_ttl(request, found, run)
        self._restore_marker(request, found.generation)
        end = self._folders.read(ref, states.ended_name(found.run, found.reason), RunEnd) if found.reason else None
        return JobStatus(request=request, state=found.state, standing=found, run=run, run_end=end)

    def restore(self, ref: JobRef, generation: int) -> None:
        """What `status` restores of a job that is not ended; without the pool, so that a task of it may call this."""
        self._restore_marker(self._request(ref), generation)

    def deadline(self, request: JobRequest, found: Standing) -> float:
        """When the job's ttl is over, Unix seconds; infinite where it has none. A retry begins it anew."""
        if request.ttl_s is None:
            return float("inf")
        if not found.generation:
            return request.accepted_at + request.ttl_s
        again = self._folders.read(request.ref, states.again_name(found.generation, found.runs_before), JobRetry)
        return again.asked_at + request.ttl_s

    def begin(self, request: JobRequest, *, run: int, owner: str, started_at: float, token: str = "") -> JobRun | None:
        """Record that `owner` starts run number `run` (1 is the first). None: another owner has begun this run.

        Tried again with the same `token` (by default a fresh one) it knows what it wrote before as its own.
        """
        self._lists.put(request, "begun")
        record = JobRun(
            tenant=request.tenant,
            job_id=request.job_id,
            run=run,
            owner=owner,
            started_at=started_at,
            token=token or secrets.token_hex(8),
        )
        if self._folders.write_once(request.ref, states.run_name(run), record):
            return record
        return record if self._folders.read(request.ref, states.run_name(run), JobRun) == record else None

    def is_owned(self, run: JobRun) -> bool:
        """Whether `run` is the one that lies in the store: of two that began a number the last to write has it."""
        if self._folders.exclusive:
            return True
        try:
            return self._folders.read(run.ref, states.run_name(run.run), JobRun).token == run.token
        except ObjectNotFound:
            return False

    def end_run(self, end: RunEnd) -> None:
        """Record that a run ended without an outcome: the job waits again."""
        self._folders.write(end.ref, states.ended_name(end.run, end.reason), end)

    def finish(self, outcome: JobOutcome) -> JobOutcome:
        """End the job, and say which outcome counts: another owner or a client may have ended it before."""
        return self._endings.finish(outcome)

    def settle(self, request: JobRequest, outcome: JobOutcome) -> None:
        """All that follows from an outcome. Doing it again is harmless, and a marker that is left over has it done."""
        self._settling.settle(request, outcome)

    def settle_removed(self, ref: JobRef) -> None:
        """Settle a job whose retention was over before anybody did."""
        self._settling.settle_removed(ref)

    def notified(self, outcome: JobOutcome, *, sent: bool, attempts: int) -> None:
        """Record that the job's webhook was sent, or given up: it is not sent again."""
        told = {"schema_version": 1, "tenant": outcome.tenant, "job_id": outcome.job_id, "sent": sent}
        body = json.dumps(told | {"attempts": attempts}).encode()
        self._folders.note(outcome.ref, states.notified_name(outcome.generation), body)
        self._outbox.remove(Letter(outcome.ref, outcome.generation))

    def hand_out(self, ref: JobRef) -> bool:
        """Whether this is the first time that the job's output is streamed: it is handed out once."""
        return self._folders.note_once(ref, states.STREAMED)

    def shorten(self, request: JobRequest, until: float, generation: int = 0) -> None:
        """Remove the result of this generation at `until` (Unix seconds), where that is sooner than it would be."""
        self._folders.note(request.ref, states.expires_name(until, generation))
        self._lists.expire(request.ref, until)

    def retry(self, ref: JobRef) -> JobStatus:
        """Queue a failed or expired job again. Raises Conflict for any other state, JobNotFound or JobExpired."""
        status = self.status(ref)
        if status.outcome is None or status.outcome.state not in RETRYABLE:
            raise Conflict(f"job {ref.job_id} is {status.state}: only one that failed or expired can be retried")
        found, request = status.standing, status.request
        again = JobRetry(
            tenant=ref.tenant,
            job_id=ref.job_id,
            generation=found.generation + 1,
            after_run=found.run,
            asked_at=self._wall_clock(),
        )
        self._lists.put(request, "open")
        self._folders.write(ref, states.again_name(again.generation, again.after_run), again)
        self.markers.put(marker_of(request, again.generation))
        self._lists.put(request, "open")  # once more: what settles the end may have removed it, not knowing of `again`
        self._lists.remove(request, status.outcome.state)
        names = self._folders.names(ref)
        if states.GONE in names:
            raise job_expired(ref)
        if removing_name(found.generation) in names:  # see `Collector`
            raise Conflict(
                f"job {ref.job_id} was about to be removed when it was retried: ask for its status, which says whether "
                "it waits now, and will be run, or has expired"
            )
        return self.status(ref)

    def cancel(self, ref: JobRef, *, begun: bool = True) -> JobStatus:
        """End a job that is not ended, at a client's word; its run stops when its replica sees it, and without `begun`
        one that runs is left alone."""
        status = self.status(ref)
        if status.outcome is not None or (status.state != "queued" and not begun):
            return status
        outcome = self.ended(status, "cancelled", ErrorRecord(type="canceled", code="cancelled", message=CANCELLED))
        self.settle(status.request, self.finish(outcome))
        return self.status(ref)

    def ended(self, status: JobStatus, state: OutcomeState, error: ErrorRecord | None) -> JobOutcome:
        """An outcome without audio, now, of the job as it stands."""
        now, request = self._wall_clock(), status.request
        return JobOutcome(
            tenant=request.tenant,
            job_id=request.job_id,
            state=state,
            run=status.standing.run,
            started_at=status.run.started_at if status.run else now,
            finished_at=now,
            model=request.speech.model,
            seed=request.speech.seed,
            error=error,
            generation=status.standing.generation,
            expires_at=now + request.retention_s,
        )

    def completed(
        self, status: JobStatus, audio: AudioRecord, draft: bool, units: int, made_by: str, *, cached: bool = False
    ) -> JobOutcome:
        """An outcome with audio, now, of the job as it stands."""
        spoken = {"audio": audio, "draft": draft, "units": units, "made_by": made_by, "cached": cached}
        spoken["result_digest"] = digest(status.request.speech, made_by)
        return self.ended(status, "completed", None).model_copy(update=spoken)

    def _request(self, ref: JobRef) -> JobRequest:
        """Of one that came with an idempotency key two may be written, where the store has no conditional writes, and
        the last one counts: read anew there."""
        only, keeps = self._folders.exclusive, lambda request: only or request.body_sha256 is None
        return self._folders.kept(ref, REQUEST, JobRequest, keeps=keeps)

    def _is_first_with_key(self, request: JobRequest) -> bool:
        """Write a request that came with an idempotency key; False where another one is the job's.

        Where the store proved conditional writes there is one in any order. Elsewhere two that come within a moment
        may both be written: then whoever reads the last one gives way to it.
        """
        if self._folders.exclusive:
            return self._folders.write_once(request.ref, REQUEST, request)
        if REQUEST not in self._folders.names(request.ref):
            self._folders.write(request.ref, REQUEST, request)
        return self._folders.read(request.ref, REQUEST, JobRequest) == request

    def _restore_marker(self, request: JobRequest, generation: int) -> None:
        """The marker of a job that is not ended, and the list entry before it, which a marker stands for."""
        marker = marker_of(request, generation)
        if not self.markers.was_there(marker):
            self._lists.put(request, "open")
            self.markers.put(marker)

    def _ended_by_ttl(self, request: JobRequest, found: Standing, run: JobRun | None) -> JobStatus:
        message = f"the job did not end within its ttl of {request.ttl_s:g} s: send it again, or with a longer ttl"
        status = JobStatus(request=request, state=found.state, standing=found, run=run)
        expired = self.ended(status, "expired", ErrorRecord(type="server_error", code="ttl_over", message=message))
        outcome = self.finish(expired)
        self.settle(request, outcome)
        return JobStatus(request=request, state=outcome.state, standing=found, run=run, outcome=outcome)
