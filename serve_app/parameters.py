"""Parameters of speech that a request may set: their ranges, and how they join the model's own.

    Parameters (asked, each may be missing) + Defaults (of the model) -> decided values

Pure: knows nothing of HTTP, settings or models.
"""

from dataclasses import dataclass, replace

from serve_app.domain import Sampling
from serve_app.errors import InvalidRequest

__all__ = ["MAX_SEED", "RANGES", "Defaults", "Parameters"]

RANGES: dict[str, tuple[float, float]] = {
    "nfe_steps": (4, 64),
    "cfg_strength": (0, 10),
    "sway": (-1, 1.75),  # F5-TTS, arXiv 2410.06885: beyond -1 and 2 / (pi - 2) a step would go backwards
    "speed": (0.25, 4),  # OpenAI's
    "cross_fade_s": (0, 1),
}
MAX_SEED = 2**31 - 1

SAMPLING = ("nfe_steps", "cfg_strength", "sway")


@dataclass(frozen=True, slots=True)
class Defaults:
    """A model's own parameters. `sampling` is None where the model does not sample."""

    sampling: Sampling | None = None
    speed: float = 1.0
    cross_fade_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a request asks for; None leaves it to the model, and of the seed to chance.

    `nfe_steps`: evaluations of the ODE. `cfg_strength`: guidance. `sway`: bends the steps. `speed`: factor on the
    speaking rate. `cross_fade_s`: between units. `seed`: from 0 to MAX_SEED.
    """

    nfe_steps: int | None = None
    cfg_strength: float | None = None
    sway: float | None = None
    speed: float | None = None
    cross_fade_s: float | None = None
    seed: int | None = None

    def joined(self, model: str, defaults: Defaults) -> Defaults:
        """With what is missing from `defaults`. Raises InvalidRequest that names the field, its value and the range."""
        self._check()
        return Defaults(
            sampling=self._sampling(model, defaults.sampling),
            speed=defaults.speed if self.speed is None else self.speed,
            cross_fade_s=defaults.cross_fade_s if self.cross_fade_s is None else self.cross_fade_s,
        )

    def _check(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                kind = "a whole number" if name == "nfe_steps" else "a number"
                raise InvalidRequest(f"{name} is {value}: send {kind} from {low} to {high}")
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise InvalidRequest(
                f"seed is {str(self.seed)[:40]}: send a whole number from 0 to {MAX_SEED}, or leave it out"
            )

    def _sampling(self, model: str, default: Sampling | None) -> Sampling | None:
        asked = {name: value for name in SAMPLING if (value := getattr(self, name)) is not None}
        if default is None:
            if asked:
                name, value = next(iter(asked.items()))
                raise InvalidRequest(
                    f"{name} is {value}, but model {model!r} does not sample and has no such parameter: leave it out, "
                    "or send the request to an f5 model"
                )
            return None
        return replace(default, **asked)
