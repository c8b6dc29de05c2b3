"""What time it is by the store: this machine's clock, corrected where the two differ by more than a few seconds.

    put (before, after by our clock; `last_modified` by the store's) -> by how much ours is off -> our clock less that

All who judge jobs by the wall clock (ttl, retention) see the same store, so they agree though their machines' clocks do
not. No request is made for it: it learns from what is written anyway. One answer from a gateway whose own clock is off
must not end a job: time is moved forward only where several in a row say so.
"""

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime

from serve_app import logs

__all__ = ["CLOSE_S", "StoreClock"]

CLOSE_S = 5.0
"""Differences up to this are left alone: stores tell whole seconds, and every write takes some time."""
STORES_TELL_S = 1.0
AGREEING = 3
"""Writes in a row that must agree before our clock counts as slow, and time is moved forward."""


class StoreClock:
    """Unix seconds. By this machine alone until it has learned. `wall_clock`: this machine's."""

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._ahead_s = 0.0
        self._last = deque([0.0] * (AGREEING - 1), AGREEING)

    def __call__(self) -> float:
        return self._wall_clock() - self._ahead_s

    def own(self) -> float:
        """This machine's clock as it is."""
        return self._wall_clock()

    def learn(self, before: float, after: float, written_at: datetime) -> None:
        """An object was written between `before` and `after` of `own`, and at `written_at` by the store."""
        stored = written_at.timestamp()
        least, most = before - (stored + STORES_TELL_S), after - stored
        self._last.append(least if least > CLOSE_S else most if most < -CLOSE_S else 0.0)
        ahead_s = self._last[-1] if self._last[-1] > 0 else min(0.0, max(self._last))
        if abs(ahead_s - self._ahead_s) > CLOSE_S:
            logs.event("clock_differs", ahead_s=round(ahead_s, 1))
        self._ahead_s = ahead_s
