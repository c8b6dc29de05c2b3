"""Speaks a whole request: plan it, have every unit spoken, put the pieces together.

The same code serves an HTTP call and a job. Knows nothing of HTTP, Ray or the store: replicas are reached
through the `Synthesizer` protocol, voices through `VoiceStatsSource`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from serve_app import logs
from serve_app.audio import cross_fade
from serve_app.domain import (
    Speech,
    SpeechRequest,
    SpokenUnit,
    Synthesizer,
    Unit,
    VoiceRef,
    VoiceStats,
    version_of,
)
from serve_app.errors import ModelNotFound, ReplicaLost, ServiceError, Unavailable
from serve_app.patience import PASSING, Patience
from serve_app.planning import UnitLimits, has_speech, planned
from serve_app.speech_feed import SpeechFeed
from serve_app.speech_stream import SpeechStream

__all__ = ["NO_PROGRESS", "LimitsOf", "NoProgress", "Progress", "Speaker", "SpeakingModel", "VoiceStatsSource"]

LimitsOf = Callable[[VoiceStats | None, float], UnitLimits]
"""From a voice's stats (None: built in) and a speed to the limits of one unit."""

LOOK_AHEAD = 8
"""Units of one request that may be at the replicas at once: enough to spread over them, little enough to be fair."""
TURNS = 4
"""How often a text may turn from one version of the model to another, before it is left for a while."""


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


class Progress(Protocol):
    """What is kept of a request while it is spoken, so that it can go on in another process."""

    async def planned(self, units: Sequence[Unit]) -> Mapping[int, SpokenUnit]:
        """Told once, before any is spoken. Those that were finished before, by index: they are not spoken again."""
        ...

    async def spoken(self, unit: Unit, spoken: SpokenUnit) -> None:
        """Told of each unit as it ends, several at once; of one that was outdated again. What it raises fails the
        speech."""
        ...

    async def refused(self, unit: Unit, error: ServiceError, asked: Collection[int] = ()) -> None:
        """Told of a unit that nothing took, for what time mends. Returns when it is to be sent again, or raises.
        `asked`: units that the model has, and what will be of that."""
        ...

    def outdated(self, indexes: Collection[int]) -> None:
        """Told of units that another version of the model spoke: they are spoken again."""
        ...

    def is_suspect(self, unit: Unit) -> bool:
        """Whether a replica died with this unit, so that it must be spoken alone."""
        ...


class NoProgress:
    """Keeps nothing."""

    async def planned(self, units: Sequence[Unit]) -> Mapping[int, SpokenUnit]:
        return {}

    async def spoken(self, unit: Unit, spoken: SpokenUnit) -> None:
        pass

    async def refused(self, unit: Unit, error: ServiceError, asked: Collection[int] = ()) -> None:
        raise error

    def outdated(self, indexes: Collection[int]) -> None:
        pass

    def is_suspect(self, unit: Unit) -> bool:
        return False


NO_PROGRESS = NoProgress()


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
        spoken = await _of_one_version(model.synthesizer, units, progress)
        waves, pauses_s = [each.audio for each in spoken], [unit.pause_s for unit in units]
        tail_s = units[-1].tail_s
        audio = await asyncio.to_thread(cross_fade, waves, _overlap_s(model, request), pauses_s, tail_s)
        makers = {each.made_by for each in spoken}
        return Speech(
            audio=audio,
            model=request.model,
            seed=request.seed,
            draft=model.draft,
            units=len(units),
            made_by=makers.pop() if len(makers) == 1 else "",
        )

    async def stream(self, request: SpeechRequest) -> SpeechStream:
        """The same speech as it comes. Raises ModelNotFound, InvalidText, UnusableVoice, VoiceNotFound, VoiceReplaced;
        whatever else comes in between is raised by the stream."""
        model, units = await self._planned(request)
        return self._streamed(model, request, units)

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
        return feed, self._streamed(model, request, feed)

    def _streamed(
        self, model: SpeakingModel, request: SpeechRequest, units: Sequence[Unit] | SpeechFeed
    ) -> SpeechStream:
        return SpeechStream(
            model.synthesizer,
            units,
            overlap_s=_overlap_s(model, request),
            look_ahead=LOOK_AHEAD,
            draft=model.draft,
            patience=Patience(asyncio.sleep),
            clock=self._clock,
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


def _overlap_s(model: SpeakingModel, request: SpeechRequest) -> float:
    return model.overlap_s if request.cross_fade_s is None else request.cross_fade_s


async def _of_one_version(synthesizer: Synthesizer, units: Sequence[Unit], progress: Progress) -> list[SpokenUnit]:
    """Each unit spoken, now or before, all by one version of the model: no voice changes in mid-text because a rolling
    update came between. While two versions speak, the one that has more of the text stays, until LOOK_AHEAD units in
    a row were spoken by others; what they spoke is spoken again."""
    spoken = dict(await progress.planned(units))
    version, turns, by_others = "", 0, 0
    while turns < TURNS:
        missing = [unit for unit in units if unit.index not in spoken]
        now = await _speak_units(synthesizer, missing, progress)
        spoken |= now
        if not version:
            met = [version_of(each.made_by) for each in spoken.values()]
            version = max(reversed(met), key=Counter(met).__getitem__)
        for each in now.values():
            by_others = 0 if version_of(each.made_by) == version else by_others + 1
        if by_others >= LOOK_AHEAD:
            version, turns, by_others = version_of([*now.values()][-1].made_by), turns + 1, 0
        others = [index for index, each in spoken.items() if version_of(each.made_by) != version]
        if not others:
            return [spoken[unit.index] for unit in units]
        logs.event("version_changed", version=version, units=len(units), again=len(others))
        progress.outdated(others)
        for index in others:
            del spoken[index]
    raise Unavailable("the model is being updated: its replicas have spoken this text by turns in several versions")


async def _speak_units(synthesizer: Synthesizer, units: Sequence[Unit], progress: Progress) -> dict[int, SpokenUnit]:
    """Speak `units` with a bounded look-ahead; by index, as they ended. The first error cancels the rest, and waits for
    their end; but one that time mends is `progress`'s to wait for, unit by unit, while the rest goes on.

    Suspects are spoken one after the other, so that of two it is known which a replica died with. A ReplicaLost says
    which units were at the replicas.
    """
    slots, one = asyncio.Semaphore(LOOK_AHEAD), asyncio.Lock()
    asked: set[int] = set()

    async def ask(unit: Unit) -> SpokenUnit:
        asked.add(unit.index)
        try:
            return await synthesizer.synthesize(unit)
        except ReplicaLost as error:
            error.unit_indexes = frozenset(asked)
            raise
        finally:
            asked.discard(unit.index)

    async def taken(unit: Unit) -> SpokenUnit:
        while True:
            try:
                return await ask(unit)
            except ReplicaLost:
                raise
            except PASSING as error:
                await progress.refused(unit, error, asked)

    async def speak(unit: Unit) -> None:
        async with slots:  # until it is kept, so that a slow store holds no more than these in memory
            if progress.is_suspect(unit):
                async with one:
                    spoken = await taken(replace(unit, alone=True))
            else:
                spoken = await taken(unit)
            await progress.spoken(unit, spoken)
            done[unit.index] = spoken

    done: dict[int, SpokenUnit] = {}
    tasks = [asyncio.create_task(speak(unit)) for unit in units]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done
