"""The jobs that are not ended, as keys alone: a marker for each, by which all that must run is found by listing.

    pending/{shard}/{accepted_ms}.{job_id}.{tenant}.{n or l}{audio_s}      a store lists in the order of keys: by age

A marker is written before a client hears of its job, and goes when all that follows from the job's end is done.
"""

import threading
from collections.abc import Iterator, Sequence

from cachetools import LRUCache

from serve_app import keys
from serve_app.errors import ObjectNotFound
from serve_app.jobs.records import Marker, parse_marker
from serve_app.storage import ObjectStore

__all__ = ["Markers"]

PAGE = 1000
REMEMBERED = 10_000
"""Jobs that a process remembers to have a marker."""


class Markers:
    """Blocks on the store; safe for threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._seen: LRUCache[str, None] = LRUCache(REMEMBERED)  # only the end of a job takes its marker away

    def put(self, marker: Marker) -> None:
        self._store.put(marker.key, b"", content_type="application/json")
        self._see(marker)

    def remove(self, marker: Marker, *, older: bool = False) -> None:
        """Take an ended job off the pending list; `older`: the marker of the version before this one too."""
        self._store.delete(marker.key)
        if older:
            self._store.delete(marker.older_key)

    def has(self, marker: Marker) -> bool:
        """Whether the job is on the pending list."""
        try:
            self._store.head(marker.key)
        except ObjectNotFound:
            return False
        return True

    def was_there(self, marker: Marker) -> bool:
        """As `has`, of a job that is not ended: looked for once, since nothing but the job's end, or another
        generation, takes away what was seen or written."""
        with self._lock:
            if marker.key in self._seen:
                return True
        if found := self.has(marker):
            self._see(marker)
        return found

    def all(self, shard: str) -> Iterator[Marker]:
        """All jobs of `shard` that are not ended, the oldest first, read a page at a time."""
        found, after = self.page(shard, limit=PAGE)
        yield from found
        while after:
            found, after = self.page(shard, limit=PAGE, after=after)
            yield from found

    def oldest(self, shard: str, *, limit: int) -> Sequence[Marker]:
        """The oldest jobs of `shard` that are not ended, at most `limit`."""
        return self.page(shard, limit=limit)[0]

    def page(self, shard: str, *, limit: int, after: str = "") -> tuple[Sequence[Marker], str]:
        """What the next `limit` keys behind the key `after` tell, the oldest first; and the key to go on behind, "" at
        the end. What is no marker is passed over, so there may be fewer markers than keys, or none before the end."""
        prefix = keys.pending(shard)
        page = self._store.list(prefix, after=after, limit=limit)
        markers = (parse_marker(info.key.removeprefix(prefix)) for info in page.items)
        return [marker for marker in markers if marker is not None], page.next_after or ""

    def _see(self, marker: Marker) -> None:
        with self._lock:
            self._seen[marker.key] = None
