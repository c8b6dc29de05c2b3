"""Models that take nothing, as one Jobs replica meets them: their jobs hold no slot that jobs of others could use. A
circuit breaker by model: open while it rests, half-open while one job tries it.

    a unit is refused, and the model has no other of its run -> the run is stuck -> it gives its slot up
        -> the model rests -> its rest is over: one job at a time tries it -> a unit is spoken: all its jobs go on

Told of by runs (`ModelProgress`); what it remembers is bounded. Knows nothing of the store, or of whose turn it is.
"""

import asyncio
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from cachetools import LRUCache

from serve_app import logs
from serve_app.domain import SpokenUnit, Unit
from serve_app.errors import DeviceLost, Overloaded, ServiceError, StorageError, Unavailable
from serve_app.jobs import JobRef, JobRequest, KeptProgress, RunEnd
from serve_app.patience import Patience
from serve_app.storage import ObjectStore

__all__ = ["GIVE_WAY_S", "ModelProgress", "Models"]

GIVE_WAY_S = 5.0
"""Seconds without a unit spoken after which a run gives its slot to a job of another model. A queue that is full for a
moment takes a unit within two or three tries, which is as long; and a try of a model that stays broken costs no more
than this of one slot, every LONGEST_REST_S."""
LONGEST_REST_S = 60.0
"""A model that takes nothing is tried again after 2, 4, 8 ... s, and at the longest after this."""
LAST_S = 10.0
"""How much longer the job rests that tried it last: another of the model's goes first, for it may be that job's own."""
REMEMBERED = 100_000
"""Jobs whose model is remembered; of another it is read again."""
BY_MODEL = (Overloaded.code, Unavailable.code, DeviceLost.code)
"""Errors of a model that takes no unit, as the end of a run names them."""


@dataclass(slots=True)
class _Rest:
    """Of a model that takes nothing. `refusals`: tries in a row; `until`: of the clock; `by`: who tried last."""

    refusals: int = 0
    until: float = -inf
    by: JobRef | None = None


class Models:
    """Used from one event loop. `clock`: monotonic seconds, `wall_clock`: Unix seconds; `wake` is called when jobs that
    were left alone may go on."""

    def __init__(
        self, clock: Callable[[], float], wall_clock: Callable[[], float], wake: Callable[[], None] = lambda: None
    ) -> None:
        self.clock = clock
        self._wall_clock = wall_clock
        self._wake = wake
        self._of: LRUCache[JobRef, str] = LRUCache(REMEMBERED)
        self._rests: dict[str, _Rest] = {}  # by model: of those that jobs are accepted for, so few
        self._spoke: dict[str, tuple[float, JobRef | None]] = {}  # by model: when a rest ended, Unix seconds; `by`
        self._runs: dict[JobRef, tuple[ModelProgress, asyncio.Timeout]] = {}

    def learn(self, ref: JobRef, model: str) -> None:
        self._of[ref] = sys.intern(model)

    def of(self, ref: JobRef) -> str | None:
        """The job's model; None: it is to be read."""
        return self._of.get(ref)

    def rests(self, ref: JobRef, running: Collection[JobRef]) -> bool:
        """Whether the job is left alone: its model took nothing lately, or is tried by one of those that run."""
        if not self._rests:  # of a long queue each is asked
            return False
        model = self._of.get(ref, "")
        if (rest := self._rests.get(model)) is None:
            return False
        until = rest.until + (LAST_S if rest.by == ref else 0.0)
        return self.clock() < until or any(self._of.get(other) == model for other in running)

    def has_own_time(self, ref: JobRef, end: RunEnd) -> bool:
        """Whether the pause after this run is not to be kept: it waited for a model that has spoken since, and it was
        not the one that tried it last, or for one whose rest this replica keeps."""
        if end.reason != "waiting" or end.error is None or end.error.code not in BY_MODEL:
            return False
        model = self._of.get(ref, "")
        spoke_at, by = self._spoke.get(model, (0.0, None))
        return model in self._rests or (end.ended_at <= spoke_at and by != ref)

    def took_nothing(self, model: str, ref: JobRef) -> None:
        """A run of this job ended for it. Of several that end in one rest the first counts."""
        rest = self._rests.setdefault(model, _Rest())
        if self.clock() >= rest.until:
            rest.by = ref
            rest.refusals += 1
            rest_s = min(2.0 ** min(rest.refusals, 20), LONGEST_REST_S)
            rest.until = self.clock() + rest_s
            logs.event("model_rests", model=model, refusals=rest.refusals, rest_s=rest_s)

    def spoke(self, model: str) -> None:
        """It has spoken a unit: all its jobs go on."""
        if (rest := self._rests.pop(model, None)) is not None:
            self._spoke[model] = self._wall_clock(), rest.by
            logs.event("model_speaks", model=model)
            self._wake()

    def stuck(self) -> set[str]:
        """The models of runs here that are stuck."""
        return {
            progress.model for progress, limit in self._runs.values() if progress.is_stuck() and not limit.expired()
        }

    def give_way(self) -> None:
        """The last begun of the stuck runs ends, as one that waits."""
        for progress, limit in reversed(self._runs.values()):
            if progress.is_stuck() and not limit.expired():
                progress.gave_way = progress.refusal
                limit.reschedule(0.0)  # as if its time were over: what it has at its model is taken back
                return

    @contextmanager
    def run(self, progress: "ModelProgress", limit: asyncio.Timeout) -> Iterator[None]:
        """A run that may be stuck meanwhile; `limit` ends it."""
        self._runs[progress.ref] = progress, limit
        try:
            yield
        finally:
            del self._runs[progress.ref]


class ModelProgress(KeptProgress):
    """As KeptProgress, and tells `models` whether the job's model takes its units."""

    def __init__(
        self,
        models: Models,
        store: ObjectStore,
        request: JobRequest,
        run: int,
        suspects: Collection[int],
        patience: Patience,
    ) -> None:
        super().__init__(store, request, run, suspects, patience=patience)
        self._models = models
        self.ref, self.model = request.ref, request.speech.model
        self.refusal: ServiceError | None = None  # of the model, the last since it spoke a unit
        self.gave_way: ServiceError | None = None  # why, if it did: the model may speak in that very moment
        self._since = 0.0
        self._asked: Collection[int] = ()

    def is_stuck(self) -> bool:
        """Whether the model has no unit of the run, and has spoken none since it refused one GIVE_WAY_S ago."""
        if self.refusal is None or self._asked or self._suspects or self.gave_way is not None:
            return False
        return self._models.clock() - self._since >= GIVE_WAY_S

    async def planned(self, units: Sequence[Unit]) -> Mapping[int, SpokenUnit]:
        self.refusal, self._asked = None, ()  # of the try before, whose replica was lost
        return await super().planned(units)

    async def spoken(self, unit: Unit, spoken: SpokenUnit) -> None:
        self.refusal = None
        self._models.spoke(self.model)
        await super().spoken(unit, spoken)

    async def refused(self, unit: Unit, error: ServiceError, asked: Collection[int] = ()) -> None:
        if not isinstance(error, StorageError):  # the store is none of the model's
            self._since = self._models.clock() if self.refusal is None else self._since
            self.refusal, self._asked = error, asked
        try:
            await super().refused(unit, error, asked)
        except ServiceError:
            if asked:  # it refuses one unit and not all
                self.refusal = None
            raise

    def over(self) -> None:
        """The run is over, and has waited."""
        if self.refusal is not None:
            self._models.took_nothing(self.model, self.ref)
