"""Pages of a tenant's jobs, the newest first, from the lists alone wherever these can be believed.

    `open`, `begun` -> `ended`, listed after them where both are shown, so that what ends meanwhile is in one of them
    -> entries, merged in order -> what each says: in `open` alone, queued; one of an outcome alone, that
    -> all others are asked one by one: begun and not ended, retried, or left in a list by a crash

So a page costs three listings at most, however many jobs there are, and equal pages that are asked for at once share
them. A page heals what it comes across: entries that a crash left, and a job that waits without a marker.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from cachetools import TTLCache

from serve_app import logs
from serve_app.coalescing import Coalesced
from serve_app.domain import JobState
from serve_app.jobs import RETRYABLE, Entry, JobLists, JobRef, JobStore, Listed, ListName, Part
from serve_app.storage import ObjectStore

__all__ = ["SCANNED", "JobPage", "JobPages", "ListedJob"]

SCANNED = 200
"""Entries that one page looks at, at most, where it finds few that were asked for."""
DOUBTED_S = 3600.0
"""An entry of `open` this old is asked about all the same, and then believed for as long: two who are accepted at once
with one idempotency key may leave one that nobody else takes away."""
WINDOW = 20
"""Entries of each list that are looked at together, at least, however few are asked for."""
REMEMBERED = 10_000
BEGUN_AGE_S, BEGUN_AGAIN_S = 5.0, 2.0
"""How old it may be what a page says of a job that was begun and is in no outcome's list: in progress, or queued again.
Each such job is asked for by a listing of its own; again after a while, beside the page that shows it, so that no page
waits for it as long as some are asked for."""
FIRST: frozenset[ListName] = frozenset(("open", "begun"))


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job in a list. `accepted_at`: Unix seconds."""

    job_id: str
    state: JobState
    accepted_at: float


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs, the newest first. `next_after`: None at the end; a page may be empty before it."""

    items: tuple[ListedJob, ...]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a job that was begun was, `at` a time of the clock."""

    state: JobState
    at: float


@dataclass(frozen=True, slots=True)
class _Window:
    """The next entries in order, what was listed to know of them, and where the next window begins (None: nowhere)."""

    entries: Sequence[Entry]
    parts: Mapping[ListName, Part]
    listed: Mapping[str, Collection[Entry]]  # by job id
    after: str | None

    def says(self, entry: Entry) -> Listed | None:
        """The one thing that its entries say of this job; None where it is not one, or where that is not known."""
        names = {each.listed for each in self.listed[entry.job_id]}
        known = all(part.tells_of(entry.name) for part in self.parts.values())
        return entry.listed if known and names == {entry.listed} else None


