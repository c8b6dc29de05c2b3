"""Indexes over jobs, as keys alone: which jobs are in which state, the newest first; and what is removed when.

    lists/{state}/{2**48 - 1 - accepted_ms}.{job_id}      `open`, or an outcome; a store lists in the order of keys
    expiry/{shard}/{expires_ms}.{job_id}.{tenant}

An entry is a hint: one in `open` is written before the job it speaks of and goes after its end, so a reader looks at
the job itself; one of an outcome is written after it, and believed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from serve_app import keys
from serve_app.jobs.records import TENANT, UUID, JobRef, JobRequest, OutcomeState
from serve_app.storage import ObjectStore

__all__ = ["LISTS", "Due", "Entry", "JobLists", "ListName"]

ListName = Literal["open"] | OutcomeState
LISTS: tuple[ListName, ...] = ("open", "completed", "cancelled", "failed", "expired")
LAST_MS = 2**48 - 1
ENTRY = re.compile(rf"(?P<inverse>[0-9a-f]{{12}})\.{UUID}")
DUE = re.compile(rf"(?P<ms>[0-9a-f]{{12}})\.{UUID}\.{TENANT}")
PAGE = 100


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A job in a list; entries sort as the list does. `name`: where a page begins again, the same in every list."""

    name: str
    job_id: str
    accepted_ms: int
    listed: ListName


@dataclass(frozen=True, slots=True)
class Due:
    """Something to be removed at `ms` (Unix milliseconds)."""

    ref: JobRef
    ms: int
    key: str


class JobLists:
    """Writes and reads the entries. Blocks on the store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, request: JobRequest, name: ListName) -> None:
        self._store.put(keys.listed(request.tenant, name, entry_name(request)), b"", content_type="text/plain")

    def remove(self, request: JobRequest, name: ListName) -> None:
        self._store.delete(keys.listed(request.tenant, name, entry_name(request)))

    def drop(self, tenant: str, entry: Entry) -> None:
        """Remove an entry that speaks of no job."""
        self._store.delete(keys.listed(tenant, entry.listed, entry.name))

    def newest(self, tenant: str, name: ListName, *, after: str = "", page_size: int = PAGE) -> Iterator[Entry]:
        """The jobs of a list, the newest first, from behind the entry `after`; read a page at a time."""
        prefix = keys.listed(tenant, name)
        start = prefix + after
        while True:
            page = self._store.list(prefix, after=start, limit=page_size)
            for info in page.items:
                if found := ENTRY.fullmatch(info.key.removeprefix(prefix)):
                    yield Entry(found[0], found["job_id"], LAST_MS - int(found["inverse"], 16), name)
            if page.next_after is None:
                return
            start = page.next_after

    def expire(self, ref: JobRef, at: float) -> None:
        """Have what is kept under this id (a job, an answer, speech) looked at when `at` (Unix seconds) has come."""
        entry = f"{int(1000 * at) + 1:012x}.{ref.job_id}.{ref.tenant}"  # never before `at`: then it would be done with
        self._store.put(keys.expiry(ref.job_id[-1], entry), b"", content_type="text/plain")

    def due(self, shard: str, now: float, *, limit: int = PAGE) -> list[Due]:
        """What is past its time, the longest first, at most `limit`."""
        prefix = keys.expiry(shard)
        found = (
            (info.key, DUE.fullmatch(info.key.removeprefix(prefix)))
            for info in self._store.list(prefix, limit=limit).items
        )
        due = [
            Due(JobRef(tenant=match["tenant"], job_id=match["job_id"]), int(match["ms"], 16), key)
            for key, match in found
            if match
        ]
        return [each for each in due if each.ms <= 1000 * now]

    def done(self, due: Due) -> None:
        self._store.delete(due.key)


def entry_name(request: JobRequest) -> str:
    return f"{LAST_MS - int(1000 * request.accepted_at):012x}.{request.job_id}"
