"""What runs have kept of a job (`progress`), read for a listener: which units there are, and one waveform at a time."""

import io
import threading
from dataclasses import dataclass

import numpy as np
from cachetools import LRUCache
from numpy.lib.npyio import NpzFile

from serve_app import keys, logs
from serve_app.domain import Pcm
from serve_app.jobs.progress import PAUSES, UNREADABLE
from serve_app.jobs.records import JobRef
from serve_app.storage import ObjectInfo, ObjectStore

__all__ = ["KeptIndex", "KeptReader", "KeptUnit"]

MIB = 1024 * 1024
LOOKED_BYTES = 64 * MIB
"""Of objects that were not read before, in one look: a second or two of a store's time."""
OBJECT_BYTES = MIB
"""What a small object counts as, for a request costs time as well."""
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class KeptUnit:
    """A unit and where it lies: `name` inside the object `key`. `pause_s`: silence before it."""

    key: str
    name: str
    index: int
    made_by: str
    pause_s: float


class KeptIndex:
    """Remembers which units lie in which object, so that each is looked through once. For several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._units: LRUCache[str, tuple[KeptUnit, ...]] = LRUCache(REMEMBERED)

    def get(self, key: str) -> tuple[KeptUnit, ...] | None:
        with self._lock:
            return self._units.get(key)

    def put(self, key: str, units: tuple[KeptUnit, ...]) -> None:
        with self._lock:
            self._units[key] = units


class KeptReader:
    """For one question. Holds one object at most. Blocks on the store."""

    def __init__(self, store: ObjectStore, index: KeptIndex) -> None:
        self._store = store
        self._index = index
        self._opened: tuple[str, NpzFile] | None = None

    def units(self, ref: JobRef) -> dict[int, KeptUnit]:
        """All units of a job that are kept, by index; of one that was spoken twice, the later. None at all where there
        is so much to look through that it takes another look."""
        found: dict[int, KeptUnit] = {}
        left = LOOKED_BYTES
        for info in self._kept(ref):
            if (units := self._index.get(info.key)) is None:
                if left <= 0:
                    return {}
                left -= max(info.size_bytes, OBJECT_BYTES)
                units = self._looked_through(info.key)
            found |= {unit.index: unit for unit in units}
        return found

    def wave(self, unit: KeptUnit) -> Pcm | None:
        """Its audio; None where that was removed meanwhile, or cannot be read."""
        try:
            wave: Pcm = self._arrays(unit.key)[unit.name]
            return wave
        except UNREADABLE as error:
            logs.failure("progress_not_readable", error, key=unit.key)
            return None

    def _looked_through(self, key: str) -> tuple[KeptUnit, ...]:
        try:
            arrays = self._arrays(key)
            told = arrays[PAUSES] if PAUSES in arrays.files else ()
            pauses = {int(index): float(pause_s) for index, pause_s in told}
            parted = [(name, *name.split(" ", 2)) for name in arrays.files if name != PAUSES]
            units = tuple(
                KeptUnit(key, name, int(index), made_by, pauses.get(int(index), 0.0))
                for name, index, _, made_by in parted
            )
        except UNREADABLE as error:  # it is spoken again, or the job has ended
            logs.failure("progress_not_readable", error, key=key)
            return ()
        self._index.put(key, units)
        return units

    def _arrays(self, key: str) -> NpzFile:
        if self._opened is None or self._opened[0] != key:
            self._opened = None
            self._opened = key, np.load(io.BytesIO(self._store.get(key).body), allow_pickle=False)
        return self._opened[1]

    def _kept(self, ref: JobRef) -> list[ObjectInfo]:
        prefix, after, found = keys.job(ref.tenant, ref.job_id, "progress-"), "", list[ObjectInfo]()
        while True:
            page = self._store.list(prefix, after=after)
            found += page.items
            if page.next_after is None:
                return found
            after = page.next_after
