"""What a replica asks of an engine. Engines know nothing of HTTP, Ray, stores or settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from serve_app.domain import Pcm, Unit, Voice

__all__ = ["BatchLimits", "Engine", "EngineInput"]


@dataclass(frozen=True, slots=True)
class EngineInput:
    """A unit with the voice it names; None where the unit names a voice that the engine has built in."""

    unit: Unit
    voice: Voice | None


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much of it an engine takes at once: units, and mel frames padded to the longest unit."""

    max_units: int
    max_frames: int


class Engine(Protocol):
    """Loads its model when constructed; raises ModelLoadFailed if it cannot."""

    @property
    def batch_limits(self) -> BatchLimits:
        """What one call of `synthesize` may hold. On a CPU: one unit."""
        ...

    @property
    def runtime(self) -> Mapping[str, str]:
        """What the model runs on: `device`, `dtype`, `attention` and `attention_reason`."""
        ...

    def frames(self, item: EngineInput) -> int:
        """Mel frames (93.75 a second) that `item` will occupy in a batch, its reference included."""
        ...

    def warm_up(self) -> None:
        """Run the model once, so that the first caller does not pay. Raises ModelLoadFailed."""
        ...

    def synthesize(self, items: Sequence[EngineInput]) -> list[Pcm]:
        """Speak `items`; one waveform each, in order, the same whatever else is in the batch.

        Raises InvalidText (nothing to speak), UnusableVoice or EngineError. An error speaks for the
        whole call: the batcher runs the items of a failed batch one by one, so that a bad one fails alone.
        """
        ...