class JobPages:
    """Blocks on the store. `pool`: where it asks several things at once. `clock`: monotonic seconds; `wall_clock`: Unix
    seconds."""

    def __init__(
        self,
        store: ObjectStore,
        jobs: JobStore,
        pool: Executor,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._jobs = jobs
        self._lists = JobLists(store)
        self._listings = Coalesced[Part]()
        self._pool = pool
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._waits: TTLCache[tuple[str, str], None] = TTLCache(REMEMBERED, DOUBTED_S, clock)
        self._clock = clock
        self._begun: TTLCache[tuple[str, str], _Seen] = TTLCache(REMEMBERED, BEGUN_AGE_S, clock)
        self._again: set[tuple[str, str]] = set()

    def page(self, tenant: str, state: JobState | None, *, after: str = "", limit: int = 20) -> JobPage:
        """Jobs of one state or of all, from behind the entry `after`."""
        items: dict[str, ListedJob] = {}
        size = max(limit, WINDOW)
        for _ in range(-(-SCANNED // size)):
            window = self._window(tenant, state, after, size)
            for entry, found in zip(window.entries, self._states(tenant, window), strict=True):
                if found is not None and state in (None, found):
                    items.setdefault(entry.job_id, ListedJob(entry.job_id, found, entry.accepted_ms / 1000))
                if len(items) == limit:
                    return JobPage(tuple(items.values()), entry.name)
            if window.after is None:
                return JobPage(tuple(items.values()), None)
            after = window.after
        return JobPage(tuple(items.values()), after)

    def _window(self, tenant: str, state: JobState | None, after: str, limit: int) -> _Window:
        """Of each list no more than is asked for, since each entry costs time to parse."""
        shown, beside = _lists_for(state)
        names = {*shown, *beside}
        if state == "queued":
            parts = self._parts(tenant, names, after, limit)
            self._reach_what_waits(tenant, parts, limit)
        else:
            parts = self._parts(tenant, names & FIRST, after, limit)
            parts |= self._parts(tenant, names - FIRST, after, limit)
        ends = min((end for name in shown if (end := parts[name].reaches) is not None), default=None)
        entries = {
            each.name: each for name in shown for each in parts[name].entries if ends is None or each.name <= ends
        }
        ordered = sorted(entries.values(), key=lambda each: each.name)[:limit]
        listed = defaultdict[str, list[Entry]](list)
        for part in parts.values():
            for each in part.entries:
                listed[each.job_id].append(each)
        return _Window(ordered, parts, listed, ends if len(entries) <= limit else ordered[-1].name)

    def _reach_what_waits(self, tenant: str, parts: dict[ListName, Part], limit: int) -> None:
        """What ended meanwhile waited when this was asked, so the order of listing is free; but so many may have ended
        since the first that waits was accepted that these have to be listed from there on."""
        waiting = parts["open"].entries
        if waiting and not parts["ended"].tells_of(waiting[-1].name):
            parts |= self._parts(tenant, {"ended"}, waiting[0].name[:-1], limit)

    def _parts(self, tenant: str, names: Collection[ListName], after: str, limit: int) -> dict[ListName, Part]:
        def ask(name: ListName) -> Part:
            listing = partial(self._lists.part, tenant, name, after=after, limit=limit)
            return self._listings.call((tenant, name, after, limit), listing)

        return dict(zip(names, self._pool.map(ask, names), strict=True))

    def _states(self, tenant: str, window: _Window) -> Sequence[JobState | None]:
        """Of each entry in the window, None where there is no job; only what the lists leave open is asked for."""
        said = [self._believed(tenant, each, window) for each in window.entries]
        asked = [each for each, state in zip(window.entries, said, strict=True) if state is None]
        found = self._pool.map(lambda entry: self._asked(tenant, window.listed[entry.job_id]), asked)
        return [next(found) if state is None else state for state in said]

    def _believed(self, tenant: str, entry: Entry, window: _Window) -> JobState | None:
        """What the lists alone say of it, None where that is not enough."""
        name = window.says(entry)
        if name == "begun":
            return None
        if name != "open":
            return name
        if entry.accepted_ms / 1000 + DOUBTED_S > self._wall_clock():
            return "queued"
        with self._lock:
            return "queued" if (tenant, entry.name) in self._waits else None

    def _asked(self, tenant: str, entries: Collection[Entry]) -> JobState | None:
        """What the job of these entries says itself, or said a moment ago. Works in the pool."""
        key = tenant, next(iter(entries)).name
        with self._lock:
            seen = self._begun.get(key) if {each.listed for each in entries} <= FIRST else None
            if seen is not None:
                if self._clock() - seen.at >= BEGUN_AGAIN_S and key not in self._again:
                    self._again.add(key)
                    self._pool.submit(self._look_again, key, entries)
                return seen.state
        return self._looked(tenant, entries)

    def _look_again(self, key: tuple[str, str], entries: Collection[Entry]) -> None:
        try:
            self._looked(key[0], entries)
        except Exception as error:  # of the store: what was seen holds until it is too old
            logs.failure("begun_job_not_looked_at", error, job_id=next(iter(entries)).job_id)
        finally:
            with self._lock:
                self._again.discard(key)

    def _looked(self, tenant: str, entries: Collection[Entry]) -> JobState | None:
        """What the job says itself; an entry of one that is removed goes."""
        first = next(iter(entries))
        ref = JobRef(tenant=tenant, job_id=first.job_id)
        found = self._jobs.standing(ref)
        if not found.exists or found.gone:
            for entry in entries:
                self._lists.drop(tenant, entry)
            return None
        if found.outcome is not None:
            self._drop_begun(ref, entries, found.outcome)
        elif found.state == "queued":
            if not found.runs:  # whoever began one saw to its marker
                self._restore(ref, found.generation)
            with self._lock:
                self._waits.update({(tenant, entry.name): None for entry in entries})
        if found.outcome is None:
            with self._lock:
                self._begun[tenant, first.name] = _Seen(found.state, self._clock())
        return found.state

    def _restore(self, ref: JobRef, generation: int) -> None:
        """Whoever accepted or retried it may have died before its marker: then nobody would run it."""
        try:
            self._jobs.restore(ref, generation)
        except Exception as error:  # a broken record does not keep the other jobs from their page
            logs.failure("job_not_restored", error, job_id=ref.job_id)

    def _drop_begun(self, ref: JobRef, entries: Collection[Entry], outcome: Listed) -> None:
        """Of a job that is settled: one that ended as it was begun may be left in `begun`, and looked at for ever."""
        for entry in entries:
            if entry.listed == "begun" and self._lists.has(ref.tenant, entry, outcome):
                self._lists.drop(ref.tenant, entry)
                if self._jobs.standing(ref).outcome is None:  # it was retried meanwhile, and may be begun again
                    self._lists.keep(ref.tenant, entry)


def _lists_for(state: JobState | None) -> tuple[tuple[ListName, ...], tuple[ListName, ...]]:
    """Whose entries are shown, and which other lists say whether these can be believed."""
    if state is None:
        return ("open", "ended"), ("begun",)
    if state == "queued":
        return ("open",), ("begun", "ended")
    if state == "in_progress":
        return ("begun",), ()
    return (state,), ("open",) if state in RETRYABLE else ()
