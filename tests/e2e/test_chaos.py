"""The short form of `make chaos`: a few faults of every kind under some hundred jobs, in some minutes.

`make chaos-short` runs it alone.
"""

import shutil
import subprocess
import sys

import pytest

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
}
JOBS, SEED, WITHIN_S = 120, 3, 600


@pytest.mark.timeout(660)
def test_no_job_is_lost_wrong_or_stuck():
    """Whatever dies: every acknowledged job ends once, with the right audio, and no process is left behind."""
    options = [word for name, count in COUNTS.items() for word in (f"--{name}", str(count))]
    command = [sys.executable, "-m", "tests.chaos", f"--seed={SEED}", f"--jobs={JOBS}", *options]
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
