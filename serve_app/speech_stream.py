"""Speech as it is spoken: waves in the order of the text, each as soon as it is sure.

    units -> so many at the replicas at once -> in order -> cross-fade -> wave, wave, ...

The next unit is asked for when the listener has taken one, so what a slow listener leaves lying is bounded. Knows
nothing of HTTP, formats or Ray.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice

from serve_app.audio import CrossFader
from serve_app.domain import SAMPLE_RATE_HZ, Pcm, SpokenUnit, Synthesizer, Unit, version_of
from serve_app.errors import ReplicaLost, Unavailable
from serve_app.patience import PASSING, Patience

__all__ = ["SpeechStream", "UnitSpan"]

TURNS = 4
"""How often a unit is asked for again that another version of the model spoke than the first."""


@dataclass(frozen=True, slots=True)
class UnitSpan:
    """Where a unit's audio lies in the whole, cross-fades at its ends included. Seconds."""

    unit: Unit
    start_s: float
    end_s: float


class SpeechStream:
    """An iterator over the waves of one request, (samples,) at 24 kHz; to be closed, whatever comes of it.

    Together they are the samples that `cross_fade` gives. What the first unit is refused for is raised at once; what
    time mends is waited for by the others. Anything else ends the iteration with the unit's error. Unavailable, too,
    where replicas no longer speak in the version of the first unit: what was heard cannot be spoken again.
    `spans`: of the units so far, the one whose wave was given last included. `texts`: of all units. `made_by`: theirs,
    "" where they disagree.
    """

    def __init__(
        self,
        synthesizer: Synthesizer,
        units: Sequence[Unit],
        *,
        overlap_s: float,
        look_ahead: int,
        draft: bool,
        patience: Patience,
    ) -> None:
        self.draft = draft
        self.units = len(units)
        self.texts = tuple(unit.text for unit in units)
        self.spans: list[UnitSpan] = []
        self._makers: set[str] = set()
        self._synthesizer = synthesizer
        self._units = units
        self._overlap_s = overlap_s
        self._look_ahead = look_ahead
        self._patience = patience
        self._waves = self._faded()

    @property
    def made_by(self) -> str:
        """As in `Speech`."""
        return next(iter(self._makers)) if len(self._makers) == 1 else ""

    def __aiter__(self) -> "SpeechStream":
        return self

    async def __anext__(self) -> Pcm:
        return await anext(self._waves)

    async def close(self) -> None:
        """End what is still being spoken. Not while a wave is waited for."""
        await self._waves.aclose()

    async def _faded(self) -> AsyncGenerator[Pcm]:
        fader, tail_s = CrossFader(self._overlap_s), 0.0
        async with aclosing(self._in_order()) as spoken:
            async for unit, audio in spoken:
                wave, tail_s = fader.add(audio, unit.pause_s), unit.tail_s
                start_s = fader.begins_at / SAMPLE_RATE_HZ
                self.spans.append(UnitSpan(unit, start_s, start_s + len(audio) / SAMPLE_RATE_HZ))
                if wave.size:
                    yield wave
        if (last := fader.finish(tail_s)).size:
            yield last

    async def _in_order(self) -> AsyncGenerator[tuple[Unit, Pcm]]:
        coming = iter(self._units)
        window = deque(map(self._begun, islice(coming, self._look_ahead)))
        version = ""
        try:
            while window:
                unit, task = window[0]
                spoken = await task
                version = version or version_of(spoken.made_by)
                if version_of(spoken.made_by) != version:
                    spoken = await self._spoken_as(version, unit)
                self._makers.add(spoken.made_by)
                window.popleft()
                window.extend(map(self._begun, islice(coming, 1)))
                yield unit, spoken.audio
        finally:
            tasks = [task for _, task in window]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begun(self, unit: Unit) -> tuple[Unit, asyncio.Task[SpokenUnit]]:
        return unit, asyncio.create_task(self._taken(unit))

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
                return await self._synthesizer.synthesize(unit)
            except ReplicaLost:  # it was tried again alone, by whoever reaches the replicas
                raise
            except PASSING as error:
                if unit.index == 0:
                    raise
                await self._patience.wait(unit.index, error)
