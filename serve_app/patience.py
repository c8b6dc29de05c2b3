"""Trying again: a step that fails for what time mends, and turns that go on for as long as a process lives."""

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from serve_app import logs
from serve_app.errors import Overloaded, ServiceError, StorageUnreachable, Unavailable

__all__ = ["PASSING", "PATIENCE_S", "Patience", "forever", "logged", "patiently"]

T = TypeVar("T")

PASSING = (Overloaded, Unavailable, StorageUnreachable)
"""What time mends: a full queue, a replica or a cache that is restarting, a store that does not answer."""

PATIENCE_S = (1, 2, 4, 8, 15, 30, 60, 60, 60, 60)
"""Pauses before a step is tried again; five minutes in all."""


class Patience:
    """What several things at once wait for, each with pauses of its own. It is over for all when it is for one."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._sleep = sleep
        self._pauses: Counter[Hashable] = Counter()
        self._over = False

    async def wait(self, what: Hashable, error: ServiceError) -> None:
        """The next pause of `what`, which failed for something that time mends. Raises `error` when it is over."""
        self._over = self._over or self._pauses[what] >= len(PATIENCE_S)
        if self._over:
            raise error
        pause_s = PATIENCE_S[self._pauses[what]]
        self._pauses[what] += 1
        logs.event("waits", code=error.code, reason=error.message, pause_s=pause_s)
        await self._sleep(pause_s)


async def patiently(step: Callable[[], Awaitable[T]], patience: Patience) -> T:
    """`step`, tried again with pauses while it fails for what time mends; then its last error."""
    while True:
        try:
            return await step()
        except PASSING as error:
            await patience.wait(step, error)


async def forever(turn: Callable[[], Awaitable[None]], failure: str, pause: Callable[[], Awaitable[None]]) -> None:
    """`turn` and `pause` until cancelled. What fails is logged as `failure`, and tried again at the next turn."""
    while True:
        await logged(turn, failure)
        await pause()


async def logged(turn: Callable[[], Awaitable[None]], failure: str) -> None:
    """`turn`; what it fails of is logged as `failure` and goes no further."""
    try:
        await turn()
    except Exception as error:
        logs.failure(failure, error)
