"""Trying again: a step that fails for what time mends, and turns that go on for as long as a process lives."""

import asyncio
import random as randomness
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from serve_app import logs
from serve_app.errors import Overloaded, ServiceError, StorageUnreachable, Unavailable

__all__ = ["PASSING", "PATIENCE_S", "Patience", "Turn", "forever", "heard", "logged", "patiently"]

T = TypeVar("T")
Turn = Callable[[], Awaitable[None]]

PASSING = (Overloaded, Unavailable, StorageUnreachable)
"""What time mends: a full queue, a replica or a cache that is restarting, a store that does not answer."""

PATIENCE_S = (1, 2, 4, 8, 15, 30, 60, 60, 60, 60)
"""Pauses before a step is tried again, at the longest; five minutes in all."""


class Patience:
    """What several things at once wait for, each with pauses of its own. It is over for all when it is for one, or when
    the time in which any of them waited comes to as much as one may wait: the sum of PATIENCE_S.

    What was refused together does not come again together: of each pause half is kept, and a random part of the rest
    ("equal jitter" of the AWS Architecture Blog, "Exponential Backoff And Jitter", 2015; its "full jitter" may come
    again at once, to a queue that is still full). Shorter pauses are more pauses: the sum stays. `random` draws from 0
    to 1.
    """

    def __init__(
        self,
        sleep: Callable[[float], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self._sleep = sleep
        self._clock = clock
        self._random = random
        self._waiting = 0
        self._since = 0.0
        self._waited_s = 0.0
        self._pauses: defaultdict[Hashable, list[float]] = defaultdict(list)
        self._over = False

    async def wait(self, what: Hashable, error: ServiceError) -> None:
        """The next pause of `what`, which failed for something that time mends. Raises `error` when it is over."""
        waited_s = self._waited_s + (self._clock() - self._since if self._waiting else 0.0)
        pauses = self._pauses[what]
        left_s = sum(PATIENCE_S) - sum(pauses)
        self._over = self._over or left_s <= 0 or waited_s >= sum(PATIENCE_S)
        if self._over:
            raise error
        longest_s = PATIENCE_S[min(len(pauses), len(PATIENCE_S) - 1)]
        pause_s = min(left_s, sum(PATIENCE_S) - waited_s, longest_s * (1 + self._random()) / 2)
        pauses.append(pause_s)
        logs.event("waits", code=error.code, reason=error.message, pause_s=round(pause_s, 3))
        self._since = self._since if self._waiting else self._clock()
        self._waiting += 1
        try:
            await self._sleep(pause_s)
        finally:
            self._waiting -= 1
            self._waited_s += 0.0 if self._waiting else self._clock() - self._since


async def patiently(step: Callable[[], Awaitable[T]], patience: Patience) -> T:
    """`step`, tried again with pauses while it fails for what time mends; then its last error."""
    while True:
        try:
            return await step()
        except PASSING as error:
            await patience.wait(step, error)


async def forever(turn: Turn, failure: str, pause: Turn) -> None:
    """`turn` and `pause` until cancelled. What fails is logged as `failure`, and tried again at the next turn."""
    while True:
        await logged(turn, failure)
        await pause()


async def logged(turn: Turn, failure: str) -> None:
    """`turn`; what it fails of is logged as `failure` and goes no further."""
    try:
        await turn()
    except Exception as error:
        logs.failure(failure, error)


async def heard(word: asyncio.Event) -> None:
    """Until the word is said; then it is to be said again."""
    await word.wait()
    word.clear()
