"""Speech as it is spoken: waves in the order of the text, each as soon as it is sure.

    units, as they come -> so many at the replicas at once -> in order -> cross-fade -> wave, wave, ...

The next unit is asked for when the listener has taken one, so what a slow listener leaves lying is bounded. Knows
nothing of HTTP, formats or Ray.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import takewhile

from serve_app.audio import CrossFader
from serve_app.domain import FRAMES_PER_S, SAMPLE_RATE_HZ, Pcm, SpokenUnit, Synthesizer, Unit, version_of
from serve_app.errors import ReplicaLost, Unavailable
from serve_app.patience import PASSING, Patience

__all__ = ["Flush", "SpeechStream", "UnitSpan"]

TURNS = 4
"""How often a unit is asked for again that another version of the model spoke than the first."""


@dataclass(frozen=True, slots=True)
class UnitSpan:
    """Where a unit's audio lies in the whole, cross-fades at its ends included. Seconds."""

    unit: Unit
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Flush:
    """Among units that come: all before it is given to its end, and nothing behind it fades into that."""


_Asked = asyncio.Queue[tuple[Unit, asyncio.Task[SpokenUnit]] | Flush | None]
"""Units in their order, each with what will come of it; None: there are no more."""


class SpeechStream:
    """An iterator over the waves of one request, (samples,) at 24 kHz; to be closed, whatever comes of it.

    Together they are the samples that `cross_fade` gives. `units` may still come while earlier ones are spoken; what
    their source raises is raised behind the units before it. What the first unit is refused for is raised at once; what
    time mends is waited for by the others. Anything else ends the iteration with the unit's error. Unavailable, too,
    where replicas no longer speak in the version of the first unit: what was heard cannot be spoken again.

    `spans`: of the units so far, the one whose wave was given last included. `flushes`: how many of them came before
    what was given; the wave of one may be empty. `units`: how many there are, as far as that is known, and `texts`: of
    them, where all are there at the beginning. `made_by`: those of the units so far, "" where they disagree. `clock`:
    seconds. `heard`: somebody listens while it comes; False: it becomes a file first, and no unit of it is due.
    """

    def __init__(
        self,
        synthesizer: Synthesizer,
        units: Sequence[Unit] | AsyncIterator[Unit | Flush],
        *,
        overlap_s: float,
        look_ahead: int,
        draft: bool,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
        heard: bool = True,
    ) -> None:
        self.draft = draft
        whole = units if isinstance(units, Sequence) else ()
        self.units = len(whole)
        self.texts = tuple(unit.text for unit in whole)
        self.spans: list[UnitSpan] = []
        self._makers: set[str] = set()
        self.flushes = 0
        self._synthesizer = synthesizer
        self._source = _Whole(units) if isinstance(units, Sequence) else units
        self._overlap_s = overlap_s
        self._heard = heard
        self._look_ahead = look_ahead
        self._patience = patience
        self._clock = clock
        self._lengths_s: dict[int, float] = {}  # of units that were asked for and not given, in their order
        self._heard_at = -math.inf  # when the listener has heard all that was given
        self._tasks: set[asyncio.Task[SpokenUnit]] = set()
        self._waves = self._faded()

    @property
    def made_by(self) -> str:
        """As in `Speech`."""
        return next(iter(self._makers)) if len(self._makers) == 1 else ""

    @property
    def pending(self) -> bool:
        """Whether a unit was asked for that is not given yet."""
        return bool(self._lengths_s)

    def __aiter__(self) -> "SpeechStream":
        return self

    async def __anext__(self) -> Pcm:
        return await anext(self._waves)

    async def close(self) -> None:
        """End what is still being spoken. Not while a wave is waited for."""
        await self._waves.aclose()

    async def _faded(self) -> AsyncGenerator[Pcm]:
        fader, begin_s, tail_s = CrossFader(self._overlap_s), 0.0, 0.0
        async with aclosing(self._in_order()) as spoken:
            async for each in spoken:
                if isinstance(each, Flush):
                    wave = fader.finish(tail_s)
                    begin_s = self.spans[-1].end_s + tail_s if self.spans else 0.0
                    fader, tail_s = CrossFader(self._overlap_s), 0.0
                    self.flushes += 1
                    yield self._given(wave)
                    continue
                unit, audio = each
                wave, tail_s = fader.add(audio, tail_s + unit.pause_s), unit.tail_s
                start_s = begin_s + fader.begins_at / SAMPLE_RATE_HZ
                self.spans.append(UnitSpan(unit, start_s, start_s + len(audio) / SAMPLE_RATE_HZ))
                del self._lengths_s[unit.index]
                if wave.size:
                    yield self._given(wave)
        if (last := fader.finish(tail_s)).size:
            yield self._given(last)

    def _given(self, wave: Pcm) -> Pcm:
        self._heard_at = max(self._heard_at, self._clock()) + len(wave) / SAMPLE_RATE_HZ
        return wave

    async def _in_order(self) -> AsyncGenerator[tuple[Unit, Pcm] | Flush]:
        asked: _Asked = asyncio.Queue()
        slots = asyncio.Semaphore(self._look_ahead)
        asking = asyncio.create_task(self._ask(asked, slots))
        version = ""
        try:
            while (each := await asked.get()) is not None:
                if isinstance(each, Flush):
                    yield each
                    continue
                unit, task = each
                spoken = await task
                version = version or version_of(spoken.made_by)
                if version_of(spoken.made_by) != version:
                    spoken = await self._spoken_as(version, unit)
                self._makers.add(spoken.made_by)
                self._tasks.discard(task)
                slots.release()
                yield unit, spoken.audio
            await asking
        finally:
            asking.cancel()
            for running in self._tasks:
                running.cancel()
            await asyncio.gather(asking, *self._tasks, return_exceptions=True)

    async def _ask(self, asked: _Asked, slots: asyncio.Semaphore) -> None:
        """Have each unit spoken as it comes, as many at once as there are slots; None at the end."""
        try:
            await slots.acquire()
            async for unit in self._source:
                if isinstance(unit, Flush):
                    asked.put_nowait(unit)
                    continue
                self.units = max(self.units, unit.index + 1)
                self._lengths_s[unit.index] = self._adds_s(unit, unit.frames / FRAMES_PER_S)
                task = asyncio.create_task(self._taken(unit))
                self._tasks.add(task)
                asked.put_nowait((unit, task))
                await slots.acquire()
        finally:
            asked.put_nowait(None)

    def _adds_s(self, unit: Unit, spoken_s: float) -> float:
        """How much longer the speech is for a unit that is `spoken_s` long."""
        return max(0.0, unit.pause_s + spoken_s + unit.tail_s - self._overlap_s)

    def _due_in_s(self, unit: Unit) -> float | None:
        """When the listener will have heard all before it: what was given and is still playing, and what is to come."""
        if not self._heard:
            return None
        coming = takewhile(lambda each: each[0] != unit.index, self._lengths_s.items())
        return max(0.0, self._heard_at - self._clock()) + sum(length_s for _, length_s in coming)

    async def _spoken_as(self, version: str, unit: Unit) -> SpokenUnit:
        """By another replica: no voice changes in mid-text because a rolling update came between."""
        for _ in range(TURNS):
            spoken = await self._taken(unit)
            if version_of(spoken.made_by) == version:
                return spoken
        raise Unavailable("the model was updated while it spoke this text: send the request again")

    async def _taken(self, unit: Unit) -> SpokenUnit:
        while True:
            try:
                spoken = await self._synthesizer.synthesize(replace(unit, due_in_s=self._due_in_s(unit)))
            except ReplicaLost:  # it was tried again alone, by whoever reaches the replicas
                raise
            except PASSING as error:
                if unit.index == 0:
                    raise
                await self._patience.wait(unit.index, error)
                continue
            self._lengths_s[unit.index] = self._adds_s(unit, len(spoken.audio) / SAMPLE_RATE_HZ)
            return spoken


class _Whole:
    """Units that are all there."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = iter(units)

    def __aiter__(self) -> "_Whole":
        return self

    async def __anext__(self) -> Unit:
        for unit in self._units:
            return unit
        raise StopAsyncIteration
