"""Speaks a whole request: plan it, have every unit spoken, put the pieces together.

The same code serves an HTTP call and a job. Knows nothing of HTTP, Ray or the store: replicas are reached
through the `Synthesizer` protocol, voices through `VoiceStatsSource`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from serve_app import logs
from serve_app.audio import cross_fade
from serve_app.domain import Pcm, Speech, SpeechRequest, Synthesizer, Unit, VoiceRef, VoiceStats
from serve_app.errors import ModelNotFound
from serve_app.planning import UnitLimits, plan

__all__ = ["LimitsOf", "Speaker", "SpeakingModel", "VoiceStatsSource"]

LimitsOf = Callable[[VoiceStats | None, float], UnitLimits]
"""From a voice's stats (None: built in) and a speed to the limits of one unit."""

LOOK_AHEAD = 8
"""Units of one request that may be at the replicas at once: enough to spread over them, little enough to be fair."""


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

    def __init__(self, models: Mapping[str, SpeakingModel], voices: VoiceStatsSource) -> None:
        self._models = models
        self._voices = voices

    async def speak(self, request: SpeechRequest) -> Speech:
        """All of it or an error: no unit is left out. When cancelled, units still waiting are cancelled too.

        Raises InvalidText, UnusableVoice, VoiceNotFound, VoiceReplaced, Overloaded, Unavailable or EngineError.
        """
        model = self._models.get(request.model)
        if model is None:
            raise ModelNotFound(f"model {request.model!r} is no longer deployed: send the request again for another")
        stats = None if request.voice.builtin else await self._voices.stats(request.voice)
        limits = model.limits_of(stats, request.speed)
        units = await asyncio.to_thread(plan, request, limits)  # a long text takes tens of milliseconds
        logs.event(
            "planned",
            request_id=request.request_id,
            job_id=request.job_id,
            model=request.model,
            units=len(units),
            chars=len(request.text),
        )
        waves = await _speak_units(model.synthesizer, units)
        overlap_s = model.overlap_s if request.cross_fade_s is None else request.cross_fade_s
        audio = await asyncio.to_thread(cross_fade, waves, overlap_s)
        return Speech(audio=audio, model=request.model, seed=request.seed, draft=model.draft, units=len(units))


async def _speak_units(synthesizer: Synthesizer, units: Sequence[Unit]) -> list[Pcm]:
    """Speak `units` with a bounded look-ahead; waves in the order of the units. The first error cancels the rest."""
    slots = asyncio.Semaphore(LOOK_AHEAD)

    async def speak(unit: Unit) -> Pcm:
        async with slots:
            return await synthesizer.synthesize(unit)

    tasks = [asyncio.create_task(speak(unit)) for unit in units]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
