"""Serve handles behind the protocols of the plain layers; where Ray's errors become ours."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serve_app.deployments.unwrap import unwrap
from serve_app.domain import SpokenUnit, Unit
from serve_app.errors import Overloaded, ReplicaLost, Unavailable
from serve_app.jobs import Marker

__all__ = ["JobsHandle", "SynthesizerHandle"]

HEALTH_TIMEOUT_S = 2.0
ATTEMPTS = 3
"""A unit is deterministic, so one that a replica could not take is simply spoken by another."""


class SynthesizerHandle:
    """Has units spoken by the replicas of one model."""

    def __init__(self, handle: DeploymentHandle[Any], model: str, retry_after_s: int) -> None:
        self._handle = handle
        self._model = model
        self._retry_after_s = retry_after_s

    async def synthesize(self, unit: Unit) -> SpokenUnit:
        """Have `unit` spoken, by another replica where one cannot take it.

        A unit that a replica died with may be what killed it. So it is tried once more, alone; whoever runs jobs keeps
        count of that, and units of jobs are not tried again here. Raises Overloaded when the queue is full,
        Unavailable when no replica takes it, ReplicaLost, or what the engine raised.
        """
        refused = 0
        while True:
            try:
                return await self._call(unit)
            except ReplicaLost:
                if unit.job_id is not None or unit.alone:
                    raise
                unit = replace(unit, alone=True)
            except Unavailable:
                refused += 1
                if refused == ATTEMPTS:
                    raise

    async def health(self) -> Mapping[str, Any]:
        """What one of the replicas says of itself. Raises Unavailable when none answers soon."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                health: Mapping[str, Any] = await _answer(self._handle.health.remote(), f"model {self._model!r}")
        except (TimeoutError, Overloaded) as error:
            raise Unavailable(f"no replica of model {self._model!r} has time to answer") from error
        return health

    async def _call(self, unit: Unit) -> SpokenUnit:
        try:
            spoken: SpokenUnit = await _answer(self._handle.synthesize.remote(unit), f"model {self._model!r}", unit)
        except Overloaded as error:
            error.retry_after_s = self._retry_after_s
            raise
        return spoken


class JobsHandle:
    """Reaches any one Jobs replica. Jobs are told by the names of their markers: text means the same to a replica of
    another version, or is refused by it."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def start(self, markers: Sequence[Marker]) -> None:
        await _answer(self._handle.start_named.remote([marker.name for marker in markers]), "Jobs")

    async def run(self, marker: Marker) -> None:
        """Start it; back when that replica is done with it, or after a few seconds, so that it can be stopped."""
        await _answer(self._handle.run_named.remote(marker.name), "Jobs")


async def _answer(response: Any, what: str, unit: Unit | None = None) -> Any:
    """What is answered. `unit`: the replica was given it, so that it is to blame for the replica's end, or not."""
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except BackPressureError as error:
        raise Overloaded(f"{what} has as many requests waiting as it takes: come again later") from error
    except (RayActorError, DeploymentUnavailableError) as error:
        # One that was raised in a replica, which lives, is of another actor that it called.
        if unit is not None and isinstance(error, RayActorError) and not isinstance(error, RayTaskError):
            raise _lost(unit, what) from error
        raise Unavailable(f"{what} has no replica that answers just now: come again in a moment") from error
    except RayTaskError as error:
        raise unwrap(error) from None


def _lost(unit: Unit, what: str) -> ReplicaLost:
    error = ReplicaLost(
        f"a replica of {what} ended while it had unit {unit.index} of the text: send the request again, and if that "
        "ends another one, a different text"
    )
    error.unit_index = unit.index
    return error
