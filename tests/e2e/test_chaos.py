"""The short form of `make chaos`: a fault of every kind, or two, under some hundred jobs, in some minutes.

`make chaos-short` runs it alone.
"""

import shutil
import subprocess
import sys

import pytest

from tests.chaos.__main__ import counts_of, options_of
from tests.chaos.cluster import DEAD_AFTER_S
from tests.chaos.plan import KINDS, make_plan
from tests.chaos.processes import commands
from tests.support.running import ROOT, environment

COUNTS = {
    "replica-kills": 2,
    "ingress-kills": 1,
    "actor-kills": 1,
    "controller-kills": 1,
    "node-kills": 1,
    "cluster-kills": 1,
    "store-kills": 1,
    "cuts": 1,
    "slows": 1,
    "pauses": 1,
    "updates": 1,
}
JOBS, SEED, WITHIN_S = 120, 3, 1500
OPTIONS = [f"--seed={SEED}", f"--jobs={JOBS}", *(word for name, n in COUNTS.items() for word in (f"--{name}", str(n)))]


def test_the_short_form_has_a_fault_of_each_kind():
    """A rolling update and a paused Jobs replica are among them, and each comes while jobs are sent."""
    options = options_of(OPTIONS)
    plan = make_plan(options.seed, options.jobs, counts_of(options), DEAD_AFTER_S)
    assert {fault.kind for fault in plan} == KINDS.keys()
    assert all(0 < fault.after_jobs < JOBS for fault in plan)


@pytest.mark.timeout(1560)
def test_no_job_is_lost_wrong_or_stuck():
    """Whatever dies: every acknowledged job ends once, with the right audio, and no process is left behind."""
    command = [sys.executable, "-m", "tests.chaos", *OPTIONS]
    if shutil.which("setpriv"):
        command = ["setpriv", "--pdeathsig", "TERM", *command]  # pytest-timeout ends Python without any clean-up
    run = subprocess.Popen(
        command, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        printed, _ = run.communicate(timeout=WITHIN_S)
    finally:
        run.terminate()
        run.wait(60)
    print(printed)
    assert run.returncode == 0, printed
    folder = printed.split("everything is in ")[1].split()[0]
    assert [line for line in commands() if folder in line] == []
