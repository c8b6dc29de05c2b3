"""Whether and when a job is begun again after a run that came to no outcome. Pure."""

from serve_app.errors import ExecutionTimeout, ObjectCorrupt, PoisonJob, ServiceError, StorageError, StorageUnreachable
from serve_app.jobs import JobStatus, Standing
from serve_app.patience import PASSING

__all__ = ["LONGEST_PAUSE_S", "counts_as_failed", "given_up", "is_over", "pause_s", "too_late"]

MAX_PAUSE_S = 60.0
LONGEST_PAUSE_S = 900.0
"""Where the store refuses: who mends that is a person, and each try may be a whole synthesis."""


def counts_as_failed(error: Exception) -> bool:
    """Whether a run that ended with `error` is one of the `max_runs`: not for what time mends, nor for a store that
    refuses all jobs alike. Bytes that are broken are this job's own trouble."""
    return isinstance(error, ObjectCorrupt) or not isinstance(error, (*PASSING, StorageError))


def is_over(found: Standing, max_runs: int, *, failed: int = 0) -> bool:
    """Whether there is no further run; `failed`: runs that count beside those that were found."""
    return found.failed + failed + found.fruitless >= max_runs


def too_late(run: int, limit_s: float) -> ExecutionTimeout:
    return ExecutionTimeout(
        f"run {run} did not end within {limit_s:g} s: send the text in parts, or with a longer "
        "executionTimeout or ttl in `policy`"
    )


def pause_s(found: Standing, error: Exception | None) -> float:
    """Seconds until the next run may begin, after one that was begun on `found`: 2, 4, 8 ..."""
    refused = isinstance(error, StorageError) and not isinstance(error, StorageUnreachable)
    longest_s = LONGEST_PAUSE_S if refused else MAX_PAUSE_S
    return min(2.0 ** min(found.failed + found.waited + 1, 20), longest_s)


def given_up(status: JobStatus) -> ServiceError:
    """Why there is no further run, with what the last one failed of."""
    found = status.standing
    runs = f"gave up after {found.runs} runs: {found.fruitless} of them did not end, nor kept what they had spoken"
    if status.run_end is None or status.run_end.error is None:
        return PoisonJob(f"{runs}, as if the job ended whoever ran it; send it again in parts")
    return PoisonJob(f"{runs}; the last error was {status.run_end.error.code}: {status.run_end.error.message}")
