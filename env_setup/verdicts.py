"""A finding and its verdict."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Verdict"]

Verdict = Literal["ok", "info", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`fail` is a no-go; `warn` will work, but not as well; `info` needs nothing."""

    name: str
    found: str
    needed: str
    verdict: Verdict

    @classmethod
    def of(cls, name: str, found: str, needed: str, problem: str | None) -> "Finding":
        """A failure with `problem` in place of what was found, else ok."""
        return cls(name, problem or found, needed, "fail" if problem else "ok")
