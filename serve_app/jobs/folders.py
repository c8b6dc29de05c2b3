"""The records of each job as objects in a folder of its own: named, written, read. Knows nothing of what they mean."""

import secrets
from typing import TypeVar

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
    """`exclusive`: the store proved conditional writes (`storage.conditions_hold`). Blocks on the store."""

    def __init__(self, store: ObjectStore, *, exclusive: bool = False) -> None:
        self._store = store
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

    def body(self, ref: JobRef, name: str) -> bytes:
        """Raises ObjectNotFound."""
        return self._store.get(keys.job(ref.tenant, ref.job_id, name)).body

    def delete(self, ref: JobRef, name: str) -> None:
        self._store.delete(keys.job(ref.tenant, ref.job_id, name))
