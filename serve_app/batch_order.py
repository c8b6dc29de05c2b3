"""Which of the units that wait for an engine run next, and which together. Pure; knows neither clocks nor the engine.

due to be heard, earliest first -> nobody listens yet, first come first -> the first, and who fits it by length
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.domain import Unit
from serve_app.engine.protocol import BatchLimits

__all__ = ["PATIENCE_S", "Arrival", "choose_batch"]

PATIENCE_S = 30.0
"""How long a unit that nobody listens to yet, of a job or a whole file, gives way to those that have a listener. Longer
than the audio of any unit (22 s), which is what a listener has in hand; and short enough for a whole file that is asked
for beside many listeners to end within the 90 s that RunPod's `runsync` waits."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A unit's place in the queue. Seconds of one monotonic clock; `due_s` is when its listener runs dry, None where
    nobody listens yet."""

    arrived_s: float
    due_s: float | None

    @classmethod
    def of(cls, unit: Unit, now_s: float) -> "Arrival":
        """A listener who has run dry already is due now, no earlier: none that come later overtake what is due."""
        return cls(now_s, None if unit.due_in_s is None else now_s + max(0.0, unit.due_in_s))

    def turn(self, now_s: float) -> tuple[bool, float]:
        """Who has the least is next; of equals, who came first.

        Those with a time by which they are due go by it, before those without, which go as they came. One without that
        has waited for PATIENCE_S is due from then on. So a unit that is due is preceded by no more than what was in
        the queue when it became so.
        """
        if self.due_s is not None:
            return False, self.due_s
        overdue_s = self.arrived_s + PATIENCE_S
        return (False, overdue_s) if overdue_s <= now_s else (True, self.arrived_s)


def choose_batch(frames: Sequence[int], limits: BatchLimits) -> list[int]:
    """Which waiting units run together; `frames` are their lengths, in their order. Returns indexes, in their order.

    The first unit is always chosen, even where it alone exceeds `limits`. The others join nearest length first
    (ties: the earlier one), each if the batch then keeps `max_units`, `max_frames` (units times the longest) and
    `max_length_ratio`. So a unit that has k before it, and stays so, is cut into a batch k batches after the running
    one at the latest.
    """
    if not frames:
        return []
    chosen, shortest, longest = [0], frames[0], frames[0]
    for index in sorted(range(1, len(frames)), key=lambda index: abs(frames[index] - frames[0])):
        if len(chosen) >= limits.max_units:
            break
        low, high = min(shortest, frames[index]), max(longest, frames[index])
        if (len(chosen) + 1) * high <= limits.max_frames and high <= limits.max_length_ratio * low:
            chosen.append(index)
            shortest, longest = low, high
    return sorted(chosen)
