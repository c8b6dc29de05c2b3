"""The checker of chaos runs, with histories of runs that never were: good ones pass, each kind of bad one is named."""

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.bucket import Stored
from tests.chaos.checker import Verdict, check, percentile
from tests.chaos.plan import KINDS, make_plan
from tests.support.chaos import ENDED

EXPECTED = {("Hello.", 1): "aa", ("Hello.", 2): "bb"}


def acked(job_id: str = "a", seed: int = 1) -> dict[str, Any]:
    return {"event": "acked", "at": 10.0, "id": job_id, "text": "Hello.", "seed": seed}


def seen(state: str, sent: float, at: float, job_id: str = "a") -> dict[str, Any]:
    return {"event": "seen", "id": job_id, "sent": sent, "at": at, "state": state}


def audio(sha256: str = "aa", job_id: str = "a") -> dict[str, Any]:
    return {"event": "audio", "at": 14.0, "id": job_id, "sha256": sha256}


def cancel(accepted: bool | None) -> dict[str, Any]:
    return {"event": "cancel", "at": 11.0, "id": "a", "accepted": accepted}


def fault(what: str = "jobs", at: float = 11.0) -> dict[str, Any]:
    return {"event": "fault", "index": 0, "kind": "replica", "what": what, "victim": 1, "at": at, "healed": at}


GOOD = (acked(), seen("IN_QUEUE", 10.1, 10.2), seen("IN_PROGRESS", 11, 11.1), seen("COMPLETED", 13, 13.1), audio())


def judged(*events: dict[str, Any], final: str | None = "COMPLETED", stored: Stored | None = ENDED) -> Verdict:
    bucket = {} if stored is None else {"a": stored}
    return check(events, {"a": final}, bucket, EXPECTED, in_flight=4)


def test_a_good_history_passes():
    """A job that was queued, ran, ended once and has its audio."""
    verdict = judged(*GOOD)
    assert (verdict.acked, verdict.states, verdict.problems(full=True)) == (1, {"COMPLETED": 1}, [])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("lost", {"final": None}),
        ("lost", {"stored": None}),
        ("stuck", {"final": "IN_QUEUE"}),
        ("stuck", {"final": "IN_PROGRESS"}),
        ("wrong", {"final": "FAILED"}),
        ("wrong", {"final": "CANCELLED"}),
        ("wrong", {"final": "TIMED_OUT"}),
        ("wrong", {"stored": replace(ENDED, sha256="bb")}),
        ("wrong", {"stored": replace(ENDED, sha256=None)}),
    ],
)
def test_a_bad_end_is_named(name: str, changes: dict[str, Any]):
    """What the last read or the bucket says against it is a problem of that name."""
    events = [event for event in GOOD if event["event"] != "seen"]
    verdict = judged(*events, **changes)
    assert [len(getattr(verdict, each)) for each in ("lost", "stuck", "wrong")] == [
        int(each == name) for each in ("lost", "stuck", "wrong")
    ]
    assert [problem.partition(":")[0] for problem in verdict.problems(full=False)] == [name]


def test_a_404_for_an_acknowledged_job_is_a_loss():
    """Even if it was there again later."""
    verdict = judged(*GOOD, {"event": "unknown", "id": "a", "sent": 11.0, "at": 11.1})
    assert len(verdict.lost) == 1


@pytest.mark.parametrize("events", [[audio("bb")], []])
def test_audio_behind_the_url_must_be_right_and_there(events: list[dict[str, Any]]):
    """Other bytes than its text and seed give are wrong, and so is audio that could never be read."""
    assert len(judged(*GOOD[:-1], *events).wrong) == 1


def test_each_job_is_held_to_its_own_seed():
    """Audio of another seed is wrong audio."""
    assert len(judged(acked(seed=2), *GOOD[1:]).wrong) == 2


@pytest.mark.parametrize("later", ["IN_QUEUE", "IN_PROGRESS", "CANCELLED", "FAILED"])
def test_a_final_state_may_not_change(later: str):
    """Read as COMPLETED, then as something else by a question that was asked after that answer."""
    verdict = judged(*GOOD, seen(later, 13.2, 13.3))
    assert (len(verdict.changed), len(verdict.replaced)) == (1, 0)
    assert verdict.problems(full=False)[0].startswith("changed: a: COMPLETED at 13.100, then")


