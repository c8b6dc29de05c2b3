"""Ray's metrics behind our protocol: Prometheus reads them from every node."""

from collections.abc import Mapping

from ray.serve.metrics import Gauge

__all__ = ["RayMetrics"]


class RayMetrics:
    """Makes each gauge when it is first set; Ray adds deployment and replica to its labels."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}

    def gauge(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, tag_keys=tuple(labels))  # type: ignore[arg-type]  # Ray means any length
        self._gauges[name].set(value, tags=dict(labels))
