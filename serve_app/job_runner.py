"""Which jobs one Jobs replica runs when, those of replicas that died included.

    start(ref) ----.
                    >--> slots (bounded) --> JobExecutor: one run
    sweep() -------'

A job is at-least-once and its effects are idempotent, so a wrong guess that a replica is dead costs a second
synthesis, never a wrong result. Knows nothing of HTTP, Ray or models.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Collection, Sequence, Set
from contextvars import Context
from dataclasses import dataclass
from functools import partial

from serve_app import keys, logs
from serve_app.errors import JobExpired, JobNotFound
from serve_app.heartbeats import Counters, Heartbeats
from serve_app.job_executor import MAX_PAUSE_S, ExecutorSettings, JobExecutor, Speak
from serve_app.job_queue import JobQueue, chosen, chosen_for, fair_order
from serve_app.job_webhooks import Webhooks
from serve_app.jobs import COLLECT_PAGE, Collector, JobRef, JobStatus, JobStore, Marker, marker_of
from serve_app.patience import forever, logged
from serve_app.storage import ObjectStore

__all__ = ["JobRunner", "RunnerSettings"]

ALONE_FROM = 2
"""Runs of a job that did not end: one may be the replica's fault, from two on it may be the job's."""
ALONE_AFTER_SWEEPS = 20
MANY = 100_000
TENDED_EVERY = 10
"""Sweeps between two looks at a job that waits, where there is no room to begin it."""
OTHERS_TURN = 4
"""Every so many sweeps a replica also takes jobs that it is another's turn to begin, and has not begun."""


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """See JobsSettings for what the numbers mean."""

    replica_id: str
    max_running_jobs: int
    max_runs: int
    heartbeat_s: float
    dead_after_s: float
    sweep_s: float
    watch_s: float = 1.0
    collect_s: float = 60.0
    execution_timeout_s: float = 600.0
    execution_per_audio: float = 10.0


