"""Which Jobs replicas live: each writes one object now and then, and the others watch whether it still changes.

A replica is dead when its heartbeat's etag has not changed for `dead_after_s` on the *observer's* monotonic clock,
so no two machines' clocks are compared; and a look that is old says nothing of now. Methods block on the store: async
callers run them in a thread.
"""

import json
import time
from collections.abc import Callable, Set
from dataclasses import asdict, dataclass

from serve_app import keys
from serve_app.storage import ObjectStore
from serve_app.store_clock import StoreClock

__all__ = ["Counters", "Heartbeats", "Liveness"]

KEPT_S = 86_400
"""By two machines' wall clocks, so far beyond any difference between them."""


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
    """Judges by change alone, whatever a heartbeat says."""

    def __init__(self, dead_after_s: float, clock: Callable[[], float]) -> None:
        self._dead_after_s = dead_after_s
        self._clock = clock
        self._seen: dict[str, tuple[str | None, float]] = {}

    def is_dead(self, name: str, beat: str | None, looked_at: float | None = None) -> bool:
        """`beat` is what the heartbeat looked like (None: there is none) at `looked_at`, by default now."""
        now = self._clock()
        if name not in self._seen or self._seen[name][0] != beat:
            self._seen[name] = (beat, now)
            return False
        return (now if looked_at is None else looked_at) - self._seen[name][1] >= self._dead_after_s


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
        self._liveness = Liveness(dead_after_s, clock)
        self._beats: dict[str, str] = {}
        self._looked_at: float | None = None

    def beat(self, counters: Counters) -> None:
        """Write this replica's heartbeat; the clock in it makes every one different."""
        body = json.dumps({"schema_version": 1, "at": self._clock(), **asdict(counters)}).encode()
        before = self._store_clock.own() if self._store_clock else 0.0
        written = self._store.put(self._key, body, content_type="application/json")
        if self._store_clock:
            self._store_clock.learn(before, self._store_clock.own(), written.last_modified)

    def remove(self) -> None:
        """Take this replica's heartbeat away."""
        self._store.delete(self._key)

    def live(self) -> Set[str]:
        """The replicas whose heartbeat has not stopped, as far as this one can tell. Looks at all of them."""
        prefix, after, beats, looked_at = keys.heartbeat(), "", dict[str, str](), self._clock()
        while True:
            page = self._store.list(prefix, after=after)
            beats |= {info.key.removeprefix(prefix).removesuffix(".v1.json"): info.etag for info in page.items}
            if page.next_after is None:
                break
            after = page.next_after
        self._beats, self._looked_at = beats, looked_at
        return {name for name, beat in beats.items() if not self._liveness.is_dead(name, beat, looked_at)}

    def is_dead(self, replica_id: str) -> bool:
        """Whether that replica's heartbeat, as `live` last saw it, stopped long enough ago. False the first time."""
        return self._liveness.is_dead(replica_id, self._beats.get(replica_id), self._looked_at)

    def forget_old(self) -> None:
        """Remove what replicas left that are gone for a day; without a heartbeat they count as dead all the same."""
        for info in self._store.list(keys.heartbeat()).items:
            if self._wall_clock() - info.last_modified.timestamp() > KEPT_S:
                self._store.delete(info.key)
