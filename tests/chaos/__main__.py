"""Runs jobs under a seeded plan of faults and judges what came of it; exits with 1 when something must not be so.

python -m tests.chaos --seed 1 --jobs 300 --replica-kills 6 --store-kills 1 --report docs/chaos.md
"""

import argparse
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx

from tests.chaos.bucket import settled_bucket
from tests.chaos.checker import Verdict, check
from tests.chaos.cluster import (
    DEAD_AFTER_S,
    MAX_RUNNING_JOBS,
    RayCluster,
    double_owners,
    job_starts,
    running_cluster,
)
from tests.chaos.faults import Injector
from tests.chaos.history import History
from tests.chaos.load import Load
from tests.chaos.plan import KINDS, Fault, make_plan
from tests.chaos.processes import Sessions
from tests.chaos.report import Run, report, write_report
from tests.chaos.store import CONDITIONAL, KillableStore, running_store
from tests.chaos.texts import expected_sha256
from tests.support.running import until

OPTIONS = {"cut": "cuts", "slow": "slows", "pause": "pauses", "update": "updates"}
READERS = 8
NEXT_JOB_S = 300
"""Longest wait for the service to acknowledge enough jobs for the next fault."""

JOBS_AFTER = 10
"""Acknowledged after the last fault: some of them must complete."""


def main() -> int:
    options = options_of(sys.argv[1:])
    plan = make_plan(options.seed, options.jobs, counts_of(options), DEAD_AFTER_S)
    for fault in plan:
        _say(f"plan: {fault}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    folder = Path(tempfile.mkdtemp(prefix="chaos", dir="/tmp"))  # short: Ray's sockets lie in it
    (folder / "ray").mkdir()
    _say(f"everything is in {folder}")
    problems = _run(options, plan, folder)
    if not problems and not options.keep:
        shutil.rmtree(folder)
    return 1 if problems else 0


def _run(options: argparse.Namespace, plan: tuple[Fault, ...], folder: Path) -> list[str]:
    """What must not be of what came of it."""
    began = time.monotonic()
    history = History(folder / "history.jsonl")
    with (
        Sessions() as sessions,
        running_store(folder / "s3", sessions) as store,
        running_cluster(folder, store.environment, sessions) as cluster,
    ):
        _say(f"started in {time.monotonic() - began:.0f} s")
        load = Load(cluster.url, history, options.jobs, options.rate, options.seed)
        load_began = time.monotonic()
        load.start()
        try:
            _inject(plan, load, Injector(cluster, store, history, load))
            _drain(load, options)
        finally:
            load_s = time.monotonic() - load_began
            load.stop()
        _say(f"load took {load_s:.0f} s")
        verdict = _judge(history, cluster, store)
        starts, doubles = job_starts(folder), double_owners(folder)
    history.close()
    problems = verdict.problems(full=options.full)
    run = Run(
        seed=options.seed,
        command=f"python -m tests.chaos {shlex.join(sys.argv[1:])}",
        faults=plan,
        duration_s=time.monotonic() - began,
        load_s=load_s,
        reads=sum(event["event"] == "seen" for event in history.events),
        other_answers=load.other_answers,
        double_starts=sum(count - 1 for count in starts.values()),
        double_owners=doubles,
    )
    text = report(run, verdict, problems)
    print(text, flush=True)
    if options.report:
        write_report(options.report, text)
    return problems


def counts_of(options: argparse.Namespace) -> dict[str, int]:
    """How many faults of each kind were asked for."""
    return {kind: getattr(options, _option(kind).replace("-", "_")) for kind in KINDS}


def options_of(words: Sequence[str]) -> argparse.Namespace:
    """What a command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=300, help="that must be acknowledged, at least")
    parser.add_argument("--rate", type=float, default=20.0, help="submissions a second, at most")
    parser.add_argument("--stuck-after-s", type=float, default=120.0, help="after the last fault and the last job")
    parser.add_argument("--full", action="store_true", help="judge the p99 of progress after a fault")
    parser.add_argument("--report", type=Path, help="put the report at the end of this file too")
    parser.add_argument("--keep", action="store_true", help="keep logs and store though all was well")
    for kind, meaning in KINDS.items():
        parser.add_argument(f"--{_option(kind)}", type=int, default=0, help=meaning)
    return parser.parse_args(words)


def _option(kind: str) -> str:
    return OPTIONS.get(kind, f"{kind}-kills")


def _inject(plan: tuple[Fault, ...], load: Load, injector: Injector) -> None:
    """Each fault comes on jobs of its own, however many were acknowledged while the one before it was repaired."""
    before = load.acked
    for fault in plan:
        _until_acked(load, max(fault.after_jobs, before + 1))
        _say(f"{load.acked} jobs acknowledged, {load.unfinished()} not ended; fault {fault.index}: {fault.what}")
        injector.inject(fault)
        before = load.acked
    _until_acked(load, before + JOBS_AFTER)
    load.faults_are_over()


def _drain(load: Load, options: argparse.Namespace) -> None:
    """Until all have ended, or so long that what has not is stuck: the checker names it."""
    _until_acked(load, options.jobs)
    _say("all jobs are acknowledged")
    with suppress(AssertionError):
        until(lambda: not load.unfinished(), "all jobs end", options.stuck_after_s)


def _until_acked(load: Load, jobs: int) -> None:
    def enough() -> bool:
        load.check()
        return load.acked >= jobs

    until(enough, f"{jobs} jobs are acknowledged", NEXT_JOB_S)


def _judge(history: History, cluster: RayCluster, store: KillableStore) -> Verdict:
    acked = [event for event in history.events if event["event"] == "acked"]
    ids = [job["id"] for job in acked]
    with httpx.Client(base_url=cluster.url, timeout=30) as client, ThreadPoolExecutor(READERS) as pool:
        finals = dict(zip(ids, pool.map(partial(_final, client), ids), strict=True))
    expected = expected_sha256((job["text"], job["seed"]) for job in acked)
    bucket = settled_bucket(store.client())
    return check(history.events, finals, bucket, expected, MAX_RUNNING_JOBS, conditional=CONDITIONAL)


def _final(client: httpx.Client, job_id: str) -> str | None:
    """The state as it is now, None for a 404; again while the service does not answer."""

    def answer() -> httpx.Response | None:
        with suppress(httpx.TransportError):
            found = client.get(f"/status/{job_id}")
            return found if found.status_code in (200, 404) else None
        return None

    found = until(answer, f"status of {job_id}")
    return found.json()["status"] if found.status_code == 200 else None


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
