"""Which jobs one Jobs replica runs when, those of replicas that died included.

    start(ref) ----.
                    >--> slots (bounded) --> JobExecutor: one run
    sweep() -------'

A job is at-least-once and its effects are idempotent, so a wrong guess that a replica is dead costs a second
synthesis, never a wrong result. Knows nothing of HTTP, Ray or models.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Set
from contextvars import Context
from dataclasses import dataclass

from serve_app import keys, logs
from serve_app.errors import JobNotFound
from serve_app.heartbeats import Counters, Heartbeats
from serve_app.job_executor import JobExecutor, Speak
from serve_app.jobs import JobRef, JobStore
from serve_app.storage import ObjectStore

__all__ = ["JobRunner", "RunnerSettings"]

SWEEP_PAGE = 100
"""Markers that one look at a shard reads; more wait for the next look."""

MAX_PAUSE_S = 60.0
"""Between two runs of one job: 2, 4, 8 ... seconds, up to this."""


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """See JobsSettings for what the numbers mean."""

    replica_id: str
    max_running_jobs: int
    max_runs: int
    heartbeat_s: float
    dead_after_s: float
    sweep_s: float


class JobRunner:
    """One replica's share of the jobs. `speak` turns an accepted request into speech."""

    def __init__(
        self,
        store: ObjectStore,
        speak: Speak,
        settings: RunnerSettings,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.counters = Counters()
        self._jobs = JobStore(store)
        self._heartbeats = Heartbeats(store, settings.replica_id, settings.dead_after_s, clock, wall_clock)
        self._executor = JobExecutor(
            self._jobs, speak, settings.replica_id, settings.max_runs, self.counters, wall_clock, sleep
        )
        self._settings = settings
        self._clock = clock
        self._tasks: dict[JobRef, asyncio.Task[None]] = {}
        self._failures: dict[JobRef, tuple[int, float]] = {}  # runs that did not end, and when the next may begin
        self._pending: set[JobRef] = set()  # what the last sweep saw, less what has ended here since
        self._told: set[JobRef] = set()  # what this replica was told of since, and had no room for
        self._look = asyncio.Event()
        self._closing = False

    async def start(self, ref: JobRef) -> bool:
        """Run the job here, now; False if it must wait in the store: no room, or older ones wait already."""
        if ref in self._tasks:
            return True
        if self._closing or not self._has_room() or self._backlog():
            self._told.add(ref)
            self._look.set()  # the sweep takes the oldest first
            return False
        self._begin(ref)
        return True

    async def wait(self, ref: JobRef) -> None:
        """Until this replica is done with the job; at once if it does not run here."""
        if task := self._tasks.get(ref):
            await asyncio.shield(task)

    async def serve(self) -> None:
        """Beat and sweep until cancelled. What fails is logged, and tried again at the next turn."""
        await asyncio.gather(
            self._logged(self._forget_old, "heartbeats_kept"),
            self._repeat(self.beat, "heartbeat_failed", lambda: asyncio.sleep(self._settings.heartbeat_s)),
            self._repeat(self.sweep, "sweep_failed", self._next_sweep),
        )

    async def beat(self) -> None:
        """Write this replica's heartbeat."""
        self.counters.running = len(self._tasks)
        await asyncio.to_thread(self._heartbeats.beat, self.counters)

    async def sweep(self) -> None:
        """Look at the oldest pending jobs of every shard; start those that nobody alive is running, oldest first."""
        refs: list[JobRef] = []
        for shard in keys.SHARDS:
            refs += await asyncio.to_thread(self._jobs.pending, shard, limit=SWEEP_PAGE)
        known, self._pending = self._pending | self._told, set(refs)
        self._told.clear()
        self.counters.pending = len(refs)
        for ref in sorted(refs, key=lambda ref: ref.job_id):  # ids are UUIDv7: their order is that of time
            if self._closing or not self._has_room():
                break
            if ref in self._tasks:
                continue
            try:
                if await self._is_free(ref, known):
                    self._begin(ref)
            except Exception as error:  # one broken record must not keep the others waiting
                logs.failure("job_not_readable", error, job_id=ref.job_id)

    async def close(self, drain_s: float = 0.0) -> None:
        """Take nothing more, give running jobs `drain_s` to end, then stop them.

        What is stopped is taken over by another replica once this one's heartbeat has stopped.
        """
        self._closing = True
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=drain_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _has_room(self) -> bool:
        return len(self._tasks) < self._settings.max_running_jobs

    def _backlog(self) -> bool:
        """Whether jobs wait that do not run here, as far as the last sweep saw."""
        return not self._pending <= self._tasks.keys()

    def _begin(self, ref: JobRef) -> None:
        # An empty context: the job outlives the call that started it, and must not be cancelled or logged with it.
        self._tasks[ref] = asyncio.get_running_loop().create_task(self._run(ref), context=Context())

    async def _is_free(self, ref: JobRef, known: Set[JobRef]) -> bool:
        """Whether this replica may take the job: nobody began it, or whoever did is dead."""
        try:
            status = await asyncio.to_thread(self._jobs.status, ref)
        except JobNotFound as error:
            logs.failure("marker_without_job", error, job_id=ref.job_id)
            await asyncio.to_thread(self._jobs.clear_marker, ref)
            return False
        if status.outcome is not None:
            return True  # ended, with its marker left over: taking it removes the marker
        if status.run is None:
            return ref in known  # new ones are left for a turn to the replica that was told of them
        owner = status.run.owner
        if owner == self._settings.replica_id:  # begun here, but not running here: it is between two runs
            return self._clock() >= self._failures.get(ref, (0, 0.0))[1]
        return await asyncio.to_thread(self._heartbeats.is_dead, owner)

    async def _run(self, ref: JobRef) -> None:
        try:
            ended = await self._executor.execute(ref)
            if ended:
                self._failures.pop(ref, None)
                self._pending.discard(ref)
            else:
                failures = self._failures.get(ref, (0, 0.0))[0] + 1
                self._failures[ref] = (failures, self._clock() + min(2.0**failures, MAX_PAUSE_S))
        finally:
            self._tasks.pop(ref, None)
            if self._backlog():
                self._look.set()

    async def _forget_old(self) -> None:
        await asyncio.to_thread(self._heartbeats.forget_old)

    async def _next_sweep(self) -> None:
        """At once when a slot came free while jobs wait; otherwise after `sweep_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._look.wait(), self._settings.sweep_s)
        self._look.clear()

    async def _repeat(
        self, turn: Callable[[], Awaitable[None]], failure: str, pause: Callable[[], Awaitable[None]]
    ) -> None:
        while True:
            await self._logged(turn, failure)
            await pause()

    async def _logged(self, turn: Callable[[], Awaitable[None]], failure: str) -> None:
        try:
            await turn()
        except Exception as error:
            logs.failure(failure, error)
