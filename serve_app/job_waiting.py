"""The jobs that are not ended as one Jobs replica sees them, and which of them it may begin.

    markers (listed) + words of new jobs -> in turn -> free? (nobody began it, or whoever did is dead or let it go)
                                             ^-- not those that were looked at lately and may not be begun yet --'

All replicas that live choose one of them for each job, by its id, so that not all begin one at once; what is another's
turn, and is not begun, is taken now and then all the same. A marker does not say whether its job runs, so that a look
at each costs requests: what a look found is remembered while whoever runs the job lives, and looked at again now and
then, some at a time. Nothing here is remembered of a job that is seen no more.
"""

import asyncio
import heapq
from collections.abc import Collection
from functools import partial

from serve_app import logs
from serve_app.errors import JobExpired, JobNotFound
from serve_app.heartbeats import Heartbeats
from serve_app.job_holds import TENDED_EVERY, Holds, Sweep, spread
from serve_app.job_models import Models
from serve_app.job_queue import JobQueue, Turns, chosen_for, fair_order
from serve_app.jobs import JobRef, JobStatus, JobStore, Marker
from serve_app.patience import logged

__all__ = ["WaitingJobs"]

LONG_SWEEPS = 20
"""Sweeps after which a job that must run alone is waited for."""
TENDED_MOST = 32
"""Jobs that are tended after one sweep of those that wait, and of those that another runs, the longest overdue."""
OTHERS_TURN = 4
"""Every so many sweeps a replica also takes jobs that it is another's turn to begin, and has not begun, and looks at
those that another runs."""
MOST = 100_000
"""Jobs in the queue, at most, of which a replica is told; and remembered answers to whose turn a job is."""


