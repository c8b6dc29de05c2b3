"""How the rest of the service reaches jobs: submit one, ask for its state, wait for its end, cancel it, list them.

The store is the truth: a runner that cannot be reached costs time, never a job. Only `start` and `run` speak to a
runner; all else is answered from the store.
"""

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol

from serve_app import keys, logs
from serve_app.domain import JobState
from serve_app.errors import JobExpired, JobNotFound, ServiceError
from serve_app.job_queue import QueueView
from serve_app.jobs import (
    LISTS,
    Claim,
    Entry,
    Idempotency,
    JobLists,
    JobRef,
    JobRequest,
    JobStatus,
    JobStore,
    ListName,
    Marker,
    Results,
)
from serve_app.jobs.status import removed_at
from serve_app.storage import ObjectStore

__all__ = ["JobClient", "JobPage", "ListedJob", "Runners", "job_ref"]

POLL_FROM_S, POLL_TO_S = 0.1, 2.0
WATCH_S = 0.5
TELL_S = 2.0
"""A handle without a running replica waits for one; the job is durable, so its client need not."""
SCANNED = 200
"""Entries that one page looks at, at most, where it must look at the jobs themselves."""
AT_ONCE = 16
HOUR_S, DAY_S = 3600.0, 86_400.0


class Runners(Protocol):
    """The Jobs replicas, any of them. Raises ServiceError when none can be reached."""

    async def start(self, ref: JobRef) -> None:
        """Run the job if there is room; otherwise it waits in the store."""
        ...

    async def run(self, ref: JobRef) -> None:
        """Start it, and return when that replica is done with it (or had no room)."""
        ...


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


def job_ref(tenant: str, job_id: str) -> JobRef:
    """A reference to a job by the id a client sent. Raises JobNotFound for what cannot be an id."""
    if len(job_id) != 36 or not set(job_id) <= set("0123456789abcdef-") or not job_id[-1].isalnum():
        raise JobNotFound(f"job {job_id[:64]!r} does not exist: ids are those that /run returns, 36 characters")
    return JobRef(tenant=tenant, job_id=job_id)


