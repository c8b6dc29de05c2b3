"""One run of one job: begin -> speak -> encode -> store audio -> outcome.

Every step is written so that doing it twice is harmless: audio is content-addressed, and an outcome has one key.
Knows nothing of HTTP, Ray, models, or of which job to run when.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from serve_app import logs
from serve_app.audio import CONTENT_TYPES, encode
from serve_app.domain import Speech, SpeechRequest
from serve_app.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServiceError,
    StorageError,
    StorageUnreachable,
    Unavailable,
)
from serve_app.heartbeats import Counters
from serve_app.jobs import AudioRecord, ErrorRecord, JobOutcome, JobRef, JobRequest, JobStore

__all__ = ["PATIENCE_S", "JobExecutor", "Speak"]

T = TypeVar("T")
Speak = Callable[[SpeechRequest], Awaitable[Speech]]
PASSING = (Overloaded, Unavailable, StorageUnreachable)
"""What time mends: a full queue, a replica or a cache that is restarting. It does not use up a job's runs."""

PATIENCE_S = (1, 2, 4, 8, 15, 30, 60, 60, 60, 60)
"""Pauses before speaking or storing is tried again within one run; five minutes in all."""


class JobExecutor:
    """Runs jobs as the replica `replica_id`; a job that failed in `max_runs` runs is failed for good."""

    def __init__(
        self,
        jobs: JobStore,
        speak: Speak,
        replica_id: str,
        max_runs: int,
        counters: Counters,
        wall_clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._jobs = jobs
        self._speak = speak
        self._replica_id = replica_id
        self._max_runs = max_runs
        self._counters = counters
        self._wall_clock = wall_clock
        self._sleep = sleep

    async def execute(self, ref: JobRef) -> bool:
        """Run the job once. True when it has ended; False when it is still pending and may be run again.

        Raises nothing but CancelledError: whatever goes wrong is logged, and the job stays pending.
        """
        try:
            status = await asyncio.to_thread(self._jobs.status, ref)
            with logs.bind(request_id=status.request.speech.request_id, job_id=ref.job_id):
                if status.outcome is not None:
                    await asyncio.to_thread(self._jobs.clear_marker, ref)
                    return True
                return await self._run(status.request, status.run.run + 1 if status.run else 1)
        except Exception as error:
            logs.failure("job_left_pending", error, job_id=ref.job_id)
            return False

    async def _run(self, request: JobRequest, run: int) -> bool:
        self._counters.retried += run > 1
        started_at = self._wall_clock()
        if run > self._max_runs:
            gave_up = Unavailable(f"gave up after {self._max_runs} runs that did not end: send it again")
            return await self._finish(self._outcome(request, run - 1, started_at, gave_up))
        await asyncio.to_thread(self._jobs.begin, request, run=run, owner=self._replica_id, started_at=started_at)
        logs.event("job_started", run=run)
        try:
            speech = await self._patiently(partial(self._speak, request.speech))
            body, sha256 = await asyncio.to_thread(_encoded, speech)
            audio = await self._patiently(partial(self._store, request, speech, body, sha256))
        except (InvalidRequest, NotFound, Conflict) as error:  # wrong in itself: another run cannot help
            return await self._finish(self._outcome(request, run, started_at, error))
        except Exception as error:
            if isinstance(error, StorageError) or run < self._max_runs:
                logs.failure("run_failed", error, run=run)
                return False
            return await self._finish(self._outcome(request, run, started_at, error))
        return await self._finish(self._outcome(request, run, started_at, None, speech, audio))

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        """`step`, tried again with pauses while it fails for what time mends."""
        for pause_s in PATIENCE_S:
            try:
                return await step()
            except PASSING as error:
                logs.event("job_waits", code=error.code, reason=error.message, pause_s=pause_s)
                await self._sleep(pause_s)
        return await step()

    async def _store(self, request: JobRequest, speech: Speech, body: bytes, sha256: str) -> AudioRecord:
        audio = await asyncio.to_thread(
            self._jobs.store_audio, request, body, sha256, CONTENT_TYPES["wav"], speech.duration_s
        )
        logs.event("stored", key=audio.key, audio_s=round(speech.duration_s, 3), size_bytes=audio.size_bytes)
        return audio

    async def _finish(self, outcome: JobOutcome) -> bool:
        await self._patiently(lambda: asyncio.to_thread(self._jobs.finish, outcome))
        self._counters.completed += outcome.state == "completed"
        self._counters.failed += outcome.state == "failed"
        logs.event("job_finished", state=outcome.state, run=outcome.run, code=outcome.error and outcome.error.code)
        return True

    def _outcome(
        self,
        request: JobRequest,
        run: int,
        started_at: float,
        error: Exception | None,
        speech: Speech | None = None,
        audio: AudioRecord | None = None,
    ) -> JobOutcome:
        return JobOutcome(
            tenant=request.tenant,
            job_id=request.job_id,
            state="failed" if error else "completed",
            run=run,
            started_at=started_at,
            finished_at=self._wall_clock(),
            model=request.speech.model,
            draft=speech.draft if speech else False,
            seed=request.speech.seed,
            units=speech.units if speech else 0,
            audio=audio,
            error=_error_record(error) if error else None,
        )


def _encoded(speech: Speech) -> tuple[bytes, str]:
    body = encode(speech.audio, "wav")
    return body, hashlib.sha256(body).hexdigest()


def _error_record(error: Exception) -> ErrorRecord:
    known = error if isinstance(error, ServiceError) else ServiceError(f"{type(error).__name__}: see the log")
    return ErrorRecord(type=known.type, code=known.code, message=known.message)
