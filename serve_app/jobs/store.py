"""Reads and writes the records of jobs: which of them exist is the state (`states`), so no process can lose it.

    submit   list entry -> request -> marker -> the client gets its 202
    run      run-N -> progress ... -> audio -> reference -> outcome
    settle   list entry of the outcome, expiry, webhook; then the marker goes, last, so that a crash is made good

Keys are immutable and deterministic, so nothing needs compare-and-swap: a record written twice is the same record. A
read that finds a request with neither marker nor outcome restores the marker. Where the store proved conditional
writes (`exclusive`) they save double work: one owner of a run, one outcome. Knows nothing of HTTP, Ray or models; all
methods block on the store, so async callers run them in a thread.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence

from serve_app import keys
from serve_app.errors import Conflict, JobExpired, JobNotFound, ObjectNotFound
from serve_app.jobs import states
from serve_app.jobs.folders import JobFolders
from serve_app.jobs.lists import JobLists, ListName
from serve_app.jobs.outbox import Letter, Outbox
from serve_app.jobs.progress import drop_progress, keeps_progress
from serve_app.jobs.records import (
    AudioRecord,
    ErrorRecord,
    JobOutcome,
    JobRef,
    JobRequest,
    JobRetry,
    JobRun,
    Marker,
    OutcomeState,
    RunEnd,
    marker_of,
    parse_marker,
)
from serve_app.jobs.states import REQUEST, Standing
from serve_app.jobs.status import JobStatus, removed_at
from serve_app.storage import ObjectStore

__all__ = ["JobStore"]

JSON = "application/json"
RETRYABLE = ("failed", "expired")
CANCELLED = "a client cancelled the job"


class JobStore:
    """`exclusive`: the store proved conditional writes (`storage.conditions_hold`). `wall_clock`: Unix seconds."""

    def __init__(
        self, store: ObjectStore, *, exclusive: bool = False, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._folders = JobFolders(store, exclusive=exclusive)
        self._wall_clock = wall_clock
        self._lists = JobLists(store)
        self._outbox = Outbox(store)

    def submit(self, request: JobRequest) -> None:
        """Make the job durable. When this returns, a client may be told 202."""
        self._lists.put(request, "open")
        self._folders.write(request.ref, REQUEST, request)
        self._mark(marker_of(request))

    def standing(self, ref: JobRef) -> Standing:
        """The state by one listing, whether the job exists or not."""
        return self._folders.standing(ref)

    def status(self, ref: JobRef) -> JobStatus:
        """The state of a job. Ends one that is past its ttl. Raises JobNotFound, or JobExpired where its result is
        removed."""
        found = self.standing(ref)
        if found.gone:
            raise _expired(ref)
        if not found.exists:
            raise JobNotFound(f"job {ref.job_id!r} does not exist: check the id that the submitting call returned")
        request = self._folders.read(ref, REQUEST, JobRequest)
        if found.outcome is not None:
            outcome = self._folders.read(ref, states.outcome_name(found.outcome, found.generation), JobOutcome)
            if self._wall_clock() >= removed_at(outcome, found):
                raise _expired(ref)
            return JobStatus(request=request, state=found.state, standing=found, outcome=outcome)
        run = self._folders.read(ref, states.run_name(found.run), JobRun) if found.runs else None
        if self._wall_clock() >= self.deadline(request, found):
            return self._ended_by_ttl(request, found, run)
        self._restore_marker(marker_of(request, found.generation))
        end = self._folders.read(ref, states.ended_name(found.run, found.reason), RunEnd) if found.reason else None
        return JobStatus(request=request, state=found.state, standing=found, run=run, run_end=end)

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

    def end_run(self, end: RunEnd) -> None:
        """Record that a run ended without an outcome: the job waits again."""
        self._folders.write(end.ref, states.ended_name(end.run, end.reason), end)

    def finish(self, outcome: JobOutcome) -> JobOutcome:
        """End the job, and say which outcome counts: another owner or a client may have ended it before."""
        found = self.standing(outcome.ref)
        if found.gone or not found.exists:
            raise _expired(outcome.ref)
        if found.generation != outcome.generation:
            raise Conflict(f"job {outcome.job_id} was retried meanwhile: its {outcome.state} run counts no more")
        if found.outcome is None and self._folders.exclusive:
            name = states.ending_name(outcome.generation)
            if not self._folders.write_once(outcome.ref, name, outcome):
                outcome = self._folders.read(outcome.ref, name, JobOutcome)
        if found.outcome is None:
            self._folders.write(outcome.ref, states.outcome_name(outcome.state, outcome.generation), outcome)
            return outcome
        return self._folders.read(outcome.ref, states.outcome_name(found.outcome, found.generation), JobOutcome)

    def settle(self, request: JobRequest, outcome: JobOutcome) -> None:
        """All that follows from an outcome. Doing it again is harmless, and a marker that is left over has it done."""
        self._lists.put(request, outcome.state)
        self._lists.expire(request.ref, outcome.removed_at)
        if request.webhook is not None and not self.standing(request.ref).notified:
            self._outbox.put(Letter(request.ref, outcome.generation))
        self._lists.remove(request, "open")
        if keeps_progress(request) and outcome.state not in RETRYABLE:
            drop_progress(self._store, request.ref)
        if outcome.state in RETRYABLE or not self._folders.exclusive:
            self._amend_lists(request, outcome)
        self.clear_marker(marker_of(request, outcome.generation), older=request.audio_s is None)

    def settle_removed(self, ref: JobRef) -> None:
        """Settle a job whose retention was over before anybody did: only then is it removed, and its webhook sent."""
        found = self.standing(ref)
        if found.exists and not found.gone and found.outcome is not None:
            request = self._folders.read(ref, REQUEST, JobRequest)
            name = states.outcome_name(found.outcome, found.generation)
            self.settle(request, self._folders.read(ref, name, JobOutcome))

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
        self._mark(marker_of(request, again.generation))
        self._lists.put(request, "open")  # once more: what settles the end may have removed it, not knowing of `again`
        self._lists.remove(request, status.outcome.state)
        return self.status(ref)

    def cancel(self, ref: JobRef) -> JobStatus:
        """End a job that is not ended, at a client's word; its run stops when its replica sees it."""
        status = self.status(ref)
        if status.outcome is not None:
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
        return self.ended(status, "completed", None).model_copy(update=spoken)

    def clear_marker(self, marker: Marker, *, older: bool = False) -> None:
        """Take an ended job off the pending list; `older`: the marker of the version before this one too."""
        self._store.delete(marker.key)
        if older:
            self._store.delete(marker.older_key)

    def is_marked(self, marker: Marker) -> bool:
        """Whether the job is on the pending list."""
        try:
            self._store.head(marker.key)
        except ObjectNotFound:
            return False
        return True

    def unended(self, shard: str) -> Iterator[Marker]:
        """All jobs of `shard` that are not ended, the oldest first, read a page at a time."""
        prefix, after = keys.pending(shard), ""
        while True:
            page = self._store.list(prefix, after=after)
            markers = (parse_marker(info.key.removeprefix(prefix)) for info in page.items)
            yield from (marker for marker in markers if marker is not None)
            if page.next_after is None:
                return
            after = page.next_after

    def pending(self, shard: str, *, limit: int, after: str = "") -> Sequence[Marker]:
        """The oldest jobs of `shard` that are not ended, at most `limit`, from behind the marker of the name `after`;
        what is no marker is passed over."""
        prefix = keys.pending(shard)
        page = self._store.list(prefix, after=after and prefix + after, limit=limit)
        markers = (parse_marker(info.key.removeprefix(prefix)) for info in page.items)
        return [marker for marker in markers if marker is not None]

    def _amend_lists(self, request: JobRequest, outcome: JobOutcome) -> None:
        """Where another outcome was written meanwhile, or a retry: of all that write an entry and then look, the last
        one sees what counts."""
        names = self._folders.names(request.ref)
        found = states.standing(names)
        counts: ListName = found.outcome or "open"
        if counts != outcome.state:
            self._lists.put(request, counts)
        for state in {outcome.state, *states.outcomes_of(names, found.generation)} - {counts}:
            self._lists.remove(request, state)

    def _mark(self, marker: Marker) -> None:
        self._store.put(marker.key, b"", content_type=JSON)

    def _restore_marker(self, marker: Marker) -> None:
        if not self.is_marked(marker):
            self._mark(marker)

    def _ended_by_ttl(self, request: JobRequest, found: Standing, run: JobRun | None) -> JobStatus:
        message = f"the job did not end within its ttl of {request.ttl_s:g} s: send it again, or with a longer ttl"
        status = JobStatus(request=request, state=found.state, standing=found, run=run)
        expired = self.ended(status, "expired", ErrorRecord(type="server_error", code="ttl_over", message=message))
        outcome = self.finish(expired)
        self.settle(request, outcome)
        return JobStatus(request=request, state=outcome.state, standing=found, run=run, outcome=outcome)


def _expired(ref: JobRef) -> JobExpired:
    return JobExpired(f"the result of job {ref.job_id} is past its retention and removed: send the request again")