def test_reads_that_overlap_have_no_order():
    """An answer to a question that was asked before the final state was read contradicts nothing."""
    assert judged(*GOOD, seen("IN_PROGRESS", 13.05, 13.4)).changed == []


def test_the_last_read_counts_as_a_read():
    """FAILED once, COMPLETED in the end: higher by precedence, so told apart."""
    verdict = judged(acked(), seen("FAILED", 12, 12.1), audio())
    assert (len(verdict.changed), len(verdict.replaced)) == (0, 1)
    assert verdict.problems(full=False) == []


def test_where_conditional_puts_are_proven_nothing_is_replaced():
    """Neither may a final state be replaced by a higher one, nor may a job have two outcomes."""
    stored = replace(ENDED, conditional=True, outcomes=("completed", "failed"))
    verdict = judged(acked(), seen("FAILED", 12, 12.1), audio(), stored=stored)
    assert len(verdict.problems(full=False)) == 2
    assert judged(*GOOD, stored=replace(stored, conditional=False)).problems(full=False) == []


@pytest.mark.parametrize(("accepted", "wrong"), [(True, 0), (None, 0), (False, 1)])
def test_only_a_job_that_was_cancelled_may_be(accepted: bool | None, wrong: int):
    """A cancel whose answer was lost may have worked; one that was refused may not."""
    verdict = judged(acked(), cancel(accepted), final="CANCELLED", stored=replace(ENDED, outcomes=("cancelled",)))
    assert len(verdict.wrong) == wrong


def test_reruns_are_bounded_by_faults_that_end_runs():
    """Four jobs in flight and one such fault explain four reruns; those that a replica gave back need no fault."""
    five = replace(ENDED, runs=6, owners=2)
    assert judged(*GOOD, fault("jobs"), stored=five).problems(full=False) == [
        "5 reruns, at most 4 are explained by kills"
    ]
    assert judged(*GOOD, fault("jobs"), stored=replace(five, given_back=1)).problems(full=False) == []
    assert judged(*GOOD, fault("ingress"), stored=replace(ENDED, runs=2)).problems(full=False) != []


def test_progress_is_the_time_until_a_job_completes():
    """Counted from each fault; none at all is a problem, a long one in the full form."""
    assert [each.seconds for each in judged(*GOOD, fault(at=11.5)).progress] == [0.5]
    assert judged(*GOOD, fault(at=12.5)).problems(full=False) == ["no job completed after the fault jobs"]
    late = judged(*GOOD, fault(at=-19.0))
    assert late.problems(full=False) == []
    assert late.problems(full=True) == ["p99 of progress after a fault is 31.0 s, over 30 s"]
    assert judged(*GOOD, fault("cluster", at=-19.0)).problems(full=True) == []


def test_a_fault_on_which_an_outage_came_is_not_judged_by_its_time():
    """Its next job had to wait for the cluster, which another fault had ended."""
    verdict = judged(*GOOD, fault("jobs", at=-19.0), fault("cluster", at=-18.0))
    assert [each.outage for each in verdict.progress] == [True, True]
    assert verdict.problems(full=True) == []
    assert not judged(*GOOD, fault("jobs", at=11.0), fault("cluster", at=12.5)).progress[0].outage


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100)])
def test_percentiles(share: float, value: int):
    """The smallest that the share does not exceed."""
    assert percentile(range(1, 101), share) == value


def test_a_plan_follows_from_its_seed():
    """The same faults at the same jobs; another seed, another plan; all of them under load and in order."""
    counts = dict.fromkeys(KINDS, 5)
    plan = make_plan(7, 1000, counts, dead_after_s=2)
    assert plan == make_plan(7, 1000, counts, dead_after_s=2)
    assert plan != make_plan(8, 1000, counts, dead_after_s=2)
    assert sorted(fault.kind for fault in plan) == sorted(list(KINDS) * 5)
    due = [fault.after_jobs for fault in plan]
    assert due == sorted(due)
    assert 0 < due[0] < due[-1] < 1000
    assert all(fault.lasts_s > 2 for fault in plan if fault.kind == "pause")
