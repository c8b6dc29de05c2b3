"""Names and labels of our metrics, and what is needed of whoever keeps them. Knows nothing of Ray."""

from collections.abc import Mapping
from typing import Protocol

__all__ = ["REPLICA_RUNTIME", "REPLICA_RUNTIME_LABELS", "Metrics"]

REPLICA_RUNTIME = "speech_replica_runtime"
"""1 for each replica; its labels say what the replica runs on, and why with this attention."""
REPLICA_RUNTIME_LABELS = ("model", "engine", "device", "dtype", "attention", "attention_reason")


class Metrics(Protocol):
    """Keeps metrics: Ray's in the cluster, a dict in a test."""

    def gauge(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Set the gauge to `value` for these labels."""
        ...
