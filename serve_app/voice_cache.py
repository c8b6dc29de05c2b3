"""Keeps voices in memory, each loaded once however many ask for it at the same time. Knows neither stores nor Ray.

    get -> kept? -> being loaded? -> load, in a task of its own -> kept while there is room

A key holds the version of the voice, so what is kept can never be out of date.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

from cachetools import LRUCache

from serve_app.domain import Voice, VoiceRef
from serve_app.errors import Unavailable

__all__ = ["CacheStats", "SingleFlightCache", "VoiceCache"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache has done since it was made. `hits` and `misses` add up to the calls of `get`.

    `misses` counts those who waited for a load that others had begun; `loads` counts loads begun. `size` is what is
    kept now: bytes in a VoiceCache.
    """

    hits: int
    misses: int
    loads: int
    size: int


class SingleFlightCache(Generic[T]):
    """What `load` gives for a voice, the least recently used dropped when sizes (`size_of`) exceed `max_size`.

    Used from a single event loop. What alone is over `max_size` is returned, but not kept.
    """

    def __init__(self, load: Callable[[VoiceRef], Awaitable[T]], max_size: int, size_of: Callable[[T], int]) -> None:
        self._load = load
        self._size_of = size_of
        self._kept: LRUCache[VoiceRef, T] = LRUCache(max_size, size_of)
        self._loading: dict[VoiceRef, asyncio.Task[T]] = {}
        self._hits = self._misses = self._loads = 0

    async def get(self, ref: VoiceRef) -> T:
        """The value for `ref`, from memory or from the one load that everyone who asks meanwhile waits for.

        Raises what that load raises, to all of them; an error is not kept. A caller that is cancelled, the first one
        too, leaves the load to the others. Raises ValueError for a voice that is built in.
        """
        if ref.builtin:
            raise ValueError(f"voice {ref.name!r} is built into an engine: there is nothing to load")
        if ref in self._kept:
            self._hits += 1
            return self._kept[ref]
        self._misses += 1
        task = self._loading.get(ref) or self._begin(ref)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and not _is_being_cancelled():
                raise Unavailable(f"loading voice {ref.name!r} was broken off: send the request again") from None
            raise

    def stats(self) -> CacheStats:
        return CacheStats(self._hits, self._misses, self._loads, int(self._kept.currsize))

    def _begin(self, ref: VoiceRef) -> asyncio.Task[T]:
        self._loads += 1

        async def load() -> T:
            return await self._load(ref)

        # An empty context: the load serves many callers and must not run under the log fields of the first.
        task = asyncio.get_running_loop().create_task(load(), context=Context())
        task.add_done_callback(lambda done: self._end(ref, done))
        self._loading[ref] = task
        return task

    def _end(self, ref: VoiceRef, task: asyncio.Task[T]) -> None:
        """Runs before any waiter goes on, so whoever sees an error and asks again begins a new load."""
        del self._loading[ref]
        if task.cancelled() or task.exception() is not None:
            return
        value = task.result()
        if self._size_of(value) <= self._kept.maxsize:
            self._kept[ref] = value


class VoiceCache(SingleFlightCache[Voice]):
    """Voices, bounded in bytes."""

    def __init__(self, load: Callable[[VoiceRef], Awaitable[Voice]], max_bytes: int) -> None:
        super().__init__(load, max_bytes, lambda voice: voice.size_bytes)


def _is_being_cancelled() -> bool:
    """Whether the cancellation is the caller's own, and not that of the load it waits for."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
