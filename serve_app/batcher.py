"""Forms batches in front of one engine: callers submit a unit each, the engine gets as many as it can take.

    submit -> waiting -> (the device is free) order, cut a batch -> one engine call in a thread -> each caller its own

Nothing waits for a batch to fill: a batch is cut the moment the engine is free, from what is waiting then. So an idle
engine starts at once, and batches grow with the load. What an engine does after its device is free (decoding) ends
beside the next batch. (Serve's own @serve.batch cuts a batch before the engine is free, so under load its batches stay
at one.) Who is next is `batch_order`'s to say. Knows nothing of voices, texts, Ray or HTTP.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass
from functools import partial

from serve_app import logs
from serve_app.batch_order import Arrival, choose_batch
from serve_app.domain import Pcm, Unit
from serve_app.engine.protocol import Engine, EngineInput
from serve_app.errors import DeviceLost, EngineError, OutOfMemory, ServiceError, Unavailable

__all__ = ["Batcher", "BatcherStats"]


@dataclass(frozen=True, slots=True)
class BatcherStats:
    """What a batcher has done since it was made.

    `units_abandoned` are units whose caller left before an answer. `calls` counts engine calls by their number
    of units, the repeated calls after a failed batch included; `busy_s` is the time spent in them, `frames` what their
    units have, `computed_frames` what they cost with their padding.
    """

    waiting: int
    running: int
    units_done: int
    units_failed: int
    units_abandoned: int
    calls: dict[int, int]
    busy_s: float
    frames: int
    computed_frames: int


@dataclass(eq=False, slots=True)
class _Entry:
    item: EngineInput
    frames: int
    arrival: Arrival
    answer: asyncio.Future[Pcm]
    on_start: Callable[[], None] | None


class Batcher:
    """Runs units on `engine`, one call at a time, in one thread, so that the event loop stays free.

    Used from a single event loop. While nothing is submitted there is no task and no timer. `clock` gives
    seconds and is read in the engine's thread, too; an `executor` that is passed in is not shut down by `close`.
    `on_call` is told of each engine call the frames of its units, and what they cost with their padding.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
        on_call: Callable[[int, int], None] = lambda frames, computed_frames: None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._on_call = on_call
        self._executor: Executor = executor or ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._own_executor = None if executor else self._executor
        self._waiting: list[_Entry] = []
        self._running: set[_Entry] = set()
        self._ending: set[asyncio.Future[Pcm]] = set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._counts: Counter[str] = Counter()
        self._calls: Counter[int] = Counter()
        self._busy_s = 0.0

    @property
    def depth(self) -> int:
        """Units that wait for the engine and whose caller is still there."""
        return sum(not entry.answer.done() for entry in self._waiting)

    def stats(self) -> BatcherStats:
        return BatcherStats(
            waiting=self.depth,
            running=len(self._running),
            units_done=self._counts["done"],
            units_failed=self._counts["failed"],
            units_abandoned=self._counts["abandoned"],
            calls=dict(sorted(self._calls.items())),
            busy_s=self._busy_s,
            frames=self._counts["frames"],
            computed_frames=self._counts["computed_frames"],
        )

    def in_engine_thread(self, work: Callable[[], None]) -> None:
        """Do `work` where the engine is called from: what a device keeps for each thread is then ready. Blocks."""
        self._executor.submit(work).result()

    async def submit(self, item: EngineInput, *, on_start: Callable[[], None] | None = None) -> Pcm:
        """The waveform of `item`. `on_start` is called on the event loop when the engine begins with it.

        A caller that is cancelled takes its unit out of the queue; once its batch runs, the result is thrown away.
        Raises what the engine raises for this item alone; EngineError for anything that is not a ServiceError;
        Unavailable once `close` was called.
        """
        if self._closed:
            raise self._closing_error()
        try:
            frames = self._engine.frames(item)
        except Exception as error:
            raise _as_service_error(error, item) from error
        loop = asyncio.get_running_loop()
        arrival = Arrival.of(item.unit, self._clock())
        entry = _Entry(item, frames, arrival, loop.create_future(), on_start)
        self._waiting.append(entry)
        if self._task is None or self._task.done():
            # An empty context: the task outlives this caller and must not log under its request id.
            self._task = loop.create_task(self._run(), context=Context())
        return await entry.answer

    async def close(self) -> None:
        """Let what runs end, fail what waits with Unavailable, and take nothing more."""
        self._closed = True
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            self._settle(entry, self._closing_error())
        if self._task is not None:
            await asyncio.wait({self._task})  # unlike `await task`, a cancelled close leaves the batch running
        if self._ending:
            await asyncio.wait(self._ending)
        if self._own_executor is not None:
            self._own_executor.shutdown(wait=False)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        batch: list[_Entry] = []
        try:
            while batch := self._cut():
                self._running.update(batch)
                for entry in batch:
                    if entry.on_start is not None:
                        loop.call_soon(entry.on_start)  # not called here: its errors must not become the batch's
                await self._answer(batch)
                batch = []  # settled, or followed until it is
        except Exception as error:  # a defect of the engine's limits or of this file: nobody may wait for ever
            stranded, self._waiting = [*batch, *self._waiting], []
            for entry in stranded:
                if not entry.answer.done():
                    self._settle(entry, error)

    def _cut(self) -> list[_Entry]:
        """The next batch: the first unit, and others that are sampled in the same way, unless one is to be alone."""
        live = [entry for entry in self._waiting if not entry.answer.done()]
        self._counts["abandoned"] += len(self._waiting) - len(live)
        now_s = self._clock()
        live.sort(key=lambda entry: entry.arrival.turn(now_s))
        alike = live[:1] + [entry for entry in live[1:] if _may_share(live[0].item.unit, entry.item.unit)]
        batch = [alike[index] for index in choose_batch([entry.frames for entry in alike], self._engine.batch_limits)]
        self._waiting = [entry for entry in live if entry not in batch]
        return batch

    async def _answer(self, batch: list[_Entry], *, again: bool = False) -> None:
        """Call the engine for `batch`; where the call fails as a whole, once more for its parts (`again`)."""
        outcome = await self._call(batch)
        if isinstance(outcome, list):
            self._follow(batch, outcome)
        elif isinstance(outcome, OutOfMemory) and not again:
            logs.failure("batch_out_of_memory", outcome, units=len(batch))
            half = (len(batch) + 1) // 2
            await self._answer_parts([batch[:half], batch[half:]])
        elif len(batch) > 1 and not isinstance(outcome, (OutOfMemory, DeviceLost)):
            logs.failure("batch_failed", outcome, units=len(batch))
            await self._answer_parts([[entry] for entry in batch])
        else:
            for entry in batch:
                self._settle(entry, outcome)

    async def _answer_parts(self, parts: list[list[_Entry]]) -> None:
        """Those of each part whose callers are still there."""
        for part in parts:
            live = [entry for entry in part if not entry.answer.done()]
            self._counts["abandoned"] += len(part) - len(live)
            self._running.difference_update(set(part) - set(live))
            if live:
                await self._answer(live, again=True)

    async def _call(self, batch: list[_Entry]) -> list[Future[Pcm]] | Exception:
        self._calls[len(batch)] += 1
        items, frames = [entry.item for entry in batch], [entry.frames for entry in batch]
        cost = self._engine.computed_frames(frames)
        self._counts["frames"] += sum(frames)
        self._counts["computed_frames"] += cost
        loop = asyncio.get_running_loop()
        loop.call_soon(self._on_call, sum(frames), cost)  # not called here, as on_start
        return await loop.run_in_executor(self._executor, self._synthesize, items)

    def _follow(self, batch: list[_Entry], futures: list[Future[Pcm]]) -> None:
        """Settle each entry when its future is done, which may be after the next batch has begun."""
        for entry, future in zip(batch, futures, strict=True):
            if future.done():
                self._settle(entry, _outcome(future))
                continue
            ending = asyncio.wrap_future(future)
            self._ending.add(ending)
            ending.add_done_callback(partial(self._ended, entry))

    def _ended(self, entry: _Entry, ending: "asyncio.Future[Pcm]") -> None:
        self._ending.discard(ending)
        self._settle(entry, _outcome(ending))

    def _synthesize(self, items: list[EngineInput]) -> list[Future[Pcm]] | Exception:
        """In the engine's thread. Returns the error: a StopIteration that is raised into a future is never seen."""
        started_s = self._clock()
        try:
            futures = self._engine.synthesize(items)
            if len(futures) != len(items):
                raise EngineError(
                    f"{type(self._engine).__name__} returned {len(futures)} waveforms for {len(items)} units: "
                    "this is a defect of the engine"
                )
            return futures
        except Exception as error:
            return error
        finally:
            self._busy_s += self._clock() - started_s

    def _settle(self, entry: _Entry, outcome: Pcm | Exception) -> None:
        self._running.discard(entry)
        if entry.answer.done():
            self._counts["abandoned"] += 1
        elif isinstance(outcome, Exception):
            self._counts["failed"] += 1
            entry.answer.set_exception(_as_service_error(outcome, entry.item))
        else:
            self._counts["done"] += 1
            entry.answer.set_result(outcome)

    def _closing_error(self) -> Unavailable:
        return Unavailable("this replica is closing and takes no more units: send the request again")


def _may_share(unit: Unit, other: Unit) -> bool:
    return unit.sampling == other.sampling and not unit.alone and not other.alone


def _outcome(done: "Future[Pcm] | asyncio.Future[Pcm]") -> Pcm | Exception:
    error = done.exception()
    if error is None:
        return done.result()
    return error if isinstance(error, Exception) else EngineError(f"the engine stopped: {error!r}")


def _as_service_error(error: Exception, item: EngineInput) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    unit = item.unit
    logs.failure("engine_failed", error, request_id=unit.request_id, job_id=unit.job_id, unit=unit.index)
    wrapped = EngineError(f"the engine failed on unit {unit.index} of the text: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
