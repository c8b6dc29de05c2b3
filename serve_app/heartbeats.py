"""Which Jobs replicas live: each writes one object now and then, and the others watch whether it still changes.

A replica is dead when its heartbeat's etag has not changed for `dead_after_s` on the *observer's* monotonic clock,
so no two machines' clocks are compared; and a look that is old says nothing of now. Time in which the observer could
not beat itself hardly counts: where the store did not answer, or a machine stood still, the others could not beat
either. Methods block on the store: async callers run them in a thread.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import asdict, dataclass

from cachetools import LRUCache

from serve_app import keys
from serve_app.storage import ObjectInfo, ObjectStore
from serve_app.store_clock import StoreClock

__all__ = ["Counters", "Heartbeats", "Liveness"]

KEPT_S = 86_400
"""By two machines' wall clocks, so far beyond any difference between them."""
LONGEST_GAP = 0.25
"""Of `dead_after_s`: what counts of the time between two of a replica's own beats, at most. `heartbeat_s` is a third at
most, so one that beats again within that after an outage was silent for 1/3 + 1/4 + 1/3 of it: it lives. And where each
beat takes long, the dead are found all the same, later."""
REMEMBERED = 10_000
"""Replicas of which it is known since when they are silent, the last that were asked for: far more than ever live."""


@dataclass(slots=True)
class Counters:
    """What a replica did since it started; written into its heartbeat for `/health`.

    `pending` are the markers that its last looks saw, shard by shard: jobs that wait or run, here or elsewhere.
    """

    running: int = 0
    pending: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0


class Liveness:
    """Judges by change alone, whatever a heartbeat says. Safe for threads."""

    def __init__(self, dead_after_s: float, clock: Callable[[], float]) -> None:
        self._dead_after_s = dead_after_s
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: LRUCache[str, tuple[str | None, float]] = LRUCache(REMEMBERED)

    def is_dead(self, name: str, beat: str | None, looked_at: float | None = None) -> bool:
        """`beat` is what the heartbeat looked like (None: there is none) at `looked_at`, by default now."""
        now = self._clock()
        with self._lock:
            seen = self._seen.get(name)
            if seen is None or seen[0] != beat:
                self._seen[name] = (beat, now)
                return False
        return (now if looked_at is None else looked_at) - seen[1] >= self._dead_after_s


class OwnTime:
    """A monotonic clock of the seconds in which a replica could beat: of the time from one beat to the next it counts
    `most_s` at most. Before the first beat it is `clock`."""

    def __init__(self, clock: Callable[[], float], most_s: float) -> None:
        self._clock = clock
        self._most_s = most_s
        self._last: tuple[float, float] | None = None

    def __call__(self) -> float:
        now = self._clock()
        if self._last is None:
            return now
        beat_at, counted = self._last
        return counted + min(now - beat_at, self._most_s)

    def beat(self) -> None:
        """It could beat, now."""
        self._last = self._clock(), self()


class Heartbeats:
    """One replica's own heartbeat, and its view of the others'. `store_clock` learns from each beat."""

    def __init__(
        self,
        store: ObjectStore,
        replica_id: str,
        dead_after_s: float,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        store_clock: StoreClock | None = None,
    ) -> None:
        self._store_clock = store_clock
        self._store = store
        self._key = keys.heartbeat(replica_id)
        self._clock = clock
        self._wall_clock = wall_clock
        self._own_time = OwnTime(clock, LONGEST_GAP * dead_after_s)
        self._liveness = Liveness(dead_after_s, self._own_time)
        self._beats: dict[str, str] = {}
        self._looked_at: float | None = None

    def beat(self, counters: Counters) -> None:
        """Write this replica's heartbeat; the clock in it makes every one different."""
        body = json.dumps({"schema_version": 1, "at": self._clock(), **asdict(counters)}).encode()
        before = self._store_clock.own() if self._store_clock else 0.0
        written = self._store.put(self._key, body, content_type="application/json")
        self._own_time.beat()
        if self._store_clock:
            self._store_clock.learn(before, self._store_clock.own(), written.last_modified)

    def remove(self) -> None:
        """Take this replica's heartbeat away."""
        self._store.delete(self._key)

    def live(self) -> Set[str]:
        """The replicas whose heartbeat has not stopped, as far as this one can tell. Looks at all of them."""
        looked_at = self._own_time()
        beats = {info.key.removeprefix(keys.heartbeat()).removesuffix(".v1.json"): info.etag for info in self._all()}
        self._beats, self._looked_at = beats, looked_at
        return {name for name in beats if not self.is_dead(name)}

    def is_dead(self, replica_id: str) -> bool:
        """Whether that replica's heartbeat, as `live` last saw it, stopped long enough ago. False the first time."""
        looked_at = self._looked_at  # first: with beats of a later look it proves less, never more
        if looked_at is None:
            return False
        beat = self._beats.get(replica_id)
        return self._liveness.is_dead(replica_id, beat, looked_at)

    def forget_old(self) -> None:
        """Remove what replicas left that are gone for a day; without a heartbeat they count as dead all the same."""
        for info in self._all():
            if self._wall_clock() - info.last_modified.timestamp() > KEPT_S:
                self._store.delete(info.key)

    def _all(self) -> Iterator[ObjectInfo]:
        """All heartbeats that lie in the store, read a page at a time."""
        after: str | None = ""
        while after is not None:
            page = self._store.list(keys.heartbeat(), after=after)
            yield from page.items
            after = page.next_after