class JobClient:
    """Lives in an ingress replica. `exclusive`: see JobStore. `idempotency_s`: how long a key is remembered.
    `watch_s`: between two looks of `events`."""

    def __init__(
        self,
        store: ObjectStore,
        runners: Runners,
        clock: Callable[[], float] = time.monotonic,
        tell_s: float = TELL_S,
        *,
        exclusive: bool = False,
        idempotency_s: float = DAY_S,
        wall_clock: Callable[[], float] = time.time,
        watch_s: float = WATCH_S,
    ) -> None:
        self._tell_s = tell_s
        self._watch_s = watch_s
        self._jobs = JobStore(store, exclusive=exclusive, wall_clock=wall_clock)
        self._results = Results(store, wall_clock)
        self._lists = JobLists(store)
        self._keys = Idempotency(store, idempotency_s, wall_clock)
        self._queue = QueueView(self._jobs, clock)
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="jobs")
        self._runners = runners
        self._clock = clock
        self._wall_clock = wall_clock

    async def claim(self, tenant: str, key: str, body_sha256: str) -> Claim:
        """The job that an idempotency key stands for. Raises IdempotencyMismatch, InvalidRequest."""
        return await asyncio.to_thread(self._keys.claim, tenant, key, body_sha256)

    async def look(self, tenant: str, key: str, body_sha256: str) -> Claim:
        """The first half of `claim`, which writes nothing: what is refused between the two has not used up its key."""
        return await asyncio.to_thread(self._keys.look, tenant, key, body_sha256)

    async def hold(self, ref: JobRef, key: str, body_sha256: str) -> Claim:
        """The second half, for a job that `look` found unknown."""
        return await asyncio.to_thread(self._keys.hold, ref, key, body_sha256)

    async def submit(self, request: JobRequest) -> JobRef:
        """Make the job durable. When this returns, no crash can lose it; one that was spoken before has ended."""
        await asyncio.to_thread(self._submit, request)
        return request.ref

    def _submit(self, request: JobRequest) -> None:
        self._jobs.submit(request)
        try:
            self._end_with_found(request)
        except ServiceError as error:  # it is durable, and whoever runs it looks again
            logs.event("result_not_looked_for", job_id=request.job_id, code=error.code, reason=error.message)

    def _end_with_found(self, request: JobRequest) -> None:
        if (found := self._results.find(request)) is not None:
            status = self._jobs.status(request.ref)
            if status.outcome is None:
                outcome = self._jobs.completed(
                    status, found.audio, found.draft, found.units, found.made_by, cached=True
                )
                self._jobs.settle(request, self._jobs.finish(outcome))
                logs.event("result_found", job_id=request.job_id, key=found.audio.key)

    async def start(self, ref: JobRef) -> None:
        """Tell a runner, if one answers soon. If none can be told, a sweep finds the job."""
        try:
            async with asyncio.timeout(self._tell_s):
                await self._runners.start(ref)
        except TimeoutError:
            logs.event("runner_not_told", job_id=ref.job_id, reason=f"no Jobs replica answered in {self._tell_s} s")
        except ServiceError as error:
            logs.event("runner_not_told", job_id=ref.job_id, code=error.code, reason=error.message)

    async def status(self, ref: JobRef) -> JobStatus:
        """From the store alone. Raises JobNotFound, JobExpired."""
        return await asyncio.to_thread(self._jobs.status, ref)

    async def position(self, status: JobStatus) -> int | None:
        """Of a queued job: 1 is the next; what is being spoken counts as before it. None for any other."""
        return await self._queue.position(status.marker) if status.state == "queued" else None

    async def run(self, ref: JobRef, timeout_s: float) -> JobStatus:
        """Have it run and wait for its end, at most `timeout_s`; the state it has then."""
        status = await self.status(ref)
        if status.outcome is not None:
            return status
        deadline = self._clock() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._runners.run(ref)
        except TimeoutError:
            return await self.status(ref)
        except ServiceError as error:
            logs.event("runner_lost", job_id=ref.job_id, code=error.code, reason=error.message)
        return await self.wait(ref, deadline - self._clock())

    async def wait(self, ref: JobRef, timeout_s: float) -> JobStatus:
        """Wait for its end, at most `timeout_s`, without telling anybody; the state it has then."""
        deadline, pause_s = self._clock() + timeout_s, POLL_FROM_S
        while (status := await self.status(ref)).outcome is None and self._clock() < deadline:
            await asyncio.sleep(min(pause_s, max(deadline - self._clock(), 0)))
            pause_s = min(2 * pause_s, POLL_TO_S)
        return status

    async def events(self, ref: JobRef) -> AsyncIterator[JobStatus]:
        """The job now, and whenever state, run or progress has changed, to its end. Raises JobNotFound, JobExpired."""
        last = None
        while True:
            found = await asyncio.to_thread(self._jobs.standing, ref)
            if found != last:
                status = await self.status(ref)
                yield status
                if status.outcome is not None:
                    return
            last = found
            await asyncio.sleep(self._watch_s)

    async def cancel(self, ref: JobRef) -> JobStatus:
        """End it, if it has not ended; as it is then."""
        return await asyncio.to_thread(self._jobs.cancel, ref)

    async def retry(self, ref: JobRef) -> JobStatus:
        """Queue a failed or expired job again. Raises Conflict for any other."""
        return await asyncio.to_thread(self._jobs.retry, ref)

    async def shorten(self, ref: JobRef, ttl_s: float) -> None:
        """Have the result of an ended job removed `ttl_s` from now, if that is sooner; nothing for any other."""
        status, until = await self.status(ref), self._wall_clock() + ttl_s
        if status.outcome is not None and until < removed_at(status.outcome, status.standing):
            await asyncio.to_thread(self._jobs.shorten, status.request, until, status.standing.generation)

    async def hand_out(self, ref: JobRef) -> bool:
        """Whether this is the first time that the job's output is streamed."""
        return await asyncio.to_thread(self._jobs.hand_out, ref)

    async def purge(self, tenant: str) -> int:
        """Cancel all jobs of a tenant that wait; how many those were."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def cancelled(marker: Marker) -> bool:
            async with slots:
                return await asyncio.to_thread(self._cancel_waiting, marker.ref)

        removed = 0
        for shard in keys.SHARDS:
            markers = await asyncio.to_thread(list, self._jobs.unended(shard))
            mine = [marker for marker in markers if marker.ref.tenant == tenant]
            removed += sum(await asyncio.gather(*map(cancelled, mine)))
        return removed

    def _cancel_waiting(self, ref: JobRef) -> bool:
        try:
            return self._jobs.standing(ref).state == "queued" and (
                self._jobs.cancel(ref).standing.outcome == "cancelled"
            )
        except (JobNotFound, JobExpired):  # a marker that is left over
            return False

    async def page(self, tenant: str, state: JobState | None, *, after: str = "", limit: int = 20) -> JobPage:
        """Jobs of a tenant, the newest first, of one state or of all, from behind the entry `after`."""
        return await asyncio.to_thread(self._page, tenant, state, after, limit)

    def _page(self, tenant: str, state: JobState | None, after: str, limit: int) -> JobPage:
        lists: tuple[ListName, ...] = LISTS
        if state == "queued" or state == "in_progress":
            lists = ("open",)
        elif state is not None:
            lists = (state,)
        # As many at once as are asked for, since each costs time to parse.
        entries = heapq.merge(*(self._lists.newest(tenant, name, after=after, page_size=limit) for name in lists))
        items: dict[str, ListedJob] = {}
        scanned = 0
        while scanned < SCANNED and (some := list(islice(entries, limit))):
            scanned += len(some)
            for entry, listed in zip(some, self._pool.map(partial(self._listed, tenant), some), strict=True):
                if listed is not None and state in (None, listed.state):
                    items.setdefault(listed.job_id, listed)
                if len(items) == limit:
                    return JobPage(tuple(items.values()), entry.name)
        return JobPage(tuple(items.values()), some[-1].name if scanned >= SCANNED else None)

    def _listed(self, tenant: str, entry: Entry) -> ListedJob | None:
        """What an entry speaks of: one in `open` may be of a job that has ended, or was never accepted."""
        state: JobState
        if entry.listed == "open":
            found = self._jobs.standing(JobRef(tenant=tenant, job_id=entry.job_id))
            if not found.exists or found.gone:
                if entry.accepted_ms / 1000 + HOUR_S < self._wall_clock():  # else it may be about to be accepted
                    self._lists.drop(tenant, entry)
                return None
            state = found.state
        else:
            state = entry.listed
        return ListedJob(entry.job_id, state, entry.accepted_ms / 1000)
