"""Judges a run: pure, from its history, the last reads and what the bucket holds to a verdict.

    history + finals + bucket + expected audio -> Verdict

A job is *lost* when the service or the bucket does not know it, *stuck* when it has no end after the last fault was
long over, *wrong* when it ended as nobody asked for or with other audio than its text and seed give. A final state that
was read may not change; *replaced* is the one change that is explained: an outcome that stands higher came later. A job
is *unannounced* when no conditional put decided its outcome, *unsettled* when it has ended and its marker is left.
*Progress* is any job completed, whichever.
"""

import bisect
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.bucket import Stored
from tests.chaos.history import Event
from tests.chaos.plan import ENDS_RUNS, KILLS, OUTAGES, STORE_OUTAGES

__all__ = ["PROGRESS_S", "STATES", "Progress", "Verdict", "check", "percentile"]

STATES = ("COMPLETED", "CANCELLED", "FAILED", "TIMED_OUT")
"""Final ones, by precedence, highest first."""

PROGRESS_S = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Seconds from a fault until a job next completed, whatever was restarted meanwhile; None where none did any more.

    `since_up_s`: as much from when what the fault had stopped was up again. `outage`: the store or the cluster was down
    meanwhile, by this fault or by another that came on top of it.
    """

    what: str
    seconds: float | None
    since_up_s: float | None
    outage: bool


@dataclass
class Verdict:
    """Lists name the jobs, each with why. `problems` says what must not be; empty is a pass."""

    acked: int = 0
    states: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    two_outcomes: list[str] = field(default_factory=list)
    unannounced: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    conditional: bool = False
    reruns: int = 0
    reruns_allowed: int = 0
    given_back: int = 0
    failed_runs: int = 0
    hasty: int = 0
    two_owners: int = 0
    unacked: int = 0
    took: list[float] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)

    def problems(self, *, full: bool) -> list[str]:
        """What must not be. In the full form progress is judged by its p99, else by there being any."""
        names = ("lost", "stuck", "wrong", "changed", "unsettled")
        found = [f"{name}: {line}" for name in names for line in getattr(self, name)]
        if self.conditional:
            found += [f"not announced though conditional puts are proven: {line}" for line in self.unannounced]
            found += [f"two outcomes though conditional puts are proven: {line}" for line in self.two_outcomes]
            found += [f"replaced though conditional puts are proven: {line}" for line in self.replaced]
        if self.reruns > self.reruns_allowed:
            found.append(f"{self.reruns} reruns, at most {self.reruns_allowed} are explained by kills")
        found += [f"no job completed after the fault {each.what}" for each in self.progress if each.seconds is None]
        times = self.times(KILLS, outages=False)
        if full and times and percentile(times, 0.99) > PROGRESS_S:
            found.append(f"p99 of progress after a fault is {percentile(times, 0.99):.1f} s, over {PROGRESS_S:.0f} s")
        return found

    def times(self, whats: Container[str], *, outages: bool = True, since_up: bool = False) -> list[float]:
        """Seconds until progress after these faults, sorted; without `outages` not of those that met with one."""
        chosen = [each for each in self.progress if each.what in whats and (outages or not each.outage)]
        times = [each.since_up_s if since_up else each.seconds for each in chosen]
        return sorted(seconds for seconds in times if seconds is not None)


def check(
    history: Iterable[Event],
    finals: Mapping[str, str | None],
    bucket: Mapping[str, Stored],
    expected: Mapping[tuple[str, int], str],
    in_flight: int,
    *,
    conditional: bool = False,
) -> Verdict:
    """`finals`: the last state read of each acknowledged job, None for a 404. `expected`: sha256 by text and seed.

    `in_flight`: jobs that one Jobs replica runs at once: so many a fault can make run again of each replica that it
    takes (ENDS_RUNS). `conditional`: the store passes the service's probe, so each outcome must have been announced.
    """
    by_kind: dict[str, list[Event]] = defaultdict(list)
    for event in history:
        by_kind[event["event"]].append(event)
    seen: dict[str, list[Event]] = defaultdict(list)
    for event in by_kind["seen"]:
        seen[event["id"]].append(event)
    audio = {event["id"]: event["sha256"] for event in by_kind["audio"]}
    may_be_cancelled = {event["id"] for event in by_kind["cancel"] if event["accepted"] is not False}
    verdict = Verdict(acked=len(by_kind["acked"]), conditional=conditional)
    for event in by_kind["unknown"]:
        verdict.lost.append(f"{event['id']}: 404 at {event['at']:.3f}")
    for job in by_kind["acked"]:
        job_id = job["id"]
        final, stored = finals.get(job_id), bucket.get(job_id)
        _check_changes(verdict, job_id, seen[job_id], final)
        if final is None or stored is None:
            verdict.lost.append(f"{job_id}: last read {final}, in the bucket {stored}")
            continue
        verdict.states[final] += 1
        if final not in STATES:
            verdict.stuck.append(f"{job_id}: {final}, {stored}")
            continue
        sha256 = expected[job["text"], job["seed"]]
        _check_end(verdict, job_id, final, stored, sha256, audio.get(job_id), job_id in may_be_cancelled)
    _count(verdict, by_kind["acked"], bucket)
    faults = by_kind["fault"]
    verdict.reruns_allowed = in_flight * sum(ENDS_RUNS.get(fault["what"], 0) for fault in faults)
    verdict.progress = _progress(faults, bucket.values())
    return verdict


def _check_changes(verdict: Verdict, job_id: str, seen: Sequence[Event], final: str | None) -> None:
    """Reads that overlap have no order; one that was sent after another's answer must not contradict it."""
    known: Event | None = None
    last = {"sent": float("inf"), "at": float("inf"), "state": final}
    for event in (*sorted(seen, key=lambda event: event["at"]), last):
        if known is not None and event["sent"] >= known["at"] and event["state"] != known["state"]:
            line = f"{job_id}: {known['state']} at {known['at']:.3f}, then {event['state']} at {event['at']:.3f}"
            later = event["state"]
            higher = later in STATES and STATES.index(later) < STATES.index(known["state"])
            (verdict.replaced if higher else verdict.changed).append(line)
            known = event if higher else known
        elif known is None and event["state"] in STATES:
            known = event


