"""Serve handles behind the protocols of the plain layers; where Ray's errors become ours."""

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serve_app.deployments.unwrap import unwrap
from serve_app.domain import Pcm, Unit
from serve_app.errors import Overloaded, Unavailable
from serve_app.jobs import JobRef

__all__ = ["JobsHandle", "SynthesizerHandle"]

HEALTH_TIMEOUT_S = 2.0
ATTEMPTS = 3
"""A unit is deterministic, so one whose replica died is simply spoken by another."""


class SynthesizerHandle:
    """Has units spoken by the replicas of one model."""

    def __init__(self, handle: DeploymentHandle[Any], model: str, retry_after_s: int) -> None:
        self._handle = handle
        self._model = model
        self._retry_after_s = retry_after_s

    async def synthesize(self, unit: Unit) -> Pcm:
        """Raises Overloaded when the queue is full, Unavailable when replicas keep dying, or what the engine raised."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._call(unit)
            except Unavailable:
                continue
        return await self._call(unit)

    async def health(self) -> Mapping[str, Any]:
        """What one of the replicas says of itself. Raises Unavailable when none answers soon."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                health: Mapping[str, Any] = await _answer(self._handle.health.remote(), f"model {self._model!r}")
        except (TimeoutError, Overloaded) as error:
            raise Unavailable(f"no replica of model {self._model!r} has time to answer") from error
        return health

    async def _call(self, unit: Unit) -> Pcm:
        try:
            wave: Pcm = await _answer(self._handle.synthesize.remote(unit), f"model {self._model!r}")
        except Overloaded as error:
            error.retry_after_s = self._retry_after_s
            raise
        return wave


class JobsHandle:
    """Reaches any one Jobs replica."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def start(self, ref: JobRef) -> None:
        await _answer(self._handle.start.remote(ref), "Jobs")

    async def run(self, ref: JobRef) -> None:
        await _answer(self._handle.run.remote(ref), "Jobs")


async def _answer(response: Any, what: str) -> Any:
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except BackPressureError as error:
        raise Overloaded(f"{what} has as many requests waiting as it takes: come again later") from error
    except (RayActorError, DeploymentUnavailableError) as error:
        raise Unavailable(f"{what} has no replica that answers just now: come again in a moment") from error
    except RayTaskError as error:
        raise unwrap(error) from None
