"""Why one Jobs replica may not begin a job yet, as far as its looks at it have found.

    a look -> its run is another's, who lives | pauses after its last run | was left here -> held
    held -> that sweep is done | its owner lives no more | the pause is over -> may be looked at again

Only what was found is remembered; nothing here reads the store.
"""

import zlib
from collections.abc import Callable, Container, Set
from dataclasses import dataclass

from serve_app.heartbeats import Heartbeats
from serve_app.job_models import Models
from serve_app.job_retries import LONGEST_PAUSE_S
from serve_app.jobs import JobRef, JobStatus, RunEnd

__all__ = ["TENDED_EVERY", "Holds", "Sweep", "spread"]

TENDED_EVERY = 10
"""Sweeps between two looks at a job that waits, where there is no room to begin it; not the same ones for all jobs."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The last one. `number`: how many there were; `live`: replicas that lived then."""

    number: int = 0
    live: Set[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Held:
    """Until the sweep of that number, while `owner` lives (if one did), or the pause after its last run is over."""

    sweep: int = 0
    owner: str | None = None
    pause: RunEnd | None = None


class Holds:
    """Used from one event loop. `clock`: monotonic seconds, `wall_clock`: Unix seconds."""

    def __init__(
        self,
        heartbeats: Heartbeats,
        replica_id: str,
        models: Models,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._heartbeats = heartbeats
        self._replica_id = replica_id
        self._models = models
        self._clock = clock
        self._wall_clock = wall_clock
        self._held: dict[JobRef, _Held] = {}
        self._left: dict[JobRef, float] = {}  # runs that ended here without an outcome: when the job may go on here

    def __len__(self) -> int:
        """Jobs of which something is remembered, or more."""
        return len(self._held) + len(self._left)

    def __contains__(self, ref: JobRef) -> bool:
        """Whether it was looked at, or ran here, and may have to wait: for what it is begun only after another look."""
        return ref in self._held or ref in self._left

    def leave(self, ref: JobRef, until: float) -> None:
        """Its run here is over and it is not ended: it may go on at `until` of the clock."""
        self._left[ref] = until

    def left(self) -> Set[JobRef]:
        """Those that ran here last, and are not ended as far as was seen."""
        return self._left.keys()

    def hold(self, ref: JobRef, sweep: int) -> None:
        """Until the sweep of that number, whatever it is."""
        self._held[ref] = _Held(sweep)

    def release(self, ref: JobRef) -> None:
        """It may be looked at now."""
        self._held.pop(ref, None)

    def ended(self, ref: JobRef) -> None:
        self._left.pop(ref, None)

    def forget_found(self, *, but: Container[JobRef]) -> None:
        """What was found of jobs, except of those that wait."""
        self._held = {ref: held for ref, held in self._held.items() if ref in but}

    def forget_left(self, *, but: Container[JobRef]) -> None:
        """Which jobs ran here last, except of those that are not ended."""
        self._left = {ref: at for ref, at in self._left.items() if ref in but}

    def is_elsewhere(self, ref: JobRef) -> bool:
        """Whether a replica that lived was found to run it."""
        return (held := self._held.get(ref)) is not None and held.owner is not None

    def may_be_free(self, ref: JobRef, sweep: Sweep) -> bool:
        """Whether it is worth another look, or was not looked at."""
        if (held := self._held.get(ref)) is None:
            return True
        if held.pause is not None:
            return not self._pauses(ref, held.pause)
        return sweep.number >= held.sweep or (held.owner is not None and held.owner not in sweep.live)

    def may_take(self, ref: JobRef, status: JobStatus, sweep: Sweep) -> bool:
        """Whether a job as it was just looked at is free to be begun here; if not, that is remembered."""
        held = self._found(ref, status, sweep)
        if held is not None:
            self._held[ref] = held
        else:
            self._held.pop(ref, None)
        return held is None

    def _found(self, ref: JobRef, status: JobStatus, sweep: Sweep) -> _Held | None:
        if status.run is None:
            return None
        if status.run_end is not None:
            return _Held(pause=status.run_end) if self._pauses(ref, status.run_end) else None
        owner = status.run.owner
        if owner == self._replica_id:  # begun here, and not running here
            return _Held(sweep.number + 1) if self._clock() < self._left.get(ref, 0.0) else None
        self._left.pop(ref, None)
        if self._heartbeats.is_dead(owner):
            return None
        if owner not in sweep.live:  # it goes, or is about to be judged dead
            return _Held(sweep.number + 1)
        return _Held(sweep.number + TENDED_EVERY + spread(ref), owner)

    def _pauses(self, ref: JobRef, end: RunEnd) -> bool:
        left_s = end.not_before - self._wall_clock()
        return 0 < left_s <= LONGEST_PAUSE_S and not self._models.has_own_time(ref, end)  # more: clocks differ


def spread(ref: JobRef) -> int:
    """0 to 9 by the id, so that what is seen at once is not looked at at once."""
    return zlib.crc32(ref.job_id.encode()) % TENDED_EVERY