class WaitingJobs:
    """Used from one event loop."""

    def __init__(self, jobs: JobStore, heartbeats: Heartbeats, replica_id: str, models: Models, holds: Holds) -> None:
        self._jobs = jobs
        self._heartbeats = heartbeats
        self._replica_id = replica_id
        self._models = models
        self._queue = JobQueue(jobs, replica_id)
        self._holds = holds
        self._waited: dict[JobRef, int] = {}  # sweeps that have seen a job, and found it not running here
        self._told: dict[JobRef, Marker] = {}  # jobs that this replica was told of since the last look began
        self._own: set[JobRef] = set()  # jobs in the queue that it was told of
        self._known: set[JobRef] = set()  # jobs that were seen before the last look, or told of since
        self._looked: dict[JobRef, int] = {}  # the sweep after which a job was looked at, or might have been
        self._turns = Turns()
        self._sweep = Sweep()
        self._mine: dict[str, bool] = {}  # whether this replica is chosen, as long as the same ones live

    def __len__(self) -> int:
        return len(self._queue)

    def tell(self, marker: Marker) -> None:
        """A job is new, or waits again: it is in the queue at once. Of very many some are left to the sweeps."""
        if len(self._queue) < MOST:
            self._told[marker.ref] = marker
            self._known.add(marker.ref)
            self._own.add(marker.ref)
            self._holds.release(marker.ref)
            self._queue.add(marker)

    def is_held(self, ref: JobRef) -> bool:
        """Whether it was looked at, or ran here, and may have to wait: for what it is begun only after another look."""
        return ref in self._holds

    def any_beside(self, running: Collection[JobRef]) -> bool:
        """Whether any waits, or runs elsewhere, as far as was seen."""
        return any(marker.ref not in running for marker in self._queue)

    def audio_s(self, running: Collection[JobRef]) -> tuple[float, float]:
        """Planned seconds of speech of all that is not ended, and of those jobs of it that run here."""
        here = sum(marker.audio_s for marker in self._queue if marker.ref in running)
        return self._queue.audio_s, float(max(here, len(running)))  # one may run that no look has seen yet

    async def sweep(self, running: Collection[JobRef]) -> None:
        """See who lives, and this replica's share of the jobs."""
        live = await asyncio.to_thread(self._heartbeats.live)
        if live != self._sweep.live or len(self._mine) > MOST:
            self._sweep, self._mine = Sweep(self._sweep.number, live), {}
        await self.look(self._queue.share(len(live)))
        self._sweep = Sweep(self._sweep.number + 1, live)
        waiting = [marker.ref for marker in self._queue if marker.ref not in running]
        self._waited = {ref: self._waited.get(ref, 0) + 1 for ref in waiting}
        self._holds.forget_found(but=self._waited)
        self._looked = {ref: self._looked.get(ref, self._sweep.number - spread(ref)) for ref in waiting}

    async def look(self, shards: Collection[str]) -> None:
        """See anew what lies in these shards."""
        self._known = {marker.ref for marker in self._queue}
        self._told.clear()
        try:
            await asyncio.to_thread(self._queue.look, shards)
        finally:
            for marker in self._told.values():  # meanwhile: the look may have been too early for these
                self._queue.add(marker)
        seen = {marker.ref for marker in self._queue}
        self._own &= seen
        self._holds.forget_left(but=seen)

    def in_turn(self, running: Collection[JobRef]) -> list[Marker]:
        """Those that do not run here and may be free, in fair order; what is another's turn comes last, and now and
        then. A new one is left for a turn to whoever was told of it. But where a job of low priority would be begun,
        all others are before it, whosever turn they are."""
        own = self._own | self._holds.left()
        mine: list[Marker] = []
        others: list[Marker] = []
        left: list[Marker] = []  # to other replicas
        for each in self._queue:
            if (
                each.ref in running
                or not self._holds.may_be_free(each.ref, self._sweep)
                or self._models.rests(each.ref, running)
            ):
                continue
            if each.ref not in self._known and each.ref not in self._holds.left():
                left.append(each)
            elif each.ref in own or self.is_mine(each.ref.job_id):
                mine.append(each)
            else:
                (others if self._waited.get(each.ref, 1) % OTHERS_TURN == 0 else left).append(each)
        if any(each.low_priority for each in (*mine, *others)):
            others += [each for each in left if not each.low_priority]
        # Each in an order of its own: what is another's turn gives nobody's jobs here a later one.
        first = fair_order(mine, running, self._turns.last)
        then = fair_order(others, [*running, *(each.ref for each in mine)], self._turns.last)
        return sorted([*first, *then], key=lambda each: each.low_priority)

    def begun(self, ref: JobRef) -> None:
        """Its run begins here: that was its tenant's turn."""
        self._turns.took(ref.tenant)

    def is_mine(self, thing: str) -> bool:
        """Whether this replica is the one that all who live choose for a job id, or for a shard."""
        if thing not in self._mine:
            self._mine[thing] = chosen_for(thing, self._sweep.live | {self._replica_id}) == self._replica_id
        return self._mine[thing]

    def has_waited_long(self, marker: Marker) -> bool:
        return self._waited.get(marker.ref, 0) >= LONG_SWEEPS

    async def free(self, marker: Marker, running: Collection[JobRef] = ()) -> JobStatus | None:
        """The job, if this replica may take it: nobody who lives has it, and its model does not rest."""
        if self._models.rests(marker.ref, running):  # since the last of its jobs was begun
            return None
        self._holds.hold(marker.ref, self._sweep.number + 1)  # one that cannot be read
        status = await self._status(marker)
        self._holds.release(marker.ref)
        if status is None:
            return None
        if status.outcome is not None:
            return await self._left_over(marker, status)
        return (
            status
            if self._holds.may_take(marker.ref, status, self._sweep) and not self._models.rests(marker.ref, running)
            else None
        )

    async def make_room(self, running: Collection[JobRef], most: int) -> bool:
        """Have a run end whose model takes nothing, if a job of another could begin then. False: all were looked at."""
        stuck = self._models.stuck()
        waiting = self.in_turn(running) if stuck else []
        for looks, marker in enumerate(each for each in waiting if self._models.of(each.ref) not in stuck):
            if looks == most:
                return True
            try:
                status = await self.free(marker, running)
            except Exception as error:
                logs.failure("job_not_readable", error, job_id=marker.ref.job_id)
                continue
            if status is not None and status.outcome is not None:
                self._holds.hold(marker.ref, self._sweep.number + 1)  # its end is made good by whoever tends it
            elif status is not None and status.request.speech.model not in stuck:
                self._models.give_way()
                break
        return False

    async def tend(self, running: Collection[JobRef]) -> None:
        """Look at some of this replica's that do not run here, whether there is room or not: a ttl may be over, an end
        not settled, or a run that went on elsewhere ended without one."""
        due: dict[bool, list[tuple[int, str, Marker]]] = {True: [], False: []}
        for each in [marker for marker in self._queue if marker.ref not in running and self.is_mine(marker.ref.job_id)]:
            elsewhere = self._holds.is_elsewhere(each.ref)
            looked = self._looked.get(each.ref, self._sweep.number)
            overdue = self._sweep.number - looked - (OTHERS_TURN if elsewhere else TENDED_EVERY)
            if overdue >= 0:
                due[elsewhere].append((overdue, each.ref.job_id, each))
        for _, _, marker in [each for some in due.values() for each in heapq.nlargest(TENDED_MOST, some)]:
            if marker.ref not in running:  # begun meanwhile
                await logged(partial(self._end_if_over, marker), "job_not_tended")

    def leave(self, ref: JobRef, until: float) -> None:
        """Its run here is over and it is not ended: it may go on at `until` of the clock."""
        self._holds.leave(ref, until)

    def ended(self, ref: JobRef) -> None:
        self._holds.ended(ref)
        self._told.pop(ref, None)
        self._queue.discard(ref)

    async def _end_if_over(self, marker: Marker) -> None:
        status = await self._status(marker)
        if status is None:
            return
        if status.outcome is None:
            self._holds.may_take(marker.ref, status, self._sweep)
        elif await self._left_over(marker, status) is not None:
            await asyncio.to_thread(self._jobs.settle, status.request, status.outcome)
            self.ended(marker.ref)

    async def _left_over(self, marker: Marker, status: JobStatus) -> JobStatus | None:
        """A job that has ended, if its marker is left over, so that it is to be settled."""
        if (
            marker != status.marker
        ):  # of a twin with the same idempotency key, of before a retry, or of an older version
            await asyncio.to_thread(self._jobs.markers.remove, marker, older=True)
        if await asyncio.to_thread(self._jobs.markers.has, status.marker):
            return status
        self.ended(marker.ref)
        return None

    async def _status(self, marker: Marker) -> JobStatus | None:
        """None where there is no job, or no result of it any more: then the marker goes."""
        ref = marker.ref
        self._looked[ref] = self._sweep.number  # also one that cannot be read: the others have their turn
        try:
            status = await asyncio.to_thread(self._jobs.status, ref)
        except (JobNotFound, JobExpired) as error:
            logs.event("marker_without_job", job_id=ref.job_id, code=error.code)
            await asyncio.to_thread(self._jobs.settle_removed, ref)
            await asyncio.to_thread(self._jobs.markers.remove, marker, older=True)
            self._queue.discard(ref)
            return None
        self._models.learn(ref, status.request.speech.model)
        return status
