"""What the checker holds a run to, beside tests/unit/test_chaos_checker.py: ends, markers, repeated runs, progress."""

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.bucket import Stored
from tests.chaos.checker import Verdict, check
from tests.chaos.plan import ENDS_RUNS, KILLS, KINDS, OUTAGES, make_plan
from tests.chaos.report import Run, report
from tests.support.chaos import ENDED

PROVEN = replace(ENDED, conditional=True, finished_at=100.0)
ACKED = {"event": "acked", "at": 10.0, "id": "a", "text": "Hello.", "seed": 1}
AUDIO = {"event": "audio", "at": 101.0, "id": "a", "sha256": "aa"}


def fault(what: str, at: float = 99.0, healed: float | None = None) -> dict[str, Any]:
    return {"event": "fault", "index": 0, "kind": what, "what": what, "victim": 1, "at": at, "healed": healed or at}


def judged(*events: dict[str, Any], in_flight: int = 2, **jobs: Stored) -> Verdict:
    """With conditional puts proven; job `a` is the acknowledged one."""
    bucket = {"a": PROVEN} | jobs
    return check(
        (ACKED, AUDIO, *events), {"a": "COMPLETED"}, bucket, {("Hello.", 1): "aa"}, in_flight, conditional=True
    )


def problems(verdict: Verdict) -> list[str]:
    return verdict.problems(full=True)


def test_each_end_must_have_been_announced():
    """Where conditional puts are proven, an outcome that none decided is a problem, also where no other was so."""
    assert problems(judged()) == []
    assert problems(judged(a=replace(PROVEN, conditional=False))) == [
        "not announced though conditional puts are proven: a: completed"
    ]
    unfinished = replace(PROVEN, conditional=False, outcomes=(), finished_at=None)
    assert problems(judged(nobodys=unfinished)) == []


def test_no_marker_of_an_ended_job_may_be_left():
    """Of any job of the bucket; one that nobody was promised and that has not ended may be pending."""
    assert problems(judged(nobodys=replace(PROVEN, pending=True))) == [
        "unsettled: nobodys: completed, and its marker is left"
    ]
    assert problems(judged(nobodys=replace(PROVEN, pending=True, outcomes=(), finished_at=None))) == []


def test_what_a_cancel_was_answered_is_held_to():
    """CANCELLED by /cancel, COMPLETED in the end."""
    answer = {"event": "seen", "id": "a", "sent": 12.0, "at": 12.1, "state": "CANCELLED"}
    assert problems(judged(answer)) == [
        "replaced though conditional puts are proven: a: CANCELLED at 12.100, then COMPLETED at inf"
    ]


@pytest.mark.parametrize(
    ("what", "reruns"),
    [("jobs", 2), ("pause", 2), ("node", 4), ("cluster", 4), ("store", 4), ("cut", 4), ("update", 4), ("ingress", 0)],
)
def test_a_fault_explains_as_many_reruns_as_it_can_cause(what: str, reruns: int):
    """The two slots of one Jobs replica where one is hit, those of both where both may be, none where none is."""
    assert problems(judged(fault(what), nobodys=replace(PROVEN, runs=1 + reruns))) == []
    assert problems(judged(fault(what), nobodys=replace(PROVEN, runs=2 + reruns))) == [
        f"{reruns + 1} reruns, at most {reruns} are explained by kills"
    ]


def test_kinds_of_faults():
    """Each fault is of a kind that the tables know, and what is held to a time is not what takes the service away."""
    whats = {fault.what for fault in make_plan(1, 1000, dict.fromkeys(KINDS, 2), dead_after_s=2)}
    assert whats >= KILLS | OUTAGES | ENDS_RUNS.keys()
    assert set() == KILLS & OUTAGES


def test_pauses_and_updates_do_not_make_the_kills_look_better():
    """p99 of a hundred pauses that nobody felt and one kill that was felt is that of the kill."""
    pauses = [fault("pause", at=99.5) for _ in range(200)]
    assert problems(judged(*pauses)) == []
    assert problems(judged(*pauses, fault("jobs", at=60.0))) == ["p99 of progress after a fault is 40.0 s, over 30 s"]


def test_outages_are_measured_from_the_kill_and_from_when_it_is_over():
    """The first has the restart in it, the second has not."""
    verdict = judged(fault("cluster", at=50.0, healed=90.0))
    assert verdict.times(OUTAGES) == [50.0]
    assert verdict.times(OUTAGES, since_up=True) == [10.0]


@pytest.mark.parametrize(("what", "seconds"), [("store", 50.0), ("cut", 50.0), ("cluster", 5.0)])
def test_nothing_is_kept_while_the_store_is_away(what: str, seconds: float):
    """An outcome that carries a time of such an outage was written after it, and is no progress in it."""
    verdict = judged(fault(what, at=50.0, healed=90.0), nobodys=replace(PROVEN, finished_at=55.0))
    assert (verdict.times({what}), verdict.times({what}, since_up=True)) == ([seconds], [10.0])


def test_a_report_tells_kills_and_outages_apart():
    """Kills without those on which an outage came and with them; outages from both ends; and all together."""
    verdict = judged(
        fault("jobs", at=98.0), fault("jobs", at=49.0), fault("cluster", at=50.0, healed=90.0), fault("pause", at=99.0)
    )
    run = Run(
        seed=1,
        command="",
        faults=(),
        duration_s=1,
        load_s=1,
        reads=0,
        other_answers={},
        double_starts=0,
        double_owners=0,
    )
    told = [line for line in report(run, verdict, []).splitlines() if line.startswith("- ")]
    assert told == [
        "- Kills of actor, controller, ingress, jobs, node, synthesizer, which are held to 30 s at p99: "
        "2.0, 2.0, 2.0 s. With the 1 on which an outage came before a job completed: 2.0, 51.0, 51.0 s.",
        "- Outages, cluster, cut, store: 50.0, 50.0, 50.0 s from the fault, its restart included; 10.0, 10.0, 10.0 s "
        "from when what was down was up again.",
        "- All faults: 2.0, 51.0, 51.0 s.",
    ]
