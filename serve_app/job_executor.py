"""One run of one job: begin -> speak -> encode -> store audio -> outcome -> settle.

Every step is written so that doing it twice is harmless: audio is content-addressed, and an outcome has one key.
Knows nothing of HTTP, Ray, models, or of which job to run when.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from serve_app import logs
from serve_app.audio import Encoding, encode
from serve_app.domain import Speech, SpeechRequest
from serve_app.errors import Conflict, InvalidRequest, NotFound, PoisonJob, ReplicaLost
from serve_app.heartbeats import Counters
from serve_app.job_models import ModelProgress, Models
from serve_app.job_retries import counts_as_failed, given_up, is_over, pause_s, too_late
from serve_app.job_strikes import Strikes
from serve_app.jobs import (
    AudioRecord,
    ErrorRecord,
    JobOutcome,
    JobRef,
    JobRequest,
    JobRun,
    JobStatus,
    JobStore,
    Results,
    RunEnd,
    RunEndReason,
    Standing,
)
from serve_app.patience import PATIENCE_S, Patience, logged, patiently
from serve_app.storage import ObjectStore
from serve_app.unit_speech import Progress

__all__ = ["PATIENCE_S", "ExecutorSettings", "JobExecutor", "Speak"]

T = TypeVar("T")
WAV = Encoding.of("wav")
LAST_WRITES_S = 5.0
"""What a replica that is stopped gives to writes which end a run."""


class Speak(Protocol):
    """`speech.Speaker.speak`."""

    async def __call__(self, request: SpeechRequest, progress: Progress) -> Speech: ...


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """See JobsSettings for what the numbers mean."""

    replica_id: str
    max_runs: int
    execution_timeout_s: float
    execution_per_audio: float


class JobExecutor:
    """Runs jobs as one replica; a job that failed in `max_runs` runs is failed for good."""

    def __init__(
        self,
        store: ObjectStore,
        jobs: JobStore,
        speak: Speak,
        settings: ExecutorSettings,
        counters: Counters,
        models: Models,
        wall_clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._results = Results(store, wall_clock)
        self._speak = speak
        self._settings = settings
        self._counters = counters
        self._models = models
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._ended_elsewhere: set[JobRef] = set()
        self._current: dict[JobRef, JobRun] = {}

    def run_of(self, ref: JobRef) -> JobRun | None:
        """The run that goes on here; None before it has begun, and while it is being ended."""
        return self._current.get(ref)

    def ended_elsewhere(self, ref: JobRef) -> None:
        """The job has its outcome, or another replica runs it: the run here is cancelled next, and says nothing."""
        self._ended_elsewhere.add(ref)

    async def execute(self, ref: JobRef, after_run: int | None = None) -> bool:
        """Run the job once. True when it has ended; False when it is still pending and may be run again.

        `after_run`: the last run of it that the caller saw, which is over (0: there was none); None: nothing was looked
        at. A job that has been begun since is left to whoever did.
        Raises nothing but CancelledError, after it has said in the store that the run is over: whatever else goes
        wrong is logged, and the job stays pending.
        """
        try:
            status = await asyncio.to_thread(self._jobs.status, ref)
            self._models.learn(ref, status.request.speech.model)
            with logs.bind(request_id=status.request.speech.request_id, job_id=ref.job_id):
                if status.outcome is not None:
                    if await asyncio.to_thread(self._jobs.markers.has, status.marker):
                        await asyncio.to_thread(self._jobs.settle, status.request, status.outcome)
                    return True
                found = status.standing
                if found.run != after_run if after_run is not None else found.state != "queued":
                    logs.event("run_is_anothers", run=found.run)
                    return False
                return await self._run(status)
        except Exception as error:
            logs.failure("job_left_pending", error, job_id=ref.job_id)
            return False
        finally:
            self._ended_elsewhere.discard(ref)
            self._current.pop(ref, None)

    async def _run(self, status: JobStatus) -> bool:
        if self._is_own_run(status):  # its end could not be written: it is written now, and counts as no loss
            await self._end_run(status, "waiting", pause_s(status.standing, None), None)
            return False
        request, found = status.request, status.standing
        if is_over(found, self._settings.max_runs):
            return await self._finish(request, self._jobs.ended(status, "failed", ErrorRecord.of(given_up(status))))
        run = found.run + 1
        token, now, owner = secrets.token_hex(8), self._wall_clock(), self._settings.replica_id
        begin = partial(self._jobs.begin, request, run=run, owner=owner, started_at=now, token=token)
        began = await self._patiently(partial(asyncio.to_thread, begin))
        if began is None:
            logs.event("run_is_anothers", run=run)
            return False
        self._current[request.ref] = began
        self._counters.retried += run > 1
        logs.event("job_started", run=run)
        status = status.model_copy(update={"run": began, "standing": _after_begin(found, run)})
        patience, strikes = Patience(self._sleep), Strikes()
        progress = ModelProgress(self._models, self._store, request, run, strikes.suspects, patience)
        try:
            return await self._speak_and_end(status, progress, strikes, patience)
        except Exception as error:
            return await self._to_its_end(self._failed(status, progress, error), request.ref)

    async def _speak_and_end(
        self, status: JobStatus, progress: ModelProgress, strikes: Strikes, patience: Patience
    ) -> bool:
        """True. Raises an error for which another run is worth while."""
        request = status.request
        limit = asyncio.timeout(limit_s := self._limit_s(request, status))
        try:
            async with limit:
                with self._models.run(progress, limit):
                    outcome = await self._speech(status, progress, strikes, patience)
        except asyncio.CancelledError:
            if request.ref not in self._ended_elsewhere:
                await asyncio.shield(self._let_go(status, progress))
            raise
        except (InvalidRequest, NotFound, Conflict, PoisonJob) as error:  # wrong in itself: no other run can help
            await self._keep_spoken(progress)
            return await self._finish(request, self._jobs.ended(status, "failed", ErrorRecord.of(error)))
        except Exception:
            if progress.gave_way is not None:
                raise progress.gave_way from None
            if not limit.expired():
                raise
            progress.over()
            await self._keep_spoken(progress)
            late = too_late(status.standing.run, limit_s)
            return await self._finish(request, self._jobs.ended(status, "expired", ErrorRecord.of(late)))
        return await self._finish(request, outcome)

    def _is_own_run(self, status: JobStatus) -> bool:
        run, end = status.run, status.run_end
        return run is not None and end is None and run.owner == self._settings.replica_id

    def _limit_s(self, request: JobRequest, status: JobStatus) -> float:
        """Seconds that this run may take: the client's limit, or what the planned speech allows; never past the ttl."""
        planned = max(self._settings.execution_timeout_s, self._settings.execution_per_audio * (request.audio_s or 0.0))
        left = self._jobs.deadline(request, status.standing) - self._wall_clock()
        return max(0.0, min(request.execution_timeout_s or planned, left))

    async def _speech(
        self, status: JobStatus, progress: ModelProgress, strikes: Strikes, patience: Patience
    ) -> JobOutcome:
        """The outcome of a run that ends well: found among the results, or spoken."""
        request = status.request
        if (found := await self._patiently(partial(asyncio.to_thread, self._results.find, request))) is not None:
            logs.event("result_found", key=found.audio.key)
            return self._jobs.completed(status, found.audio, found.draft, found.units, found.made_by, cached=True)
        speech = await patiently(partial(self._speak_once, request, progress, strikes), patience)
        body, sha256 = await asyncio.to_thread(_encoded, speech)
        audio = await self._patiently(partial(self._keep, request, speech, body, sha256))
        return self._jobs.completed(status, audio, speech.draft, speech.units, speech.made_by)

    async def _speak_once(self, request: JobRequest, progress: ModelProgress, strikes: Strikes) -> Speech:
        """Speak what is not spoken yet. A unit that a replica ended with is suspect, and too often is too often."""
        try:
            return await self._speak(request.speech, progress)
        except ReplicaLost as error:
            strikes.note(error)
            raise

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        return await patiently(step, Patience(self._sleep))

    async def _keep(self, request: JobRequest, speech: Speech, body: bytes, sha256: str) -> AudioRecord:
        audio = await asyncio.to_thread(
            self._results.store_audio, request, body, sha256, WAV.content_type, speech.duration_s
        )
        logs.event("stored", key=audio.key, audio_s=round(speech.duration_s, 3), size_bytes=audio.size_bytes)
        return audio

    async def _finish(self, request: JobRequest, outcome: JobOutcome) -> bool:
        """End the job."""
        self._current.pop(request.ref, None)
        return await self._to_its_end(self._end(request, outcome))

    async def _to_its_end(self, writes: Coroutine[None, None, T], unless_elsewhere: JobRef | None = None) -> T:
        """`writes`, which are few. A replica that is stopped meanwhile gives them a moment, but none where the job of
        `unless_elsewhere` has its end, or its run, elsewhere."""
        writing = asyncio.create_task(writes)
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            if unless_elsewhere in self._ended_elsewhere:
                writing.cancel()
            await asyncio.wait({writing}, timeout=LAST_WRITES_S)
            raise

    async def _end(self, request: JobRequest, outcome: JobOutcome) -> bool:
        told = await self._patiently(lambda: asyncio.to_thread(self._jobs.finish, outcome))
        if told == outcome:
            self._counters.completed += outcome.state == "completed"
            self._counters.failed += outcome.state in ("failed", "expired")
            if not outcome.cached:
                await self._patiently(lambda: asyncio.to_thread(self._results.remember, request, outcome))
        code = told.error.code if told.error else None
        logs.event("job_finished", state=told.state, run=told.run, code=code, own=told == outcome)
        await self._patiently(lambda: asyncio.to_thread(self._jobs.settle, request, told))
        return True

    async def _failed(self, status: JobStatus, progress: ModelProgress, error: Exception) -> bool:
        """The run is over without an outcome: another begins later, unless too many failed."""
        assert status.run is not None
        counts = counts_as_failed(error)
        await self._keep_spoken(progress)
        if counts and is_over(status.standing, self._settings.max_runs, failed=1):
            return await self._finish(status.request, self._jobs.ended(status, "failed", ErrorRecord.of(error)))
        logs.failure("run_failed", error, run=status.run.run)
        reason: RunEndReason = "failed" if counts else "waiting"
        if reason == "waiting":
            progress.over()
        await self._patiently(partial(self._end_run, status, reason, pause_s(status.standing, error), error))
        return False

    async def _keep_spoken(self, progress: ModelProgress) -> None:
        """For the next run, or a client's retry."""
        await logged(partial(self._patiently, progress.flush), "progress_not_kept")

    async def _let_go(self, status: JobStatus, progress: ModelProgress) -> None:
        """Stopped in mid-run: keep what is spoken, and let another replica go on at once."""
        try:
            await logged(progress.flush, "progress_not_kept")
            await self._end_run(status, "released", 0.0, None)
        except Exception as error:  # then another replica finds out by this one's heartbeat
            logs.failure("run_not_released", error)

    async def _end_run(self, status: JobStatus, reason: RunEndReason, pause_s: float, error: Exception | None) -> None:
        assert status.run is not None
        now = self._wall_clock()
        end = RunEnd(
            tenant=status.request.tenant,
            job_id=status.request.job_id,
            run=status.run.run,
            reason=reason,
            ended_at=now,
            not_before=now + pause_s,
            error=ErrorRecord.of(error) if error else None,
        )
        await asyncio.to_thread(self._jobs.end_run, end)


def _after_begin(found: Standing, run: int) -> Standing:
    """As the store would show it now."""
    return replace(found, state="in_progress", run=run, runs=found.runs + 1, reason=None)


def _encoded(speech: Speech) -> tuple[bytes, str]:
    body = encode(speech.audio, WAV)
    return body, hashlib.sha256(body).hexdigest()
