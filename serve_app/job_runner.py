"""Which jobs one Jobs replica runs when, those of replicas that died included.

    start(marker) --.
                     >--> WaitingJobs --> fill() --> slots (bounded) --> JobExecutor: one run
    look() ---------'
          '--> tend(), webhooks

Each is a loop of its own, so that a slot that came free waits for no look at a long queue. A job is at-least-once and
its effects are idempotent, so a wrong guess that a replica is dead costs a second synthesis, never a wrong result.
Knows nothing of HTTP, Ray or models.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass
from functools import partial

from serve_app import keys, logs
from serve_app.heartbeats import Counters, Heartbeats
from serve_app.job_executor import ExecutorSettings, JobExecutor, Speak
from serve_app.job_holds import Holds
from serve_app.job_models import Models
from serve_app.job_waiting import WaitingJobs
from serve_app.job_webhooks import Webhooks
from serve_app.jobs import COLLECT_PAGE, Collector, JobRef, JobRun, JobStore, Marker, OlderJobs, Standing
from serve_app.patience import Turn, forever, heard, logged
from serve_app.storage import ObjectStore
from serve_app.store_clock import StoreClock

__all__ = ["JobRunner", "RunnerSettings"]

ALONE_FROM = 2
"""Runs of a job that did not end: one may be the replica's fault, from two on it may be the job's."""
LOOKED_AT = 32
"""Jobs that are looked at in a row for one that can be begun; then whatever else is due has its turn."""


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
    `webhooks` sends those of jobs that ended, None: nobody does. `store_clock`: takes the place of `wall_clock`."""

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
        store_clock: StoreClock | None = None,
    ) -> None:
        wall_clock = store_clock or wall_clock
        self.counters = Counters()
        self._webhooks = webhooks
        self._jobs = JobStore(store, exclusive=exclusive, wall_clock=wall_clock)
        self._heartbeats = Heartbeats(store, settings.replica_id, settings.dead_after_s, clock, wall_clock, store_clock)
        limits = ExecutorSettings(
            settings.replica_id, settings.max_runs, settings.execution_timeout_s, settings.execution_per_audio
        )
        self._wake = asyncio.Event()  # there is something to fill slots with
        models = Models(clock, wall_clock, self._wake.set)
        self._executor = JobExecutor(store, self._jobs, speak, limits, self.counters, models, wall_clock, sleep)
        self._collector = Collector(store, wall_clock)
        self._older = OlderJobs(store, self._jobs, wall_clock)
        self._settings = settings
        self._clock = clock
        holds = Holds(self._heartbeats, settings.replica_id, models, clock, wall_clock)
        self._waiting = WaitingJobs(self._jobs, self._heartbeats, settings.replica_id, models, holds)
        self._tasks: dict[JobRef, asyncio.Task[None]] = {}
        self._alone: JobRef | None = None  # a job whose last run did not end: nothing runs beside it
        self._suspects: set[JobRef] = set()  # jobs for an empty replica, as far as was seen since the last sweep
        self._swept = asyncio.Event()
        self._has_beaten = asyncio.Event()
        self._closing = False
        # Threads of their own: however many long calls hold those that all share, this replica lives, and sees.
        self._beating = ThreadPoolExecutor(1, thread_name_prefix="heartbeat")
        self._watching = ThreadPoolExecutor(1, thread_name_prefix="watch")

    async def start(self, marker: Marker) -> bool:
        """Run the job here, now; False if it must wait for its turn: no room, or others wait already."""
        if marker.ref in self._tasks:
            return True
        waits = self._waiting.is_held(marker.ref) or self._waiting.any_beside({*self._tasks, marker.ref})
        at_once = self._may_begin() and not waits
        self._waiting.tell(marker)
        if at_once:
            self._begin(marker.ref)
        else:
            self._wake.set()
        return at_once

    async def wait(self, ref: JobRef, timeout_s: float | None = None) -> None:
        """Until this replica is done with the job, or for `timeout_s`; at once if it does not run here."""
        if task := self._tasks.get(ref):
            await asyncio.wait({task}, timeout=timeout_s)  # it may be cancelled, which is no cancellation of who waits

    async def serve(self) -> None:
        """Do all that a replica does, until cancelled. What fails is logged, and tried again at the next turn."""
        every = self._settings
        await asyncio.gather(
            logged(partial(asyncio.to_thread, self._heartbeats.forget_old), "heartbeats_kept"),
            forever(self.beat, "heartbeat_failed", lambda: asyncio.sleep(every.heartbeat_s)),
            forever(self.fill, "fill_failed", partial(heard, self._wake)),
            self._once_it_beat(self._look_and_wake, "sweep_failed", lambda: asyncio.sleep(every.sweep_s)),
            forever(self._follow, "tend_failed", lambda: asyncio.sleep(0)),
            forever(self.watch, "watch_failed", lambda: asyncio.sleep(every.watch_s)),
            self._once_it_beat(self.collect, "collect_failed", lambda: asyncio.sleep(every.collect_s)),
        )

    async def _once_it_beat(self, turn: Turn, failure: str, pause: Turn) -> None:
        """As `forever`, of what judges jobs by the clock: a beat tells what time it is by the store."""
        await self._has_beaten.wait()
        await forever(turn, failure, pause)

    async def beat(self) -> None:
        """Write this replica's heartbeat."""
        self.counters.running = len(self._tasks)
        await asyncio.get_running_loop().run_in_executor(self._beating, self._heartbeats.beat, self.counters)
        self._has_beaten.set()

    async def sweep(self) -> None:
        """Once all that follows from a look, one after the other."""
        await self.look()
        await self.fill()
        await self._waiting.tend(self._tasks)
        await self.send_webhooks()

    async def look(self) -> None:
        """See who lives, and this replica's share of the pending jobs."""
        self._suspects.clear()
        await self._waiting.sweep(self._tasks)
        self.counters.pending = len(self._waiting)

    async def fill(self) -> None:
        """Start jobs while there is room, in fair order, of those that the last looks have seen; where there is none,
        have a run make room whose model takes nothing."""
        if not self._may_begin():
            if not self._closing and await self._waiting.make_room(self._tasks, LOOKED_AT):
                self._wake.set()
            return
        looks = 0
        for marker in self._waiting.in_turn(self._tasks):
            if not self._may_begin():
                return
            if marker.ref in self._tasks:  # begun meanwhile, by `start`
                continue
            if not self._needs_more_room(marker):
                if looks == LOOKED_AT:
                    self._wake.set()
                    return
                looks += 1
                await self._begin_if_free(marker)
            if self._needs_more_room(marker) and self._waiting.has_waited_long(marker):
                return  # for an empty replica: nothing more is begun until it can

    async def send_webhooks(self) -> None:
        """Begin to send what is this replica's to send."""
        if self._webhooks is not None:
            await self._webhooks.sweep(lambda ref: self._waiting.is_mine(ref.job_id))

    async def watch(self) -> None:
        """Stop what is no longer this replica's: a client cancelled it, its time is over, or another has begun it."""
        for ref, task in list(self._tasks.items()):
            await logged(partial(self._watch_one, ref, task), "watch_failed")

    async def _watch_one(self, ref: JobRef, task: asyncio.Task[None]) -> None:
        if (run := self._executor.run_of(ref)) is None:
            return
        found, owned = await asyncio.get_running_loop().run_in_executor(self._watching, self._look_at, run)
        if self._executor.run_of(ref) != run:  # it is being ended here by now
            return
        if found.outcome is not None or found.gone or found.run > run.run or not owned:
            logs.event("run_stopped", job_id=ref.job_id, state=found.state, run=run.run, owned=owned)
            if found.outcome is not None or found.gone or not owned:
                self._executor.ended_elsewhere(ref)
            if found.outcome is not None:
                self._waiting.ended(ref)
            task.cancel()  # of a run that another thought dead the store is told that it was not

    def _look_at(self, run: JobRun) -> tuple[Standing, bool]:
        found = self._jobs.standing(run.ref)
        return found, found.outcome is not None or found.run != run.run or self._jobs.is_owned(run)

    def retire(self) -> None:
        """Take this replica's heartbeat away: it is stopped for good. Blocks on the store."""
        self._heartbeats.remove()

    async def collect(self) -> None:
        """Remove what is past its retention: in the shards that fall to this replica, as long as there is something."""
        for shard in keys.SHARDS:
            while self._waiting.is_mine(shard) and not self._closing:
                if await asyncio.to_thread(self._collector.collect, shard) < COLLECT_PAGE:
                    await asyncio.to_thread(self._older.settle, shard)
                    break

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
        unended_s, running_s = self._waiting.audio_s(self._tasks)
        return {"unended_audio_s": unended_s, "running_audio_s": running_s}

    def _needs_more_room(self, marker: Marker) -> bool:
        return marker.ref in self._suspects and bool(self._tasks)

    async def _begin_if_free(self, marker: Marker) -> None:
        try:
            status = await self._waiting.free(marker, self._tasks)
        except Exception as error:  # one broken record must not keep the others waiting
            logs.failure("job_not_readable", error, job_id=marker.ref.job_id)
            return
        if status is None or marker.ref in self._tasks:  # begun meanwhile, by `start`
            return
        alone = status.standing.lost >= ALONE_FROM
        if alone and self._tasks:
            self._suspects.add(marker.ref)
        elif self._may_begin():
            self._begin(marker.ref, status.standing.run, alone=alone)

    def _may_begin(self) -> bool:
        room = self._alone is None and len(self._tasks) < self._settings.max_running_jobs
        return room and not self._closing

    def _begin(self, ref: JobRef, after_run: int | None = None, *, alone: bool = False) -> None:
        # An empty context: the job outlives the call that started it, and must not be cancelled or logged with it.
        self._tasks[ref] = asyncio.get_running_loop().create_task(self._run(ref, after_run), context=Context())
        self._waiting.begun(ref)
        if alone:
            self._alone = ref

    async def _run(self, ref: JobRef, after_run: int | None) -> None:
        ended = False
        try:
            ended = await self._executor.execute(ref, after_run)
        finally:
            self._tasks.pop(ref, None)
            if self._alone == ref:
                self._alone = None
            if ended:
                self._waiting.ended(ref)
            else:
                self._waiting.leave(ref, self._clock() + self._settings.sweep_s)
            if self._waiting.any_beside(self._tasks):
                self._wake.set()

    async def _look_and_wake(self) -> None:
        """A look, after which the other loops have something to do."""
        await self.look()
        self._swept.set()
        self._wake.set()

    async def _follow(self) -> None:
        """What is done after each sweep, beside all else: not before the first, which tells who else there is."""
        await heard(self._swept)
        await logged(self.send_webhooks, "webhooks_failed")
        await self._waiting.tend(self._tasks)
