"""Indexes over jobs, as keys alone: which jobs are in which state, the newest first; and what is removed when.

    lists/{list}/{2**48 - 1 - accepted_ms}.{job_id}             `open`, `begun`, an outcome; a store lists in key order
    lists/ended/{2**48 - 1 - accepted_ms}.{job_id}.{outcome}    whichever it was, so that one listing finds all
    expiry/{shard}/{expires_ms}.{job_id}.{tenant}

`open` has an entry from the job's acceptance to its end, `begun` one from before its first run to its end, `ended` and
an outcome's list one from after its end. A crash may leave one behind, so what a job is follows from all the lists that
it is in (`job_pages`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from serve_app import keys
from serve_app.errors import ObjectNotFound
from serve_app.jobs.records import TENANT, UUID, JobRef, JobRequest, OutcomeState
from serve_app.jobs.states import OUTCOMES
from serve_app.storage import ObjectStore

__all__ = ["LISTED", "Due", "Entry", "JobLists", "ListName", "Listed", "Part"]

Listed = Literal["open", "begun"] | OutcomeState
"""What an entry says of its job."""
LISTED: tuple[Listed, ...] = ("begun", "open", *OUTCOMES)
ListName = Listed | Literal["ended"]
LAST_MS = 2**48 - 1
ENTRY = re.compile(rf"(?P<name>(?P<inverse>[0-9a-f]{{12}})\.{UUID})")
ENDED = re.compile(rf"{ENTRY.pattern}\.(?P<listed>{'|'.join(OUTCOMES)})")
DUE = re.compile(rf"(?P<ms>[0-9a-f]{{12}})\.{UUID}\.{TENANT}")
BEHIND = ".~"
"""With a job's name, behind all outcomes of it and before all other jobs."""
PAGE = 100


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A job in a list; entries sort as the list does. `name`: where a page begins again, the same in every list."""

    name: str
    job_id: str
    accepted_ms: int
    listed: Listed


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a list, in its order. `reaches`: the name up to which nothing is missing; None: to the end."""

    entries: Sequence[Entry]
    reaches: str | None

    def tells_of(self, name: str) -> bool:
        """Whether an entry of this name would be here, if the list had it."""
        return self.reaches is None or name <= self.reaches


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

    def put(self, request: JobRequest, listed: Listed) -> None:
        self._put(request.tenant, entry_name(request), listed)

    def remove(self, request: JobRequest, listed: Listed) -> None:
        self._remove(request.tenant, entry_name(request), listed)

    def drop(self, tenant: str, entry: Entry) -> None:
        """Remove an entry that speaks of no job."""
        self._remove(tenant, entry.name, entry.listed)

    def keep(self, tenant: str, entry: Entry) -> None:
        """Write an entry again that was dropped too soon."""
        self._put(tenant, entry.name, entry.listed)

    def has(self, tenant: str, entry: Entry, listed: Listed) -> bool:
        """Whether the job of this entry is listed so, too."""
        try:
            self._store.head(_keys_of(tenant, entry.name, listed)[-1])
        except ObjectNotFound:
            return False
        return True

    def part(self, tenant: str, name: ListName, *, after: str = "", limit: int = PAGE) -> Part:
        """The newest jobs of a list from behind the entry `after`, `limit` or one more: one listing."""
        prefix = keys.listed(tenant, name)
        if name == "ended":
            return self._part_of_ended(prefix, after, limit)
        page = self._store.list(prefix, after=prefix + after, limit=limit)
        found = (ENTRY.fullmatch(info.key.removeprefix(prefix)) for info in page.items)
        entries = [_entry(each, name) for each in found if each]
        return Part(entries, page.next_after and page.next_after.removeprefix(prefix))

    def _part_of_ended(self, prefix: str, after: str, limit: int) -> Part:
        """A job may have two entries here, and the listing end between them: so it reaches up to its last job."""
        page = self._store.list(prefix, after=f"{prefix}{after}{BEHIND}" if after else prefix, limit=limit + 1)
        names = [info.key.removeprefix(prefix) for info in page.items]
        found = [ENDED.fullmatch(name) for name in names]
        entries = [_entry(each, cast("OutcomeState", each["listed"])) for each in found if each]
        if page.next_after is None:
            return Part(entries, None)
        if found[-1] is None:
            return Part(entries, names[-1])
        last = found[-1]["name"]
        return Part(entries, max((each.name for each in entries if each.name < last), default=last[:-1]))

    def expire(self, ref: JobRef, at: float) -> None:
        """Have what is kept under this id (a job, an answer, speech) looked at when `at` (Unix seconds) has come."""
        entry = f"{int(1000 * at) + 1:012x}.{ref.job_id}.{ref.tenant}"  # never before `at`: then it would be done with
        self._store.put(keys.expiry(ref.job_id[-1], entry), b"", content_type="text/plain")

    def due(self, shard: str, now: float, *, limit: int = PAGE) -> list[Due]:
        """What is past its time, the longest first, at most `limit`. What is no entry is passed over: it reads on
        behind it, a page of `limit` names at a time."""
        prefix, last = keys.expiry(shard), f"{int(1000 * now):012x}"
        found: list[Due] = []
        after: str | None = ""
        while after is not None and len(found) < limit:
            page = self._store.list(prefix, after=after, limit=limit)
            for info in page.items:
                name = info.key.removeprefix(prefix)
                if name[: len(last)] > last:  # nothing behind it is due
                    return found[:limit]
                if match := DUE.fullmatch(name):
                    ref = JobRef(tenant=match["tenant"], job_id=match["job_id"])
                    found.append(Due(ref, int(match["ms"], 16), info.key))
            after = page.next_after
        return found[:limit]

    def done(self, due: Due) -> None:
        self._store.delete(due.key)

    def _put(self, tenant: str, name: str, listed: Listed) -> None:
        for key in _keys_of(tenant, name, listed):
            self._store.put(key, b"", content_type="text/plain")

    def _remove(self, tenant: str, name: str, listed: Listed) -> None:
        for key in _keys_of(tenant, name, listed):
            self._store.delete(key)


def _keys_of(tenant: str, name: str, listed: Listed) -> list[str]:
    """Of the entries of one job that say the same: where the last is, all are."""
    alone = keys.listed(tenant, listed, name)
    return [alone, keys.listed(tenant, "ended", f"{name}.{listed}")] if listed in OUTCOMES else [alone]


def _entry(found: re.Match[str], listed: Listed) -> Entry:
    return Entry(found["name"], found["job_id"], LAST_MS - int(found["inverse"], 16), listed)


def entry_name(request: JobRequest) -> str:
    return f"{LAST_MS - int(1000 * request.accepted_at):012x}.{request.job_id}"