class JobRunner:
    """One replica's share of the jobs. `speak` turns an accepted request into speech; `exclusive`: see JobStore.
    `webhooks` sends those of jobs that ended, None: nobody does."""

    def __init__(
        self,
        store: ObjectStore,
        speak: Speak,
        settings: RunnerSettings,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        exclusive: bool = False,
        webhooks: Webhooks | None = None,
    ) -> None:
        self.counters = Counters()
        self._webhooks = webhooks
        self._jobs = JobStore(store, exclusive=exclusive, wall_clock=wall_clock)
        self._heartbeats = Heartbeats(store, settings.replica_id, settings.dead_after_s, clock, wall_clock)
        limits = ExecutorSettings(
            settings.replica_id, settings.max_runs, settings.execution_timeout_s, settings.execution_per_audio
        )
        self._executor = JobExecutor(store, self._jobs, speak, limits, self.counters, wall_clock, sleep)
        self._collector = Collector(store, wall_clock)
        self._settings = settings
        self._clock = clock
        self._wall_clock = wall_clock
        self._queue = JobQueue(self._jobs, settings.replica_id)
        self._tasks: dict[JobRef, asyncio.Task[None]] = {}
        self._alone: JobRef | None = None  # a job whose last run did not end: nothing runs beside it
        self._left: dict[JobRef, float] = {}  # runs that ended here without the store knowing: when they may go on
        self._waited: dict[JobRef, int] = {}  # sweeps that have seen this job, and did not run it
        self._told: set[JobRef] = set()  # what this replica was told of since, and had no room for
        self._own: set[JobRef] = set()  # jobs that this replica was told of, and has not begun
        self._known: set[JobRef] = set()  # jobs that were seen before the last look, or told of
        self._live: Set[str] = frozenset()
        self._mine: dict[JobRef, bool] = {}  # whether this replica is chosen, as long as the same ones live
        self._looked_at = -math.inf
        self._wake = asyncio.Event()
        self._closing = False

    async def start(self, ref: JobRef) -> bool:
        """Run the job here, now; False if it must wait in the store: no room, or older ones wait already."""
        if ref in self._tasks:
            return True
        if not self._may_begin() or self._backlog():
            self._told.add(ref)
            self._wake.set()  # the oldest goes first
            return False
        self._begin(ref)
        return True

    async def wait(self, ref: JobRef) -> None:
        """Until this replica is done with the job; at once if it does not run here."""
        if task := self._tasks.get(ref):
            await asyncio.wait({task})  # it may be cancelled, which is no cancellation of who waits

    async def serve(self) -> None:
        """Beat, sweep, watch and collect until cancelled. What fails is logged, and tried again at the next turn."""
        every = self._settings
        await asyncio.gather(
            logged(self._forget_old, "heartbeats_kept"),
            forever(self.beat, "heartbeat_failed", lambda: asyncio.sleep(every.heartbeat_s)),
            forever(self._turn, "sweep_failed", self._next_turn),
            forever(self.watch, "watch_failed", lambda: asyncio.sleep(every.watch_s)),
            forever(self.collect, "collect_failed", lambda: asyncio.sleep(every.collect_s)),
        )

    async def beat(self) -> None:
        """Write this replica's heartbeat."""
        self.counters.running = len(self._tasks)
        await asyncio.to_thread(self._heartbeats.beat, self.counters)

    async def sweep(self) -> None:
        """Look at this replica's share of the pending jobs, start those that nobody alive is running, send webhooks."""
        self._looked_at = self._clock()
        live = await asyncio.to_thread(self._heartbeats.live)
        if live != self._live or len(self._mine) > MANY:
            self._live, self._mine = live, {}
        await self._look(self._queue.share(len(self._live)))
        waiting = [marker for marker in self._queue if marker.ref not in self._tasks]
        self._waited = {marker.ref: self._waited.get(marker.ref, 0) + 1 for marker in waiting}
        await self.fill()
        await self._tend()
        if self._webhooks is not None:
            await self._webhooks.sweep(self._is_mine)

    async def fill(self) -> None:
        """Start jobs while there is room, in fair order, of those that the last looks have seen."""
        waiting = [marker for marker in self._queue if marker.ref not in self._tasks]
        for marker in self._in_turn(waiting):
            if not self._may_begin():
                break
            if marker.ref in self._tasks:  # begun meanwhile, by `start`
                continue
            try:
                status = await self._free(marker)
                if status is None:
                    continue
                alone = status.standing.lost >= ALONE_FROM
                if alone and self._tasks:
                    if self._waited.get(marker.ref, 0) >= ALONE_AFTER_SWEEPS:
                        break  # it has waited for an empty replica long enough: nothing more is begun until it can
                    continue
                if not self._may_begin():
                    break
                self._begin(marker.ref, status.standing.run, alone=alone)
            except Exception as error:  # one broken record must not keep the others waiting
                logs.failure("job_not_readable", error, job_id=marker.ref.job_id)

    async def _tend(self) -> None:
        """Look at some that wait, whether there is room or not: a ttl may be over, or an end not settled."""
        waiting = [m for m in self._queue if m.ref not in self._tasks and self._is_mine(m.ref)]
        for marker in sorted(waiting, key=lambda m: self._waited.get(m.ref, 0), reverse=True):
            if self._waited.get(marker.ref, 0) % TENDED_EVERY == TENDED_EVERY - 1:
                await logged(partial(self._end_if_over, marker), "job_not_tended")

    async def _end_if_over(self, marker: Marker) -> None:
        status = await self._status(marker)
        if status is not None and status.outcome is not None:
            await asyncio.to_thread(self._jobs.settle, status.request, status.outcome)
            self._queue.discard(marker.ref)

    async def _look(self, shards: Collection[str]) -> None:
        """See anew what lies in these shards, and in those of the jobs that this replica was told of."""
        told, self._told = self._told, set()
        self._known = told | {marker.ref for marker in self._queue}
        self._own |= told
        await asyncio.to_thread(self._queue.look, {*shards, *(ref.job_id[-1] for ref in told)})
        seen = {marker.ref for marker in self._queue}
        self._own &= seen
        self._left = {ref: at for ref, at in self._left.items() if ref in seen}
        self.counters.pending = len(self._queue)

    async def watch(self) -> None:
        """Stop what is no longer this replica's: a client cancelled it, its time is over, or another has begun it."""
        for ref, task in list(self._tasks.items()):
            if self._executor.run_of(ref) is None:
                continue
            found = await asyncio.to_thread(self._jobs.standing, ref)
            mine = self._executor.run_of(ref)  # None by now where it is being ended here
            if mine is not None and (found.outcome is not None or found.run > mine):
                logs.event("run_stopped", job_id=ref.job_id, state=found.state, run=mine)
                if found.outcome is not None:
                    self._executor.ended_elsewhere(ref)
                task.cancel()  # of a run that another thought dead the store is told that it was not

    def retire(self) -> None:
        """Take this replica's heartbeat away: it is stopped for good. Blocks on the store."""
        self._heartbeats.remove()

    async def collect(self) -> None:
        """Remove what is past its retention: in the shards that fall to this replica, as long as there is something."""
        for shard in keys.SHARDS:
            if chosen_for(shard, self._live | {self._settings.replica_id}) == self._settings.replica_id:
                while not self._closing and await asyncio.to_thread(self._collector.collect, shard) == COLLECT_PAGE:
                    await asyncio.sleep(0)

    async def close(self, drain_s: float = 0.0) -> None:
        """Take nothing more, give running jobs `drain_s` to end, then stop them.

        What is stopped is let go in the store, with what it has spoken, so that another replica goes on at once.
        """
        self._closing = True
        if tasks := list(self._tasks.values()):
            await asyncio.wait(tasks, timeout=drain_s)
        while tasks := list(self._tasks.values()):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._webhooks is not None:
            await self._webhooks.close()

    def audio_waiting(self) -> dict[str, float]:
        """Planned seconds of speech: of all jobs that are not ended, as far as this replica sees; of those it runs."""
        running = sum(marker.audio_s for marker in self._queue if marker.ref in self._tasks)
        return {
            "unended_audio_s": self._queue.audio_s,
            "running_audio_s": float(max(running, len(self._tasks))),  # one may run that no sweep has seen
        }

    def _may_begin(self) -> bool:
        room = self._alone is None and len(self._tasks) < self._settings.max_running_jobs
        return room and not self._closing

    def _backlog(self) -> bool:
        """Whether jobs wait that do not run here, as far as the last sweep saw."""
        return any(marker.ref not in self._tasks for marker in self._queue)

    def _begin(self, ref: JobRef, after_run: int | None = None, *, alone: bool = False) -> None:
        # An empty context: the job outlives the call that started it, and must not be cancelled or logged with it.
        self._tasks[ref] = asyncio.get_running_loop().create_task(self._run(ref, after_run), context=Context())
        if alone:
            self._alone = ref

    def _in_turn(self, waiting: Sequence[Marker]) -> list[Marker]:
        """In fair order; those of which it is another's turn come last and now and then, so that not all begin one at
        once, nor look at all that others run."""
        own = self._own | self._left.keys()
        mine = {marker.ref: marker.ref in own or self._is_mine(marker.ref) for marker in waiting}
        considered = (each for each in waiting if mine[each.ref] or self._waited.get(each.ref, 1) % OTHERS_TURN == 0)
        return sorted(fair_order(considered, self._tasks), key=lambda each: (each.low_priority, not mine[each.ref]))

    def _is_mine(self, ref: JobRef) -> bool:
        if ref not in self._mine:
            self._mine[ref] = chosen(ref, self._live | {self._settings.replica_id}) == self._settings.replica_id
        return self._mine[ref]

    async def _free(self, marker: Marker) -> JobStatus | None:
        """The job, if this replica may take it: nobody began it, or whoever did is dead or let it go."""
        ref, status = marker.ref, await self._status(marker)
        if status is None:
            return None
        if status.outcome is not None:
            own = marker_of(status.request, status.outcome.generation)
            if marker != own:  # of a twin with the same idempotency key, of before a retry, or of an older version
                await asyncio.to_thread(self._jobs.clear_marker, marker, older=True)
            if await asyncio.to_thread(self._jobs.is_marked, own):
                return status  # ended, with its marker left over: taking it settles it
            self._queue.discard(ref)
            return None
        if status.run is None:
            return status if ref in self._known else None  # a new one is left for a turn to whoever was told of it
        if status.run_end is not None:
            left_s = status.run_end.not_before - self._wall_clock()
            return status if left_s <= 0 or left_s > MAX_PAUSE_S else None  # more than a pause: clocks differ
        if status.run.owner == self._settings.replica_id:  # begun here, and not running here
            return status if self._clock() >= self._left.get(ref, 0.0) else None
        self._left.pop(ref, None)
        return status if self._heartbeats.is_dead(status.run.owner) else None

    async def _status(self, marker: Marker) -> JobStatus | None:
        """None where there is no job, or no result of it any more: then the marker goes."""
        ref = marker.ref
        try:
            return await asyncio.to_thread(self._jobs.status, ref)
        except (JobNotFound, JobExpired) as error:
            logs.event("marker_without_job", job_id=ref.job_id, code=error.code)
            await asyncio.to_thread(self._jobs.settle_removed, ref)
            await asyncio.to_thread(self._jobs.clear_marker, marker, older=True)
            self._queue.discard(ref)
            return None

    async def _run(self, ref: JobRef, after_run: int | None) -> None:
        ended = False
        try:
            ended = await self._executor.execute(ref, after_run)
        finally:
            self._tasks.pop(ref, None)
            if self._alone == ref:
                self._alone = None
            if ended:
                self._left.pop(ref, None)
                self._queue.discard(ref)
            else:
                self._left[ref] = self._clock() + self._settings.sweep_s
            if self._backlog():
                self._wake.set()

    async def _forget_old(self) -> None:
        await asyncio.to_thread(self._heartbeats.forget_old)

    async def _turn(self) -> None:
        """A sweep where one is due; else what a freed slot or a word about a new job asks for."""
        if self._clock() - self._looked_at >= self._settings.sweep_s:
            await self.sweep()
            return
        if self._told:
            await self._look(())
        await self.fill()

    async def _next_turn(self) -> None:
        """At once when a slot came free while jobs wait, or when told of one; otherwise when a sweep is due."""
        with contextlib.suppress(TimeoutError):
            left_s = self._looked_at + self._settings.sweep_s - self._clock()
            await asyncio.wait_for(self._wake.wait(), min(max(left_s, 0.0), self._settings.sweep_s))
        self._wake.clear()
