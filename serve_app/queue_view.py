"""Where a job stands in the queue, as an ingress sees it: from the markers alone, by listings that all who ask share.

A look at a long queue is dear, so the next one waits until this one has become a twentieth of the time.
"""

import asyncio
import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable

from serve_app import keys
from serve_app.jobs import JobStore, Marker

__all__ = ["VIEW_AGE_S", "VIEW_SHARE", "QueueView"]

VIEW_PAGE = 1000
VIEW_AGE_S = 1.0
VIEW_SHARE = 0.05
"""Of a core that looks may take."""

Place = tuple[bool, int, str]


def _place(marker: Marker) -> Place:
    return marker.low_priority, marker.accepted_ms, marker.ref.job_id


class QueueView:
    """A second old at most while it is asked for, or twenty times what a look takes of a core, where that is more. Sees
    16,000 jobs; what lies behind them is told the last of these positions. `cpu_clock`: seconds of a core that the
    calling thread has used."""

    def __init__(
        self,
        jobs: JobStore,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._markers = jobs.markers
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._order: list[Place] | None = None
        self._next_at = -math.inf
        self._looking: asyncio.Task[None] | None = None

    async def position(self, marker: Marker) -> int:
        """1: the next. Jobs that are being spoken count as before it. Waits for the store until one look has seen it,
        and raises what that failed of."""
        if self._looking is None and (self._order is None or self._clock() >= self._next_at):
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())  # told to who waits
        if self._order is None and self._looking is not None:
            await asyncio.shield(self._looking)
        return 1 + bisect_left(self._order or [], _place(marker))

    async def _look(self) -> None:
        """All shards at once while somebody waits for it; later one after the other, since nobody does."""
        lanes = len(keys.SHARDS) if self._order is None else 1
        used_s = 0.0
        try:
            shares = (keys.SHARDS[lane::lanes] for lane in range(lanes))
            seen = await asyncio.gather(*(asyncio.to_thread(self._see, shards) for shards in shares))
            self._order = sorted(place for places, _ in seen for place in places)
            used_s = sum(used for _, used in seen)
        finally:  # also where the store does not answer: the next look is a second away, once one has seen it
            self._next_at = self._clock() + max(VIEW_AGE_S, used_s / VIEW_SHARE)
            self._looking = None

    def _see(self, shards: Iterable[str]) -> tuple[list[Place], float]:
        """The places in these shards, and what it took to see them."""
        began = self._cpu_clock()
        places = [_place(marker) for shard in shards for marker in self._markers.oldest(shard, limit=VIEW_PAGE)]
        return places, self._cpu_clock() - began