def _check_end(
    verdict: Verdict, job_id: str, final: str, stored: Stored, expected: str, audio: str | None, cancelled: bool
) -> None:
    if final != "COMPLETED":
        if not (final == "CANCELLED" and cancelled):
            verdict.wrong.append(f"{job_id}: ended as {final}, {stored}")
        return
    if audio != expected:
        verdict.wrong.append(f"{job_id}: behind its URL lies {audio}, its text and seed give {expected}")
    if stored.sha256 != expected:
        verdict.wrong.append(f"{job_id}: the store holds {stored.sha256}, its text and seed give {expected}")


def _count(verdict: Verdict, acked: Sequence[Event], bucket: Mapping[str, Stored]) -> None:
    for job_id, stored in bucket.items():
        if len(stored.outcomes) > 1:
            verdict.two_outcomes.append(f"{job_id}: {', '.join(stored.outcomes)}")
        if stored.outcomes and not stored.conditional:
            verdict.unannounced.append(f"{job_id}: {', '.join(stored.outcomes)}")
        if stored.outcomes and stored.pending:
            verdict.unsettled.append(f"{job_id}: {', '.join(stored.outcomes)}, and its marker is left")
        verdict.conditional |= stored.conditional
        verdict.reruns += max(0, stored.runs - 1 - stored.given_back)
        verdict.given_back += stored.given_back
        verdict.failed_runs += stored.failed
        verdict.hasty += stored.hasty
        verdict.two_owners += stored.owners > 1
    for job in acked:
        ended = bucket[job["id"]].finished_at if job["id"] in bucket else None
        if ended is not None:
            verdict.took.append(max(0.0, ended - job["at"]))
    verdict.unacked = len(bucket.keys() - {job["id"] for job in acked})


def _progress(faults: Sequence[Event], stored: Iterable[Stored]) -> list[Progress]:
    """By when the completed jobs say that they ended."""
    ends = sorted(each.finished_at for each in stored if each.finished_at is not None and "completed" in each.outcomes)
    outages = [(fault["at"], fault["healed"]) for fault in faults if fault["what"] in OUTAGES]
    found = []
    for fault in sorted(faults, key=lambda fault: fault["at"]):
        at, healed = fault["at"], fault["healed"]
        end, up = (_next(ends, each) for each in (healed if fault["what"] in STORE_OUTAGES else at, healed))
        down = any(began <= (end or began) and over >= at for began, over in outages)
        found.append(Progress(fault["what"], end and end - at, up and up - healed, down))
    return found


def _next(ends: Sequence[float], after: float) -> float | None:
    place = bisect.bisect_right(ends, after)
    return ends[place] if place < len(ends) else None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the sorted values do not exceed."""
    return ordered[max(0, -(-int(share * 1000 * len(ordered)) // 1000) - 1)]
