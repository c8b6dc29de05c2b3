"""The records of each job as objects in a folder of its own: named, written, read. Knows nothing of what they mean."""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from cachetools import LRUCache

from serve_app import keys
from serve_app.errors import ObjectNotFound
from serve_app.jobs import states
from serve_app.jobs.records import JobRef, Record
from serve_app.jobs.states import Standing
from serve_app.storage import ConditionalStore, ObjectStore

__all__ = ["JobFolders"]

JSON = "application/json"
R = TypeVar("R", bound=Record)


class JobFolders:
    """`exclusive`: the store proved conditional writes (`storage.conditions_hold`). `kept_bytes`: of records that are
    `kept`, as they lie in the store; `pool`: where `ahead` reads. Blocks on the store."""

    def __init__(
        self, store: ObjectStore, *, exclusive: bool = False, kept_bytes: int = 0, pool: Executor | None = None
    ) -> None:
        self._store = store
        self._pool = pool
        self._lock = threading.Lock()
        self._kept: LRUCache[str, tuple[Record, int]] = LRUCache(kept_bytes, getsizeof=lambda each: each[1])
        self._exclusive = store if exclusive and isinstance(store, ConditionalStore) else None

    @property
    def exclusive(self) -> bool:
        return self._exclusive is not None

    def names(self, ref: JobRef) -> set[str]:
        """Of all records of a job, by one listing for each thousand."""
        prefix, names, after = keys.job(ref.tenant, ref.job_id), set[str](), ""
        while True:
            page = self._store.list(prefix, after=after)
            names |= {info.key.removeprefix(prefix) for info in page.items}
            if page.next_after is None:
                return names
            after = page.next_after

    def standing(self, ref: JobRef) -> Standing:
        """The state of a job, whether it exists or not."""
        return states.standing(self.names(ref))

    def write(self, ref: JobRef, name: str, record: Record) -> None:
        self.note(ref, name, record.model_dump_json().encode())

    def write_once(self, ref: JobRef, name: str, record: Record) -> bool:
        """False where another has written this record; without conditional writes nobody can know."""
        if self._exclusive is None:
            self.write(ref, name, record)
            return True
        body = record.model_dump_json().encode()
        return self._exclusive.put_new(keys.job(ref.tenant, ref.job_id, name), body, content_type=JSON)

    def note(self, ref: JobRef, name: str, body: bytes = b"") -> None:
        """Write what is no record: its name says most of it."""
        self._store.put(keys.job(ref.tenant, ref.job_id, name), body, content_type=JSON)

    def note_once(self, ref: JobRef, name: str) -> bool:
        """Note it; False where it was noted before."""
        key = keys.job(ref.tenant, ref.job_id, name)
        if self._exclusive is not None:
            return self._exclusive.put_new(key, secrets.token_hex(8).encode(), content_type=JSON)
        try:
            self._store.head(key)
        except ObjectNotFound:
            self.note(ref, name)
            return True
        return False

    def read(self, ref: JobRef, name: str, kind: type[R]) -> R:
        """Raises ObjectNotFound."""
        return kind.model_validate_json(self.body(ref, name))

    def kept(self, ref: JobRef, name: str, kind: type[R], *, keeps: Callable[[R], bool] = lambda _: True) -> R:
        """As `read`, but from memory where it was read before: of a record that nobody can have written otherwise.

        Whether it is there still is not asked: whoever comes here has listed the folder. Raises ObjectNotFound.
        """
        key = keys.job(ref.tenant, ref.job_id, name)
        with self._lock:
            record, _ = self._kept.get(key, (None, 0))
        if isinstance(record, kind):
            return record
        body = self.body(ref, name)
        read = kind.model_validate_json(body)
        if len(body) <= self._kept.maxsize and keeps(read):
            with self._lock:
                self._kept[key] = read, len(body)
        return read

    def ahead(self, ref: JobRef, name: str, kind: type[R]) -> Callable[[], R]:
        """Begin to read, beside what comes next, an outcome or a run; to be called for the record.

        It is `kept` where conditional writes let only one be written. Elsewhere two owners may write it, and the last
        one counts: there it is read anew each time.
        """
        read = self.kept if self.exclusive else self.read
        with self._lock:
            is_kept = keys.job(ref.tenant, ref.job_id, name) in self._kept
        if self._pool is None or is_kept:
            return partial(read, ref, name, kind)
        return self._pool.submit(read, ref, name, kind).result

    def body(self, ref: JobRef, name: str) -> bytes:
        """Raises ObjectNotFound."""
        return self._store.get(keys.job(ref.tenant, ref.job_id, name)).body

    def delete(self, ref: JobRef, name: str) -> None:
        self._store.delete(keys.job(ref.tenant, ref.job_id, name))
