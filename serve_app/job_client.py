"""How the rest of the service reaches jobs: submit one, ask for its state, wait for its end, cancel it, list them.

The store is the truth: a runner that cannot be reached costs time, never a job. Only `tell` and `run` speak to a
runner; all else is answered from the store.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from itertools import count, islice
from typing import NamedTuple, Protocol

from serve_app import keys, logs
from serve_app.domain import JobState
from serve_app.errors import Conflict, JobExpired, JobNotFound, ObjectCorrupt, ObjectNotFound, ServiceError
from serve_app.job_pages import JobPage, JobPages
from serve_app.job_pieces import JobPieces, Taken
from serve_app.job_teller import TELL_S, JobTeller
from serve_app.jobs import Claim, Idempotency, JobRef, JobRequest, JobStatus, JobStore, Marker, Results
from serve_app.jobs.status import removed_at
from serve_app.queue_view import QueueView
from serve_app.storage import ObjectStore

__all__ = ["Accepted", "JobClient", "Runners", "job_ref"]

POLL_FROM_S, POLL_TO_S = 0.1, 1.0
HELD_S = 1.0
"""A call that a Jobs replica has held for so long waited for the job: another one may."""
WATCH_S = 0.5
LOOKS = 10
"""Of a stream of events every tenth look ends a job that is past its ttl, or whose end was announced, as a status does;
those between are one listing."""
AT_ONCE = 16
PURGED = 200
"""Jobs that a purge holds in memory."""
POSITION_UNASKED_S, COUNT_UNASKED_S = 60.0, 10.0
"""What was seen of the queue is no answer any more when nobody has asked for it for so long. A count is for machines,
that ask seldom and act on it."""
LAST = Marker(JobRef("", "~"), accepted_ms=2**48, low_priority=True)
"""Behind all jobs, whichever they are."""
KEPT_BYTES = 16 * 1024 * 1024
"""Of records that an ingress remembers, as they lie in the store."""
DAY_S = 86_400.0


class Runners(Protocol):
    """The Jobs replicas, any of them. Raises ServiceError when none can be reached."""

    async def start(self, markers: Sequence[Marker]) -> None:
        """Run these jobs as far as there is room; the others wait in the store."""
        ...

    async def run(self, marker: Marker) -> None:
        """Start it, and return when that replica is done with it, or after a few seconds (or had no room)."""
        ...


class Accepted(NamedTuple):
    """A job that is durable. `request`: the one that counts, see JobStore; `ended`: it was spoken before, and nobody is
    to be told of it."""

    request: JobRequest
    ended: bool = False


def job_ref(tenant: str, job_id: str) -> JobRef:
    """A reference to a job by the id a client sent, in either case. Raises JobNotFound for what cannot be an id."""
    given, job_id = job_id, job_id.lower()
    if len(job_id) != 36 or not set(job_id) <= set("0123456789abcdef-") or not job_id[-1].isalnum():
        raise JobNotFound(f"job {given[:64]!r} does not exist: ids are those that /run returns, 36 characters")
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
        self._teller = JobTeller(runners, tell_s)
        self._watch_s = watch_s
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="jobs")
        self._jobs = JobStore(store, exclusive=exclusive, wall_clock=wall_clock, kept_bytes=KEPT_BYTES, pool=self._pool)
        self._results = Results(store, wall_clock)
        self._keys = Idempotency(store, idempotency_s, wall_clock)
        self._pages = JobPages(store, self._jobs, self._pool, clock, wall_clock)
        self._pieces = JobPieces(store, self._jobs, exclusive=exclusive)
        self._queue = QueueView(self._jobs, clock)
        self._asked_at = clock()
        self._purging = asyncio.Lock()
        self._purges: set[asyncio.Task[int]] = set()
        self._runners = runners
        self._clock = clock
        self._wall_clock = wall_clock

    async def look(self, tenant: str, key: str, body_sha256: str) -> Claim:
        """The job that an idempotency key stands for, known or not. Writes nothing: what is refused before `hold` has
        not used up its key. Raises IdempotencyMismatch, InvalidRequest."""
        return await asyncio.to_thread(self._keys.look, tenant, key, body_sha256)

    async def hold(self, ref: JobRef, key: str, body_sha256: str) -> Claim:
        """Have the key stand for a job that `look` found unknown."""
        return await asyncio.to_thread(self._keys.hold, ref, key, body_sha256)

    async def submit(self, request: JobRequest) -> Accepted:
        """Make the job durable. When this returns, no crash can lose it; one that was spoken before has ended."""
        return await asyncio.to_thread(self._submit, request)

    def _submit(self, request: JobRequest) -> Accepted:
        if (counts := self._jobs.submit(request)) != request:
            return Accepted(counts)
        try:
            return Accepted(request, ended=self._end_with_found(request))
        except ServiceError as error:  # it is durable, and whoever runs it looks again
            logs.event("result_not_looked_for", job_id=request.job_id, code=error.code, reason=error.message)
            return Accepted(request)

    def _end_with_found(self, request: JobRequest) -> bool:
        if (found := self._results.find(request)) is None:
            return False
        status = self._jobs.status(request.ref)
        if status.outcome is None:
            outcome = self._jobs.completed(status, found.audio, found.draft, found.units, found.made_by, cached=True)
            self._jobs.settle(request, self._jobs.finish(outcome))
            logs.event("result_found", job_id=request.job_id, key=found.audio.key)
        return True

    def tell(self, marker: Marker) -> None:
        """Have a runner told, soon; nobody waits for that. If none can be told, a sweep finds the job."""
        self._teller.tell(marker)

    async def status(self, ref: JobRef) -> JobStatus:
        """From the store alone. Raises JobNotFound, JobExpired."""
        return await self._status(ref)

    async def _status(self, ref: JobRef, *, past: bool = False) -> JobStatus:
        return await asyncio.to_thread(partial(self._jobs.status, ref, past=past))

    async def position(self, status: JobStatus) -> int | None:
        """Of a queued job: 1 is the next; what is being spoken counts as before it. None for any other."""
        return await self._view(POSITION_UNASKED_S).position(status.marker) if status.state == "queued" else None

    async def unended(self) -> int:
        """Jobs of all tenants that wait or are being spoken, as far as the view of the queue reaches."""
        return await self._view(COUNT_UNASKED_S).position(LAST) - 1

    def _view(self, unasked_s: float) -> QueueView:
        """A new one after a silence: the first answer of the old one would be as old as that."""
        if self._clock() - self._asked_at >= unasked_s:
            self._queue = QueueView(self._jobs, self._clock)
        self._asked_at = self._clock()
        return self._queue

    async def run(self, ref: JobRef, timeout_s: float) -> JobStatus:
        """Have it run and wait for its end, at most `timeout_s`; the state it has then."""
        status = await self.status(ref)
        if status.outcome is not None:
            return status
        deadline = self._clock() + timeout_s
        while status.outcome is None and (left_s := deadline - self._clock()) > 0:
            asked_at = self._clock()
            try:
                async with asyncio.timeout(left_s):
                    await self._runners.run(status.marker)
            except TimeoutError:
                return await self._status(ref, past=True)
            except ServiceError as error:
                logs.event("runner_lost", job_id=ref.job_id, code=error.code, reason=error.message)
                break
            except Exception as error:  # of a Jobs replica of an older version, which has no such method
                logs.failure("runner_lost", error, job_id=ref.job_id)
                break
            if self._clock() - asked_at < HELD_S:  # it does not run there
                break
            status = await self._status(ref, past=True)
        return await self.wait(ref, deadline - self._clock(), past=True)

    async def wait(self, ref: JobRef, timeout_s: float, *, past: bool = False) -> JobStatus:
        """Wait for its end, at most `timeout_s`, without telling anybody; the state it has then. Who has waited, `past`
        before this, is told of an end whose time is over by then."""
        deadline, pause_s = self._clock() + timeout_s, POLL_FROM_S
        while (status := await self._status(ref, past=past)).outcome is None and self._clock() < deadline:
            await asyncio.sleep(min(pause_s, max(deadline - self._clock(), 0)))
            pause_s, past = min(2 * pause_s, POLL_TO_S), True
        return status

    async def events(self, ref: JobRef) -> AsyncIterator[JobStatus]:
        """The job now, and whenever state, run or progress has changed, to its end. Raises JobNotFound, JobExpired."""
        last = None
        for look in count():
            status = await self.status(ref) if look % LOOKS == 0 else None
            found = status.standing if status else await asyncio.to_thread(self._jobs.standing, ref)
            if found != last or (status is not None and status.outcome is not None):
                status = status or await self.status(ref)
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

    async def pieces(self, status: JobStatus) -> Taken:
        """The next pieces of the audio of a job that completed or is not ended; see JobPieces."""
        return await asyncio.to_thread(self._pieces.take, status)

    async def hand_out(self, ref: JobRef) -> bool:
        """Whether this is the first time that the job's output is streamed."""
        return await asyncio.to_thread(self._jobs.hand_out, ref)

    async def purge(self, tenant: str) -> int:
        """Cancel all jobs of a tenant that wait now; how many those were. It goes on to its end if the caller leaves;
        another that is asked for meanwhile comes after it."""
        purge = asyncio.get_running_loop().create_task(self._purge(tenant, self._wall_clock()), context=Context())
        self._purges.add(purge)
        purge.add_done_callback(self._purge_over)
        return await asyncio.shield(purge)

    def _purge_over(self, purge: asyncio.Task[int]) -> None:
        self._purges.discard(purge)
        if not purge.cancelled() and (error := purge.exception()):  # whoever asked may have left
            logs.failure("purge_broken_off", error)

    async def _purge(self, tenant: str, now: float) -> int:
        """What is accepted after `now` stays, whenever this comes to it."""
        slots, removed = asyncio.Semaphore(AT_ONCE), 0

        async def cancelled(marker: Marker) -> bool:
            async with slots:
                return await asyncio.to_thread(self._cancel_waiting, marker.ref)

        async with self._purging:
            for shard in keys.SHARDS:
                markers = self._jobs.markers.all(shard)
                while some := await asyncio.to_thread(_next, markers, PURGED):
                    waiting = (each for each in some if each.ref.tenant == tenant and each.accepted_ms <= 1000 * now)
                    ended = await asyncio.gather(*map(cancelled, waiting), return_exceptions=True)
                    if failed := [each for each in ended if isinstance(each, BaseException)]:
                        raise failed[0]  # of the store; none of the others is left behind
                    removed += ended.count(True)
        logs.event("purged", jobs=removed)
        return removed

    def _cancel_waiting(self, ref: JobRef) -> bool:
        try:
            return self._jobs.standing(ref).state == "queued" and (
                self._jobs.cancel(ref, begun=False).standing.outcome == "cancelled"
            )
        except (JobNotFound, JobExpired, ObjectNotFound, Conflict):  # a marker that is left over; or retried meanwhile
            return False
        except (ObjectCorrupt, ValueError) as error:  # one broken record keeps no other job
            logs.failure("not_purged", error, job_id=ref.job_id)
            return False

    async def page(self, tenant: str, state: JobState | None, *, after: str = "", limit: int = 20) -> JobPage:
        """Jobs of a tenant, the newest first, of one state or of all, from behind the entry `after`."""
        return await asyncio.to_thread(self._pages.page, tenant, state, after=after, limit=limit)


def _next(markers: Iterator[Marker], most: int) -> list[Marker]:
    return [*islice(markers, most)]
