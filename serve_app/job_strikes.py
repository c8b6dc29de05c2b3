"""Which units of a run a model's replica ended with, and when that is enough."""

from collections import Counter

from serve_app.errors import PoisonJob, ReplicaLost

__all__ = ["MAX_STRIKES", "Strikes"]

MAX_STRIKES = 3
"""Replicas that may end with one unit of a job: the second and third time it is alone there."""


class Strikes:
    """Of one run. `suspects`: units that are spoken alone from now on; others see it grow."""

    def __init__(self) -> None:
        self.suspects: set[int] = set()
        self._count = Counter[int]()

    def note(self, error: ReplicaLost) -> None:
        """A replica ended. Raises PoisonJob when one unit was there too often."""
        unit = -1 if error.unit_index is None else error.unit_index
        self._count.update({unit, *error.unit_indexes} if unit not in self.suspects else {unit})
        self.suspects |= {unit, *error.unit_indexes}
        if self._count[unit] >= MAX_STRIKES:
            raise PoisonJob(
                f"{MAX_STRIKES} replicas ended with unit {unit} of the text, twice with nothing beside it: it is "
                "not tried again; change the text, and tell whoever keeps the model"
            ) from error
