"""What a replica does with a unit: find its voice, have it spoken, log both. A plain class: Ray wraps it elsewhere.

Unit -> voice (built in, or from the voice source) -> batcher -> engine -> SpokenUnit
"""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict
from typing import Any, Protocol

from serve_app import logs
from serve_app.batcher import Batcher
from serve_app.domain import SAMPLE_RATE_HZ, SpokenUnit, Unit, Voice, VoiceRef
from serve_app.engine.protocol import Engine, EngineInput
from serve_app.errors import DeviceLost, ModelLoadFailed, ServiceError
from serve_app.metrics import BATCH_FRAMES, BATCH_PADDING_FRAMES, REPLICA_RUNTIME, REPLICA_RUNTIME_LABELS, Metrics

__all__ = ["SynthesisService", "VoiceSource"]


class VoiceSource(Protocol):
    """Where a replica gets voices from: the cluster's cache, or a dict in a test."""

    async def get(self, ref: VoiceRef) -> Voice:
        """The voice in exactly this version. Raises VoiceNotFound, VoiceReplaced, UnusableVoice or StorageError."""
        ...


class SynthesisService:
    """Speaks units with one engine. `model` is the name that requests select; `clock` gives seconds; `executor` has the
    one thread that calls the engine, and is not shut down here."""

    def __init__(
        self,
        engine: Engine,
        voices: VoiceSource,
        model: str,
        *,
        metrics: Metrics | None = None,
        batcher: Batcher | None = None,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._voices = voices
        self._model = model
        self._batcher = batcher or Batcher(engine, clock=clock, executor=executor, on_call=self._count_frames)
        self._clock = clock
        self._made_by = _made_by(engine)
        self._warm_up_s: float | None = None
        self._lost: DeviceLost | None = None

    @property
    def made_by(self) -> str:
        """What speaks here, as `SpokenUnit` has it."""
        return self._made_by

    def warm_up(self) -> None:
        """Run the engine once, before the replica takes requests. A failed warm-up is a failed start.

        Raises ModelLoadFailed.
        """
        started_s = self._clock()
        try:
            self._batcher.in_engine_thread(self._engine.warm_up)
        except ServiceError:
            raise
        except Exception as error:
            raise ModelLoadFailed(
                f"model {self._model!r} could not be warmed up: {type(error).__name__}: {error}; see the replica's log"
            ) from error
        self._warm_up_s = self._clock() - started_s
        if self._metrics is not None:
            labels = {"model": self._model, "engine": type(self._engine).__name__, **self._engine.runtime}
            self._metrics.gauge(REPLICA_RUNTIME, 1, {name: labels[name] for name in REPLICA_RUNTIME_LABELS})

    def _count_frames(self, frames: int, computed_frames: int) -> None:
        if self._metrics is not None:
            self._metrics.count(BATCH_FRAMES, frames, {"model": self._model})
            self._metrics.count(BATCH_PADDING_FRAMES, computed_frames - frames, {"model": self._model})

    async def synthesize(self, unit: Unit) -> SpokenUnit:
        """Speak `unit`. Cancelling it takes a unit that waits out of the queue.

        Logs `unit_started` when the engine begins with it, then `unit_done` or `unit_failed`; `wait_ms` runs from
        arrival to the engine, the voice's fetch included, `run_ms` from there to the answer.
        Raises EngineError, UnusableVoice, InvalidText, Unavailable, and whatever the voice source raises.
        """
        arrived_s = started_s = self._clock()

        def on_start() -> None:
            nonlocal started_s
            started_s = self._clock()
            logs.event("unit_started", wait_ms=_ms(started_s - arrived_s), **fields)

        fields: dict[str, object] = {
            "request_id": unit.request_id,
            "job_id": unit.job_id,
            "unit": unit.index,
            "model": self._model,
        }
        try:
            voice = None if unit.voice.builtin else await self._voices.get(unit.voice)
            audio = await self._batcher.submit(EngineInput(unit, voice), on_start=on_start)
        except ServiceError as error:
            logs.event("unit_failed", code=error.code, **fields)
            if isinstance(error, DeviceLost):
                self._lost = error
            raise
        logs.event(
            "unit_done",
            audio_s=round(len(audio) / SAMPLE_RATE_HZ, 3),
            wait_ms=_ms(started_s - arrived_s),
            run_ms=_ms(self._clock() - started_s),
            **fields,
        )
        return SpokenUnit(audio, self._made_by)

    def health(self) -> dict[str, Any]:
        """Plain values for `/health`: the engine's class and runtime, warm-up in seconds (None: not yet), and the
        batcher's stats."""
        return {
            "engine": type(self._engine).__name__,
            **self._engine.runtime,
            "warm_up_s": self._warm_up_s,
            **asdict(self._batcher.stats()),
        }

    def check_health(self) -> None:
        """Raises DeviceLost once the engine's device has failed for good."""
        if self._lost is not None:
            raise self._lost

    async def close(self) -> None:
        """Let the running batch end; units that wait fail with Unavailable."""
        await self._batcher.close()


def _made_by(engine: Engine) -> str:
    runtime = engine.runtime
    name = type(engine).__name__.removesuffix("Engine").lower()
    kind_of_device = runtime["device"].partition(":")[0]  # cuda:1 speaks as cuda:0 does
    return f"{name} {engine.version} {runtime['dtype']} {runtime['attention']} {kind_of_device}"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
