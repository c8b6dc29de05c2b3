"""Speaks a whole request: plan it, have every unit spoken, put the pieces together.

The same code serves an HTTP call and a job. Knows nothing of HTTP, Ray or the store: replicas are reached
through the `Synthesizer` protocol, voices through `VoiceStatsSource`.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from serve_app import logs
from serve_app.audio import joined, most_samples
from serve_app.domain import (
    Pcm,
    Speech,
    SpeechRequest,
    SpokenUnit,
    Synthesizer,
    Unit,
    VoiceRef,
    VoiceStats,
)
from serve_app.errors import ModelNotFound
from serve_app.patience import Patience
from serve_app.planning import UnitLimits, has_speech, planned
from serve_app.speech_feed import SpeechFeed
from serve_app.speech_stream import Flush, SpeechStream
from serve_app.unit_speech import LOOK_AHEAD, NO_PROGRESS, Progress, of_one_version

__all__ = ["LimitsOf", "Speaker", "SpeakingModel", "VoiceStatsSource"]

LimitsOf = Callable[[VoiceStats | None, float], UnitLimits]
"""From a voice's stats (None: built in) and a speed to the limits of one unit."""


class VoiceStatsSource(Protocol):
    """Where planning learns how long a voice's reference is."""

    async def stats(self, ref: VoiceRef) -> VoiceStats:
        """Raises VoiceNotFound or VoiceReplaced."""
        ...


@dataclass(frozen=True, slots=True)
class SpeakingModel:
    """A deployed model as the speaker uses it. `overlap_s` is the cross-fade between its units, for requests that were
    accepted before a request could decide it."""

    synthesizer: Synthesizer
    limits_of: LimitsOf
    overlap_s: float
    draft: bool


class Speaker:
    """Turns an accepted request into speech."""

    def __init__(
        self,
        models: Mapping[str, SpeakingModel],
        voices: VoiceStatsSource,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: seconds, by which it is known how far a listener has heard."""
        self._models = models
        self._voices = voices
        self._clock = clock

    async def speak(self, request: SpeechRequest, progress: Progress = NO_PROGRESS) -> Speech:
        """All of it or an error: no unit is left out. When cancelled, units still waiting are cancelled too.

        `progress` is told of the plan and of each unit that ends, and of none after this has ended. One version of the
        model speaks all of it. Raises InvalidText, UnusableVoice, VoiceNotFound, VoiceReplaced, Overloaded,
        Unavailable, EngineError, or what `progress` raises.
        """
        model, units = await self._planned(request)
        spoken = await of_one_version(model.synthesizer, units, progress)
        progress.complete()
        makers = {each.made_by for each in spoken}
        audio = await asyncio.to_thread(_joined, spoken, units, _overlap_s(model, request))
        return Speech(
            audio=audio,
            model=request.model,
            seed=request.seed,
            draft=model.draft,
            units=len(units),
            made_by=makers.pop() if len(makers) == 1 else "",
        )

    async def stream(self, request: SpeechRequest, *, texts: bool = False, heard: bool = True) -> SpeechStream:
        """The same speech as it comes, planned a little ahead of that. `texts`: those of all units are known at once.
        `heard`: see SpeechStream.

        Raises ModelNotFound, InvalidText, UnusableVoice, VoiceNotFound, VoiceReplaced; whatever else comes in between
        is raised by the stream."""
        if texts:
            return self._streamed(*await self._planned(request), request, heard=heard)
        model, limits = await self._limits(request)
        coming = planned(request, limits.__getitem__)
        first = await asyncio.to_thread(_next, coming)
        logs.event("planned", model=request.model, units=len(first), chars=len(request.text))
        return self._streamed(model, first if len(first) < LOOK_AHEAD else _Coming(first, coming), request, heard=heard)

    async def feed(self, request: SpeechRequest) -> tuple[SpeechFeed, SpeechStream]:
        """Speech of a text that is still being written: `request` has none, it is put into the feed. Its pieces are
        planned alone, as if each was a text. Raises as `stream`; InvalidText is raised by the stream."""
        model, limits = await self._limits(request)

        def plan(text: str, first_index: int) -> tuple[Unit, ...]:
            part = replace(request, text=text)
            units = (*planned(part, limits.__getitem__, first_index=first_index),) if has_speech(part) else ()
            logs.event("planned", model=request.model, units=len(units), chars=len(text))
            return units

        feed = SpeechFeed(plan)
        return feed, self._streamed(model, feed, request)

    def _streamed(
        self,
        model: SpeakingModel,
        units: Sequence[Unit] | AsyncIterator[Unit | Flush],
        request: SpeechRequest,
        *,
        heard: bool = True,
    ) -> SpeechStream:
        return SpeechStream(
            model.synthesizer,
            units,
            overlap_s=_overlap_s(model, request),
            look_ahead=LOOK_AHEAD,
            draft=model.draft,
            patience=Patience(asyncio.sleep),
            clock=self._clock,
            heard=heard,
        )

    async def _limits(self, request: SpeechRequest) -> tuple[SpeakingModel, dict[VoiceRef, UnitLimits]]:
        model = self._models.get(request.model)
        if model is None:
            raise ModelNotFound(f"model {request.model!r} is no longer deployed: send the request again for another")
        return model, await self._limits_of(model, request)

    async def _planned(self, request: SpeechRequest) -> tuple[SpeakingModel, tuple[Unit, ...]]:
        model, limits = await self._limits(request)
        units = await asyncio.to_thread(lambda: (*planned(request, limits.__getitem__),))  # a long one takes a while
        logs.event(
            "planned",
            request_id=request.request_id,
            job_id=request.job_id,
            model=request.model,
            units=len(units),
            chars=len(request.text),
        )
        return model, units

    async def _limits_of(self, model: SpeakingModel, request: SpeechRequest) -> dict[VoiceRef, UnitLimits]:
        """Of a unit, by voice."""
        voices = [*{request.voice, *request.voices.values()}]

        async def stats(voice: VoiceRef) -> VoiceStats | None:
            return None if voice.builtin else await self._voices.stats(voice)

        found = await asyncio.gather(*map(stats, voices))
        return {voice: model.limits_of(each, request.speed) for voice, each in zip(voices, found, strict=True)}


class _Coming:
    """Units that are planned as they are asked for, some at a time, in a thread."""

    def __init__(self, first: Sequence[Unit], coming: Iterator[Unit]) -> None:
        self._ready = deque(first)
        self._coming = coming

    def __aiter__(self) -> "_Coming":
        return self

    async def __anext__(self) -> Unit:
        if not self._ready:
            self._ready.extend(await asyncio.to_thread(_next, self._coming))
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()


def _next(coming: Iterator[Unit]) -> list[Unit]:
    return [*islice(coming, LOOK_AHEAD)]


def _joined(spoken: list[SpokenUnit], units: Sequence[Unit], overlap_s: float) -> Pcm:
    """Empties `spoken`: of hours of speech there is no room for two."""
    pauses_s, tail_s = [unit.pause_s for unit in units], units[-1].tail_s
    samples = most_samples((len(each.audio) for each in spoken), pauses_s, tail_s)
    spoken.reverse()
    return joined((spoken.pop().audio for _ in units), pauses_s, overlap_s, samples, tail_s)


def _overlap_s(model: SpeakingModel, request: SpeechRequest) -> float:
    return model.overlap_s if request.cross_fade_s is None else request.cross_fade_s
