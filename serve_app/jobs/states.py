"""The state machine of a job: which of its records exist *is* its state. Pure: from names to a state.

    request            queued
    + run-N            in_progress
    + ended-N-REASON   queued again: run N ended without an outcome, the next may begin
    + OUTCOME          completed, cancelled, failed or expired: the end, whatever else is written
    + again-G          queued again, on a client's word: only outcomes of generation G count from here
    + gone             the result is removed: 410

Of two outcomes of one generation, which two owners may have written where the store has no conditional writes, the one
that stands first in OUTCOMES counts. docs/jobs.md draws it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from serve_app.domain import JobState
from serve_app.jobs.records import OutcomeState, RunEndReason

__all__ = [
    "GONE",
    "OUTCOMES",
    "REQUEST",
    "STREAMED",
    "Standing",
    "again_name",
    "ended_name",
    "ending_name",
    "notified_name",
    "outcome_name",
    "outcomes_of",
    "run_name",
    "standing",
    "streamed_name",
]

OUTCOMES: tuple[OutcomeState, ...] = ("completed", "cancelled", "failed", "expired")
"""Precedence, highest first, for the rare job that two owners ended differently."""

REQUEST, GONE = "request.v1.json", "gone.v1.json"
STREAMED = "streamed.v1"
"""Its output was handed out by /stream, whole; decides nothing."""
RUN = re.compile(r"run-(\d{4,})\.v1\.json")
ENDED = re.compile(r"ended-(\d{4,})-(failed|waiting|released)\.v1\.json")
AGAIN = re.compile(r"again-(\d{4,})-(\d{4,})\.v1\.json")
OUTCOME = re.compile(rf"({'|'.join(OUTCOMES)})(?:-(\d{{4,}}))?\.v1\.json")
PROGRESS = re.compile(r"progress-(\d{4,})-(\d{5,})-(\d{5,})-of-(\d{5,})\.v1\.npz")
EXPIRES = re.compile(r"expires-([0-9a-f]{12})(?:-(\d{4,}))?\.v1")


def run_name(run: int) -> str:
    return f"run-{run:04d}.v1.json"


def ended_name(run: int, reason: RunEndReason) -> str:
    return f"ended-{run:04d}-{reason}.v1.json"


def again_name(generation: int, after_run: int) -> str:
    return f"again-{generation:04d}-{after_run:04d}.v1.json"


def outcome_name(state: OutcomeState, generation: int) -> str:
    return f"{state}{_suffix(generation)}.v1.json"


def ending_name(generation: int) -> str:
    """What is written before an outcome, where the store proved conditional writes, so that there is only one."""
    return f"ending-{generation:04d}.v1.json"


def expires_name(at: float, generation: int = 0) -> str:
    """`at`: Unix seconds."""
    return f"expires-{int(1000 * at):012x}{_suffix(generation)}.v1"


def streamed_name(start: int, samples: int) -> str:
    """What /stream handed out of its audio from this sample on; decides nothing. `start`: it began anew so often."""
    return f"streamed-{start:04d}-{samples:012d}.v1.json"


def notified_name(generation: int) -> str:
    return f"notified-{generation:04d}.v1"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a job stands, by the names of its records.

    `run`: the last one, 0 before the first. `runs`: those of this generation; `runs_before`: those before it. `reason`:
    how the last run of this generation ended without an outcome. `failed` and `waited`: runs of this generation that
    failed, and those that ended for what they waited for. `lost`: those that neither ended nor came to an outcome, the
    last one included; `fruitless`: those of them that kept nothing that they spoke. `units_done` of `units`:
    what a run has kept. `expires_ms`: Unix milliseconds to which a client shortened the retention. `notified`: its
    webhook is dealt with.
    """

    exists: bool
    gone: bool
    state: JobState
    outcome: OutcomeState | None
    generation: int
    run: int
    runs: int
    runs_before: int
    reason: RunEndReason | None
    failed: int
    waited: int
    lost: int
    fruitless: int
    units_done: int
    units: int
    expires_ms: int | None
    notified: bool


def standing(names: Iterable[str]) -> Standing:
    """The state of the job that has records of these names."""
    found = set(names)
    again = [(int(m[1]), int(m[2])) for name in found if (m := AGAIN.fullmatch(name))]
    generation, before = max(again, default=(0, 0))
    runs = sorted(int(m[1]) for name in found if (m := RUN.fullmatch(name)) and int(m[1]) > before)
    words = [(int(m[1]), m[2]) for name in found if (m := ENDED.fullmatch(name)) and int(m[1]) > before]
    ended = dict(sorted(words, reverse=True))  # of a run that had two owners `failed` counts
    states = outcomes_of(found, generation)
    outcome = next((state for state in OUTCOMES if state in states), None)
    run = runs[-1] if runs else before
    kept = [(int(m[1]), int(m[3]), int(m[4])) for name in found if (m := PROGRESS.fullmatch(name))]
    done, units = max((each[1:] for each in kept), default=(0, 0))
    lost = set() if outcome else {*runs} - {*ended}
    reason: RunEndReason | None = ended.get(run)  # type: ignore[assignment]  # the pattern has these words only
    return Standing(
        exists=REQUEST in found,
        gone=GONE in found,
        state=outcome or ("in_progress" if runs and reason is None else "queued"),
        outcome=outcome,
        generation=generation,
        run=run,
        runs=len(runs),
        runs_before=before,
        reason=reason,
        failed=sum(word == "failed" for word in ended.values()),
        waited=sum(word == "waiting" for word in ended.values()),
        lost=len(lost),
        fruitless=len(lost - {each[0] for each in kept}),
        units_done=done,
        units=units,
        notified=notified_name(generation) in found,
        expires_ms=min(
            (int(m[1], 16) for name in found if (m := EXPIRES.fullmatch(name)) and int(m[2] or 0) == generation),
            default=None,
        ),
    )


def outcomes_of(names: Iterable[str], generation: int) -> set[OutcomeState]:
    """The outcomes of one generation that were written, the one that counts and any others."""
    found = (m for name in names if (m := OUTCOME.fullmatch(name)) and int(m[2] or 0) == generation)
    return {m[1] for m in found}  # type: ignore[misc]  # the pattern has these words only


def _suffix(generation: int) -> str:
    return f"-{generation:04d}" if generation else ""
