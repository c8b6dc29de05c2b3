"""Trying again: a step that fails for what time mends, and turns that go on for as long as a process lives."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from serve_app import logs
from serve_app.errors import Overloaded, StorageUnreachable, Unavailable

__all__ = ["PASSING", "PATIENCE_S", "forever", "logged", "patiently"]

T = TypeVar("T")

PASSING = (Overloaded, Unavailable, StorageUnreachable)
"""What time mends: a full queue, a replica or a cache that is restarting, a store that does not answer."""

PATIENCE_S = (1, 2, 4, 8, 15, 30, 60, 60, 60, 60)
"""Pauses before a step is tried again; five minutes in all."""


async def patiently(step: Callable[[], Awaitable[T]], sleep: Callable[[float], Awaitable[None]]) -> T:
    """`step`, tried again with pauses while it fails for what time mends; then its last error."""
    for pause_s in PATIENCE_S:
        try:
            return await step()
        except PASSING as error:
            logs.event("waits", code=error.code, reason=error.message, pause_s=pause_s)
            await sleep(pause_s)
    return await step()


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
