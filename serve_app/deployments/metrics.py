"""Ray's metrics behind our protocol: Prometheus reads them from every node."""

from collections.abc import Mapping

from ray.serve.metrics import Counter, Gauge

__all__ = ["RayMetrics"]


class RayMetrics:
    """Makes each gauge and counter when it is first used; Ray adds deployment and replica to its labels."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}

    def gauge(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, tag_keys=tuple(labels))  # type: ignore[arg-type]  # Ray means any length
        self._gauges[name].set(value, tags=dict(labels))

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        if name not in self._counters:
            self._counters[name] = Counter(name, tag_keys=tuple(labels))  # type: ignore[arg-type]  # as above
        if value:  # Ray refuses to add nothing
            self._counters[name].inc(value, tags=dict(labels))
