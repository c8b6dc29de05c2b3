"""What follows from a job's end: it changes lists, is removed some time, its webhook is sent, it is pending no more.

    list entry of the outcome -> expiry -> webhook -> out of the lists before -> look -> the marker goes, last

Each step is harmless to do again, and a marker that is left over has all of it done. Others may act on the same job
meanwhile: one who ends it otherwise, where the store has no conditional writes; a client who retries it; whoever
removes it. All of them write and then look, so the last to look sees what counts, and makes the lists say it.
"""

from collections.abc import Callable

from serve_app.errors import ObjectNotFound
from serve_app.jobs import states
from serve_app.jobs.folders import JobFolders
from serve_app.jobs.lists import LISTED, JobLists, Listed, entry_name
from serve_app.jobs.markers import Markers
from serve_app.jobs.outbox import Letter, Outbox
from serve_app.jobs.progress import drop_progress, keeps_progress
from serve_app.jobs.records import JobOutcome, JobRef, JobRequest, marker_of
from serve_app.jobs.states import REQUEST, Standing
from serve_app.storage import ObjectStore

__all__ = ["RETRYABLE", "Settling"]

RETRYABLE = ("failed", "expired")
FIRST: tuple[Listed, ...] = ("begun", "open")


class Settling:
    """Blocks on the store. `markers`: those of all jobs. `wall_clock`: Unix seconds."""

    def __init__(
        self, store: ObjectStore, folders: JobFolders, markers: Markers, wall_clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._folders = folders
        self._lists = JobLists(store)
        self._outbox = Outbox(store)
        self._markers = markers
        self._wall_clock = wall_clock

    def settle(self, request: JobRequest, outcome: JobOutcome, *, alone: bool = True) -> None:
        """All that follows from an outcome. `alone`: nobody can be removing the job, unless its time is over."""
        self._lists.put(request, outcome.state)
        self._lists.expire(request.ref, outcome.removed_at)
        retryable = outcome.state in RETRYABLE
        found = self._folders.standing(request.ref) if retryable or request.webhook is not None else None
        if request.webhook is not None and found is not None and not found.notified:
            self._outbox.put(Letter(request.ref, outcome.generation))
        if found is None or found.generation == outcome.generation:  # else they are a retry's
            for name in FIRST:
                self._lists.remove(request, name)
        if keeps_progress(request) and not retryable:
            drop_progress(self._store, request.ref)
        alone = alone and self._folders.exclusive and outcome.removed_at > self._wall_clock()
        if not alone or retryable or outcome.generation:
            self._amend_lists(request, outcome)
        self._markers.remove(marker_of(request, outcome.generation), older=request.audio_s is None)

    def settle_removed(self, ref: JobRef) -> None:
        """Settle a job whose retention was over before anybody did: only then is it removed, and its webhook sent."""
        found = self._folders.standing(ref)
        if found.exists and not found.gone and found.outcome is not None:
            request = self._folders.read(ref, REQUEST, JobRequest)
            name = states.outcome_name(found.outcome, found.generation)
            self.settle(request, self._folders.read(ref, name, JobOutcome), alone=False)

    def _amend_lists(self, request: JobRequest, outcome: JobOutcome) -> None:
        """Make the lists say what counts: another outcome may have been written meanwhile, or a retry, which may have
        been begun, or the job removed. After each entry that is put here there is a look, too."""
        put: set[Listed] = {outcome.state}
        while True:
            names = self._folders.names(request.ref)
            found = states.standing(names)
            counts = _lists_of(found)
            if counts <= put:
                break
            for name in counts - put:
                self._lists.put(request, name)
            put |= counts
        ended = (states.outcomes_of(names, generation) for generation in range(found.generation + 1))
        left = put.union(*ended) if counts else {*LISTED}
        for name in left - counts:
            self._lists.remove(request, name)
        if request.body_sha256 is not None and not self._folders.exclusive and counts:
            self._amend_twin(request, outcome)

    def _amend_twin(self, request: JobRequest, outcome: JobOutcome) -> None:
        """Of two requests with one idempotency key the other may be the job's, and the entries of this one nobody's."""
        try:
            counts = self._folders.read(request.ref, REQUEST, JobRequest)
        except ObjectNotFound:
            return  # removed meanwhile, with its entries
        if entry_name(counts) != entry_name(request):
            for name in LISTED:
                self._lists.remove(request, name)
            self.settle(counts, outcome)


def _lists_of(found: Standing) -> frozenset[Listed]:
    """Those that a job is to be in; `begun` without being begun only costs a look."""
    if found.gone or not found.exists:
        return frozenset()
    return frozenset((found.outcome,) if found.outcome else FIRST)
