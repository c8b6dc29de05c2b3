"""A job runner on a memory store with injected clocks, and what stands in for the speaker."""

import asyncio

import numpy as np

from serve_app.domain import BUILTIN, SAMPLE_RATE_HZ, Speech, SpeechRequest, VoiceRef
from serve_app.job_runner import JobRunner, RunnerSettings
from serve_app.jobs import JobRef, JobRequest, JobStore
from serve_app.storage import MemoryStore


def runner_settings(replica_id: str = "a", **changes: float) -> RunnerSettings:
    values = {"max_running_jobs": 2, "max_runs": 3, "heartbeat_s": 1.0, "dead_after_s": 5.0, "sweep_s": 1.0}
    return RunnerSettings(replica_id=replica_id, **(values | changes))


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Speak:
    """Stands in for the speaker: counts calls, fails as told, waits at a gate."""

    def __init__(self, *errors: Exception | None) -> None:
        self.requests: list[SpeechRequest] = []
        self.errors = list(errors)
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: SpeechRequest) -> Speech:
        self.requests.append(request)
        await self.gate.wait()
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return Speech(np.zeros(SAMPLE_RATE_HZ, np.float32), request.model, request.seed, draft=True, units=1)


def submit(store: MemoryStore, number: int = 0xA, **changes: object) -> JobRef:
    job_id = f"01939f00-0000-7000-8000-{number:012x}"
    speech = SpeechRequest("Hello.", "preview", VoiceRef("heart", BUILTIN), 1.0, 7, "r1", job_id=job_id)
    JobStore(store).submit(JobRequest(job_id=job_id, accepted_at=100.0, dialect="runpod", speech=speech, **changes))
    return JobRef(tenant="default", job_id=job_id)


def runner(
    store: MemoryStore, speak: Speak, clock: Clock | None = None, name: str = "a", **changes: float
) -> JobRunner:
    return JobRunner(
        store, speak, runner_settings(name, **changes), clock=clock or Clock(), wall_clock=lambda: 200.0, sleep=no_pause
    )


PAUSES: list[float] = []


async def no_pause(seconds: float) -> None:
    PAUSES.append(seconds)


async def finish(store: MemoryStore, r: JobRunner, ref: JobRef) -> str:
    await r.wait(ref)
    return JobStore(store).status(ref).state
