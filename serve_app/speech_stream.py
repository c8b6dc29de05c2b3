"""Speech as it is spoken: waves in the order of the text, each as soon as it is sure.

    units -> so many at the replicas at once -> in order -> cross-fade -> wave, wave, ...

The next unit is asked for when the listener has taken one, so what a slow listener leaves lying is bounded. Knows
nothing of HTTP, formats or Ray.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import islice

from serve_app.audio import CrossFader
from serve_app.domain import Pcm, SpokenUnit, Synthesizer, Unit, version_of
from serve_app.errors import ReplicaLost, Unavailable
from serve_app.patience import PASSING, Patience

__all__ = ["SpeechStream"]

TURNS = 4
"""How often a unit is asked for that another version of the model speaks than the rest."""


class SpeechStream:
    """An iterator over the waves of one request, (samples,) at 24 kHz; to be closed, whatever comes of it.

    Together they are the samples that `cross_fade` gives. What the first unit is refused for is raised at once; what
    time mends is waited for by the others, and a unit is tried again alone when its replica was lost. Anything else
    ends the iteration with the unit's error. Unavailable, too, where replicas go on speaking in several versions.
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
        self._synthesizer = synthesizer
        self._units = units
        self._overlap_s = overlap_s
        self._look_ahead = look_ahead
        self._patience = patience
        self._version = ""
        self._waves = self._faded()

    def __aiter__(self) -> "SpeechStream":
        return self

    async def __anext__(self) -> Pcm:
        return await anext(self._waves)

    async def close(self) -> None:
        """End what is still being spoken. Not while a wave is waited for."""
        await self._waves.aclose()

    async def _faded(self) -> AsyncGenerator[Pcm]:
        fader = CrossFader(self._overlap_s)
        async with aclosing(self._in_order()) as spoken:
            async for each in spoken:
                if (wave := fader.add(each.audio)).size:
                    yield wave
        if (last := fader.finish()).size:
            yield last

    async def _in_order(self) -> AsyncGenerator[SpokenUnit]:
        coming = iter(self._units)
        window = deque(map(self._begun, islice(coming, self._look_ahead)))
        try:
            while window:
                spoken = await window[0]
                window.popleft()
                window.extend(map(self._begun, islice(coming, 1)))
                yield spoken
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)

    def _begun(self, unit: Unit) -> asyncio.Task[SpokenUnit]:
        return asyncio.create_task(self._of_one_version(unit))

    async def _of_one_version(self, unit: Unit) -> SpokenUnit:
        """No voice changes in mid-text because a rolling update came between: what was heard cannot be spoken again."""
        for _ in range(TURNS):
            spoken = await self._taken(unit)
            version = version_of(spoken.made_by)
            self._version = self._version or version
            if version == self._version:
                return spoken
        raise Unavailable("the model is being updated: its replicas speak this text in several versions; ask again")

    async def _taken(self, unit: Unit) -> SpokenUnit:
        while True:
            try:
                return await self._synthesizer.synthesize(unit)
            except ReplicaLost:
                if unit.alone:
                    raise
                unit = replace(unit, alone=True)
            except PASSING as error:
                if unit.index == 0:
                    raise
                await self._patience.wait(unit.index, error)
