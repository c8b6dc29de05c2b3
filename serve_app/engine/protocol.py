"""What a replica asks of an engine. Engines know nothing of HTTP, Ray, stores or settings."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

from serve_app.domain import Pcm, Unit, Voice

__all__ = ["BatchLimits", "Engine", "EngineInput", "one_by_one", "speak"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineInput:
    """A unit with the voice it names; None where the unit names a voice that the engine has built in."""

    unit: Unit
    voice: Voice | None


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much of it an engine takes at once: units, mel frames padded to the longest unit, and how many times as long
    as the shortest unit the longest may be (2: padding to the longest is under half of what is computed)."""

    max_units: int
    max_frames: int
    max_length_ratio: float = 2.0


class Engine(Protocol):
    """Loads its model when constructed; raises ModelLoadFailed if it cannot."""

    @property
    def batch_limits(self) -> BatchLimits:
        """What one call of `synthesize` may hold. It may be another once the engine is warm."""
        ...

    @property
    def runtime(self) -> Mapping[str, str]:
        """What the model runs on: `device`, `dtype`, `attention`, `attention_reason`, and what else there is to say."""
        ...

    @property
    def version(self) -> str:
        """Which model it is, without spaces: another one wherever the model would speak otherwise."""
        ...

    def frames(self, item: EngineInput) -> int:
        """Mel frames (93.75 a second) that `item` will occupy in a batch, its reference included.

        Raises what `item` alone is wrong in: InvalidText or UnusableVoice.
        """
        ...

    def computed_frames(self, frames: Sequence[int]) -> int:
        """Mel frames that a batch of items of these `frames` costs, padding included."""
        ...

    def warm_up(self) -> None:
        """Run the model once, so that the first caller does not pay. Raises ModelLoadFailed."""
        ...

    def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
        """Speak `items`, which share their `sampling`; a waveform each, in order, the same whatever else is there.

        Returns when the engine can take the next call; what is left of this one ends beside it. An item's own error
        (InvalidText, UnusableVoice, EngineError) is in its future; the others are spoken. Raises OutOfMemory where the
        call as a whole asks for too much.
        """
        ...


def one_by_one(speak: Callable[[T], Pcm], items: Sequence[T]) -> list[Future[Pcm]]:
    """What `synthesize` answers, for an engine that speaks one item at a time."""
    futures: list[Future[Pcm]] = []
    for item in items:
        future: Future[Pcm] = Future()
        try:
            future.set_result(speak(item))
        except Exception as error:  # belongs to this item alone
            future.set_exception(error)
        futures.append(future)
    return futures


def speak(engine: Engine, *items: EngineInput) -> list[Pcm]:
    """The waveforms of `items`; raises the first item's error. For whoever has no batcher."""
    return [future.result() for future in engine.synthesize(items)]
