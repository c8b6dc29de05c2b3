"""Tells a Jobs replica of new jobs, off the path of the requests that brought them.

    tell(marker) -> what waits (bounded) -> one call with all of it, when the call before is over -> a Jobs replica

A word that is lost costs time, never a job: a sweep finds it in the store. Knows nothing of HTTP, Ray or the store.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Protocol

from serve_app import logs
from serve_app.errors import ServiceError
from serve_app.jobs import Marker

__all__ = ["MOST_TOLD", "PAUSE_S", "TELL_S", "JobTeller", "Told"]

TELL_S = 2.0
"""A handle without a running replica waits for one, and meanwhile nobody else can be told."""
PAUSE_S = 0.05
"""Between two calls: an ingress that accepts many jobs makes twenty calls a second, not one for each job."""
MOST_TOLD = 1000
"""Jobs of one call, at most; what comes beyond that while a call is on its way is left to the sweeps."""


class Told(Protocol):
    """Who is told."""

    async def start(self, markers: Sequence[Marker]) -> None:
        """Run these jobs as far as there is room. Raises ServiceError when nobody can be reached."""
        ...


class JobTeller:
    """Used from one event loop. `tell_s`: how long one call may take. `sleep` is called with PAUSE_S."""

    def __init__(
        self, told: Told, tell_s: float = TELL_S, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._told = told
        self._tell_s = tell_s
        self._sleep = sleep
        self._waiting: list[Marker] = []
        self._telling: asyncio.Task[None] | None = None

    def tell(self, marker: Marker) -> None:
        """Have a Jobs replica told of this job, soon; the first of several at once."""
        if len(self._waiting) >= MOST_TOLD:
            logs.event("runner_not_told", job_id=marker.ref.job_id, reason=f"{MOST_TOLD} jobs wait to be told of")
            return
        self._waiting.append(marker)
        if self._telling is None:
            # An empty context: it outlives the request that began it, and must not be cancelled or logged with it.
            self._telling = asyncio.get_running_loop().create_task(self._tell_all(), context=Context())

    async def _tell_all(self) -> None:
        try:
            while self._waiting:
                markers, self._waiting = self._waiting, []
                await self._tell(markers)
                await self._sleep(PAUSE_S)
        finally:
            self._telling = None

    async def _tell(self, markers: list[Marker]) -> None:
        jobs = {"job_id": markers[0].ref.job_id, "jobs": len(markers)}
        try:
            async with asyncio.timeout(self._tell_s):
                await self._told.start(markers)
        except TimeoutError:
            logs.event("runner_not_told", reason=f"no Jobs replica answered in {self._tell_s} s", **jobs)
        except ServiceError as error:
            logs.event("runner_not_told", code=error.code, reason=error.message, **jobs)
        except Exception as error:  # of a Jobs replica of an older version, which has no such method
            logs.failure("runner_not_told", error, **jobs)
