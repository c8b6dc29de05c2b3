"""Ends a job: of all who would end it one does, and an end that was announced is carried out.

    ending-G, only the first, where the store proved conditional writes -> the outcome -> the rest is `JobStore.settle`

The audio lies in the store before either is written. So of a job whose owner died between the two the end is known:
whoever asks for it next writes the outcome, and nothing is spoken again.
"""

from serve_app.errors import Conflict, JobExpired
from serve_app.jobs import states
from serve_app.jobs.folders import JobFolders
from serve_app.jobs.records import JobOutcome, JobRef
from serve_app.jobs.states import Standing

__all__ = ["Endings", "job_expired"]


class Endings:
    """Blocks on the store."""

    def __init__(self, folders: JobFolders) -> None:
        self._folders = folders

    def standing(self, ref: JobRef) -> Standing:
        """The state of a job, with the end that was announced for it."""
        names = self._folders.names(ref)
        found = states.standing(names)
        announced = states.ending_name(found.generation)
        if found.outcome is not None or found.gone or not found.exists or announced not in names:
            return found
        outcome = self._folders.read(ref, announced, JobOutcome)
        name = states.outcome_name(outcome.state, outcome.generation)
        self._folders.write(ref, name, outcome)
        return states.standing(names | {name})

    def finish(self, outcome: JobOutcome) -> JobOutcome:
        """End the job, and say which outcome counts: another owner or a client may have ended it before."""
        found = self._folders.standing(outcome.ref)
        if found.gone or not found.exists:
            raise job_expired(outcome.ref)
        if found.generation != outcome.generation:
            raise Conflict(f"job {outcome.job_id} was retried meanwhile: its {outcome.state} run counts no more")
        if found.outcome is None and self._folders.exclusive:
            name = states.ending_name(outcome.generation)
            if not self._folders.write_once(outcome.ref, name, outcome):
                outcome = self._folders.read(outcome.ref, name, JobOutcome)
        if found.outcome is None:
            self._folders.write(outcome.ref, states.outcome_name(outcome.state, outcome.generation), outcome)
            return outcome
        return self._folders.read(outcome.ref, states.outcome_name(found.outcome, found.generation), JobOutcome)


def job_expired(ref: JobRef) -> JobExpired:
    return JobExpired(f"the result of job {ref.job_id} is past its retention and removed: send the request again")
