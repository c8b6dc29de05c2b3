"""How the rest of the service reaches jobs: submit one, ask for its state, wait for its end.

The store is the truth: a runner that cannot be reached costs time, never a job.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from serve_app import logs
from serve_app.errors import JobNotFound, ServiceError
from serve_app.jobs import JobRef, JobRequest, JobStatus, JobStore
from serve_app.storage import ObjectStore

__all__ = ["JobClient", "Runners", "job_ref"]

POLL_FROM_S, POLL_TO_S = 0.1, 2.0
TELL_S = 2.0
"""A handle without a running replica waits for one; the job is durable, so its client need not."""


class Runners(Protocol):
    """The Jobs replicas, any of them. Raises ServiceError when none can be reached."""

    async def start(self, ref: JobRef) -> None:
        """Run the job if there is room; otherwise it waits in the store."""
        ...

    async def run(self, ref: JobRef) -> None:
        """Start it, and return when that replica is done with it (or had no room)."""
        ...


def job_ref(tenant: str, job_id: str) -> JobRef:
    """A reference to a job by the id a client sent. Raises JobNotFound for what cannot be an id."""
    if len(job_id) != 36 or not set(job_id) <= set("0123456789abcdef-"):
        raise JobNotFound(f"job {job_id[:64]!r} does not exist: ids are those that /run returns, 36 characters")
    return JobRef(tenant=tenant, job_id=job_id)


class JobClient:
    """Lives in an ingress replica."""

    def __init__(
        self,
        store: ObjectStore,
        runners: Runners,
        clock: Callable[[], float] = time.monotonic,
        tell_s: float = TELL_S,
    ) -> None:
        self._tell_s = tell_s
        self._jobs = JobStore(store)
        self._runners = runners
        self._clock = clock

    async def submit(self, request: JobRequest) -> JobRef:
        """Make the job durable. When this returns, no crash can lose it."""
        await asyncio.to_thread(self._jobs.submit, request)
        return JobRef(tenant=request.tenant, job_id=request.job_id)

    async def start(self, ref: JobRef) -> None:
        """Tell a runner, if one answers soon. If none can be told, a sweep finds the job."""
        try:
            async with asyncio.timeout(self._tell_s):
                await self._runners.start(ref)
        except TimeoutError:
            logs.event("runner_not_told", job_id=ref.job_id, reason=f"no Jobs replica answered in {self._tell_s} s")
        except ServiceError as error:
            logs.event("runner_not_told", job_id=ref.job_id, code=error.code, reason=error.message)

    async def status(self, ref: JobRef) -> JobStatus:
        """From the store alone. Raises JobNotFound."""
        return await asyncio.to_thread(self._jobs.status, ref)

    async def run(self, ref: JobRef, timeout_s: float) -> JobStatus:
        """Have it run and wait for its end, at most `timeout_s`; the state it has then."""
        deadline = self._clock() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._runners.run(ref)
        except TimeoutError:
            return await self.status(ref)
        except ServiceError as error:
            logs.event("runner_lost", job_id=ref.job_id, code=error.code, reason=error.message)
        pause_s = POLL_FROM_S
        while (status := await self.status(ref)).outcome is None and self._clock() < deadline:
            await asyncio.sleep(min(pause_s, max(deadline - self._clock(), 0)))
            pause_s = min(2 * pause_s, POLL_TO_S)
        return status
