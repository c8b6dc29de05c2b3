"""What the store knows of one job, read together."""

from pydantic import BaseModel, ConfigDict

from serve_app.domain import JobState
from serve_app.jobs.records import JobOutcome, JobRequest, JobRun, Marker, RunEnd, marker_of
from serve_app.jobs.states import Standing

__all__ = ["JobStatus", "removed_at"]


class JobStatus(BaseModel):
    """All that the store knows of a job. `run`: the last one of this generation, while the job is not ended; `run_end`:
    how it ended, where that was without an outcome."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    request: JobRequest
    state: JobState
    standing: Standing
    run: JobRun | None = None
    run_end: RunEnd | None = None
    outcome: JobOutcome | None = None

    @property
    def marker(self) -> Marker:
        """What keeps it on the pending list until it is settled."""
        return marker_of(self.request, self.standing.generation)


def removed_at(outcome: JobOutcome, found: Standing) -> float:
    """When the result goes, Unix seconds: the outcome says it, and a client may have made it sooner."""
    return min(outcome.removed_at, float("inf") if found.expires_ms is None else found.expires_ms / 1000)
