"""Names and labels of our metrics, and what is needed of whoever keeps them. Knows nothing of Ray."""

from collections.abc import Mapping
from typing import Protocol

__all__ = ["BATCH_FRAMES", "BATCH_PADDING_FRAMES", "REPLICA_RUNTIME", "REPLICA_RUNTIME_LABELS", "Metrics"]

REPLICA_RUNTIME = "speech_replica_runtime"
"""1 for each replica; its labels say what the replica runs on, and why with this attention."""
REPLICA_RUNTIME_LABELS = ("model", "engine", "device", "dtype", "attention", "attention_reason")

BATCH_FRAMES, BATCH_PADDING_FRAMES = "speech_batch_frames", "speech_batch_padding_frames"
"""Mel frames of the units that a model has computed, and those beside them that were padding. Label: model. Waste is
the second over the sum of both."""


class Metrics(Protocol):
    """Keeps metrics: Ray's in the cluster, a dict in a test."""

    def gauge(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Set the gauge to `value` for these labels."""
        ...

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Add `value`, 0 or more, to the counter for these labels."""
        ...
