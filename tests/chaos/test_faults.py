"""A fault is done as it says, to processes and a cluster that are none of Ray's."""

import itertools
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

from tests.chaos.__main__ import JOBS_AFTER, _inject
from tests.chaos.cluster import double_owners
from tests.chaos.faults import AWAKE_S, Injector
from tests.chaos.history import History
from tests.chaos.plan import Fault


def test_a_replica_that_was_paused_is_left_alone_for_a_while(tmp_path: Path):
    """It goes on before the next fault comes, and nothing kills it as soon as it wakes."""
    history = History(tmp_path / "history.jsonl")
    process = subprocess.Popen(["sleep", "1000"])
    try:
        cluster = SimpleNamespace(pids=lambda _: [process.pid])
        fault = Fault(0, "pause", "pause", after_jobs=1, draw=0.0, lasts_s=0.1)
        Injector(cluster, SimpleNamespace(), history, SimpleNamespace()).inject(fault)
        [event] = history.events
        assert event["healed"] - event["at"] >= fault.lasts_s
        assert time.time() - event["healed"] >= AWAKE_S
        assert Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "S"  # it sleeps, and is not stopped
    finally:
        process.kill()
        process.wait()
        history.close()


class _Jobs:
    """A load that has one job more acknowledged each time that it is asked whether all is well."""

    def __init__(self) -> None:
        self.acked = 0
        self.acked_when_over = 0

    def check(self) -> None:
        self.acked += 1

    def unfinished(self) -> int:
        return 0

    def faults_are_over(self) -> None:
        self.acked_when_over = self.acked


def test_each_fault_falls_on_jobs_of_its_own():
    """Also where a long one let more jobs pass than the plan had counted on: else nothing would complete after it."""
    load = _Jobs()
    acked: list[tuple[int, int]] = []

    def inject(fault: Fault) -> None:
        began = load.acked
        load.acked += 100 if fault.index == 1 else 0
        acked.append((began, load.acked))

    plan = tuple(Fault(index, "update", "update", after_jobs=index * 10, draw=0.0) for index in range(4))
    _inject(plan, load, SimpleNamespace(inject=inject))
    assert [began for began, _ in acked[:2]] == [1, 10]
    assert all(began > over for (_, over), (began, _) in itertools.pairwise(acked))
    assert load.acked_when_over >= acked[-1][1] + JOBS_AFTER


def test_runs_of_two_owners_are_known_by_the_logs(tmp_path: Path):
    """A run that was stopped, or whose end was not its own; not where a client had cancelled the job."""
    lines = [
        '{"event": "run_stopped", "job_id": "a", "state": "in_progress", "run": 1, "owned": true}',
        '{"event": "run_stopped", "job_id": "b", "state": "cancelled", "run": 1, "owned": true}',
        '{"event": "job_finished", "job_id": "c", "state": "completed", "run": 2, "code": null, "own": false}',
        '{"event": "job_finished", "job_id": "d", "state": "completed", "run": 1, "code": null, "own": true}',
        '{"event": "job_finished", "job_id": "e", "state": "cancelled", "run": 1, "code": "cancelled", "own": false}',
    ]
    log = tmp_path / "ray/session_2026/logs/worker-1.err"
    log.parent.mkdir(parents=True)
    log.write_text("\n".join(lines))
    assert double_owners(tmp_path) == 2
