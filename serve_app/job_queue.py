"""The jobs that are not ended, as one Jobs replica sees them, and whose turn it is.

Markers alone tell tenant, age, priority and seconds of speech, so nothing is read but listings. Shards are looked at in
turn, some at a time: the more replicas there are, the fewer each looks at, and each begins elsewhere.
"""

import hashlib
import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping

from serve_app import keys
from serve_app.jobs import JobRef, JobStore, Marker

__all__ = ["JobQueue", "Turns", "chosen", "chosen_for", "fair_order"]

SWEEP_PAGE = 1000
"""Markers that one look at a shard reads, and as many of those behind them, which come in turn."""
TENANTS = 10_000
"""Tenants whose last turn is remembered; of more, those that had theirs the longest ago count as never served."""


class JobQueue:
    """A Jobs replica's view. `look` blocks on the store, and may do so beside all else, which is in memory."""

    def __init__(self, jobs: JobStore, replica_id: str) -> None:
        self._markers = jobs.markers
        begin = hashlib.sha256(replica_id.encode()).digest()[0] % len(keys.SHARDS)
        self._turn = deque(keys.SHARDS)
        self._turn.rotate(-begin)
        self._seen: dict[str, dict[str, Marker]] = {shard: {} for shard in keys.SHARDS}  # a look replaces whole shards
        self._behind: dict[str, str] = {}  # the key behind which the next look behind the first page begins

    def share(self, replicas: int) -> list[str]:
        """The shards whose turn it is, if `replicas` look at them in turn."""
        share = -(-len(keys.SHARDS) // max(1, replicas))
        shards = [self._turn[index] for index in range(share)]
        self._turn.rotate(-share)
        return shards

    def look(self, shards: Iterable[str]) -> None:
        """See anew what lies in these shards."""
        for shard in shards:
            found, more = self._markers.page(shard, limit=SWEEP_PAGE)
            if more:  # a page of what lies behind, another one each time
                after = self._behind.get(shard) or more
                behind, self._behind[shard] = self._markers.page(shard, limit=SWEEP_PAGE, after=after)
                found = [*found, *behind]
            self._seen[shard] = {marker.ref.job_id: marker for marker in found}

    def add(self, marker: Marker) -> None:
        """See a job before a look has found it."""
        self._seen[marker.ref.job_id[-1]][marker.ref.job_id] = marker

    def discard(self, ref: JobRef) -> None:
        """It has ended; the next look would find that too."""
        self._seen[ref.job_id[-1]].pop(ref.job_id, None)

    def __iter__(self) -> Iterator[Marker]:
        return (marker for found in self._seen.values() for marker in found.values())

    def __len__(self) -> int:
        return sum(map(len, self._seen.values()))

    @property
    def audio_s(self) -> float:
        """Planned seconds of speech of all that it sees."""
        return float(sum(marker.audio_s for marker in self))


def chosen(ref: JobRef, names: Iterable[str]) -> str:
    """The one of these replicas that all who know them choose for the job, by its id (rendezvous hashing)."""
    return chosen_for(ref.job_id, names)


def chosen_for(thing: str, names: Iterable[str]) -> str:
    """As `chosen`, for anything that has a name."""
    return max(names, key=lambda name: hashlib.sha256(f"{name} {thing}".encode()).digest())


class Turns:
    """When each tenant had its last turn, as a number that grows. A replica knows of its own turns alone: each sees a
    share of all tenants' jobs, so what is fair at each is fair in all."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()
        self._count = 0

    def took(self, tenant: str) -> None:
        """A job of this tenant is begun."""
        self._count += 1
        self._last[tenant] = self._count
        self._last.move_to_end(tenant)
        if len(self._last) > TENANTS:
            self._last.popitem(last=False)

    @property
    def last(self) -> Mapping[str, int]:
        """By tenant, the latest is the highest, from 1; of one that had none nothing."""
        return self._last


def fair_order(
    waiting: Iterable[Marker], running: Iterable[JobRef] = (), last: Mapping[str, int] | None = None
) -> Iterator[Marker]:
    """Whose turn it is: of the tenant that has the fewest running, the oldest first; low priority after all others.

    Of tenants with equally few the one whose `last` turn (see `Turns`) was the longest ago is next, so that a freed
    slot does not always fall to whoever has the oldest jobs.
    """
    classes: dict[bool, dict[str, list[Marker]]] = {False: {}, True: {}}
    for marker in sorted(waiting, key=lambda marker: (marker.accepted_ms, marker.ref.job_id), reverse=True):
        classes[marker.low_priority].setdefault(marker.ref.tenant, []).append(marker)
    served, turn = Counter(ref.tenant for ref in running), dict(last or {})
    now = max(turn.values(), default=0)
    for tenants in classes.values():
        turns = [(served[each], turn.get(each, 0), queue[-1].accepted_ms, each) for each, queue in tenants.items()]
        heapq.heapify(turns)
        while turns:
            *_, tenant = heapq.heappop(turns)
            queue = tenants[tenant]
            yield queue.pop()
            now += 1
            served[tenant], turn[tenant] = served[tenant] + 1, now
            if queue:
                heapq.heappush(turns, (served[tenant], now, queue[-1].accepted_ms, tenant))
