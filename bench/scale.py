"""How the service scales: units over 1 to 8 replicas of a model, and how fast jobs are accepted.

    python -m bench.scale      about 18 minutes

The engine is simulated (bench/simulated.py), all else is real: Ray Serve with its Python proxy, a directory, SeaweedFS.
"""

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

from bench.load import Call, Load, call, run_load
from bench.no_op import NO_OP
from bench.simulated import RTF, UNIT_AUDIO_S, serving, text_of_units
from bench.stores import STORES, new_store
from serve_app.domain import DEFAULT_TENANT
from serve_app.jobs import JobRef, JobStatus, JobStore
from tests.support.running import until

REPLICAS = (1, 2, 4, 8)
JOBS, UNITS = 32, 25
"""The same for each number of replicas: 800 units, 2.4 hours of speech, 5.7 minutes for one replica."""
JOBS_REPLICAS, RUNNING_JOBS = 2, 3
"""Six jobs at once, each with 8 units at the replicas at most."""

CLIENTS = (1, 10, 32)
TURNS, CALLS_A_TURN = 3, {1: 100, 10: 200, 32: 320}
SHORT_TEXT = "The juice of lemons makes fine punch."


def main() -> str:
    """The tables in Markdown."""
    return "\n\n".join([throughput(), acceptance()])


def throughput() -> str:
    """Audio a second of equal work by each number of replicas."""
    audio_s = JOBS * UNITS * UNIT_AUDIO_S
    took_s = {replicas: _time_of_all(replicas) for replicas in REPLICAS}
    head = (
        f"{os.cpu_count()} cores, Ray {version('ray')}; {JOBS} jobs of {UNITS} units, {UNIT_AUDIO_S:.1f} s of audio "
        f"and {RTF * UNIT_AUDIO_S:.2f} s of sleep each, queued at once; {JOBS_REPLICAS} Jobs replicas of "
        f"{RUNNING_JOBS} running jobs, a directory; from the first start to the last end\n"
    )
    rows = [
        f"| {replicas} | {seconds:.1f} | {audio_s / seconds:.1f} | {took_s[1] / seconds:.2f} "
        f"| {100 * RTF * audio_s / replicas / seconds:.1f} |"
        for replicas, seconds in took_s.items()
    ]
    columns = "| replicas | s | audio s/s | x one replica | % of the time that the engines sleep |"
    return "\n".join([head, columns, "|---" * 5 + "|", *rows])


def _time_of_all(replicas: int) -> float:
    """Seconds from the first start of a job to the last end."""
    with tempfile.TemporaryDirectory(prefix="b") as name:
        folder = Path(name)
        options = {"models": replicas, "jobs": JOBS_REPLICAS, "running_jobs": RUNNING_JOBS}
        with new_store("directory", folder) as kept, serving(folder, kept.variables, **options) as service:
            ids = [_submitted(service.url, text_of_units(UNITS, f"{number:02d}")) for number in range(JOBS)]
            jobs = JobStore(kept.store)
            refs = [JobRef(tenant=DEFAULT_TENANT, job_id=job_id) for job_id in ids]
            limit_s = 60 + 2 * JOBS * UNITS * UNIT_AUDIO_S * RTF / replicas
            until(lambda: all(jobs.standing(ref).outcome for ref in refs), "all jobs end", limit_s)
            ended = [jobs.status(ref) for ref in refs]
    return _span_s(ended)


def _span_s(ended: list[JobStatus]) -> float:
    outcomes = [status.outcome for status in ended if status.outcome is not None]
    assert {(each.state, each.units, each.run) for each in outcomes} == {("completed", UNITS, 1)}, outcomes
    return max(each.finished_at for each in outcomes) - min(each.started_at for each in outcomes)


def _submitted(url: str, text: str) -> str:
    status, answer = call(url, Call("POST", "/run", {"input": {"text": text}}))
    assert status == 200, answer
    return str(answer["id"])


BODY = {"input": {"text": SHORT_TEXT}}
CALLS: Mapping[str, Call] = {
    "GET": Call("GET", NO_OP),
    "POST": Call("POST", NO_OP, BODY),
    "job": Call("POST", "/run", BODY),
}
"""What Serve's proxy and a replica that does nothing take for a request, for one with the body of a job, and a job."""


def acceptance() -> str:
    """Jobs accepted a second beside no-ops through the same proxy, in turns."""
    rows = []
    for store in STORES:
        with (
            tempfile.TemporaryDirectory(prefix="b") as name,
            new_store(store, Path(name)) as kept,
            serving(Path(name), kept.variables, builder="build_idle", no_op=True) as service,
        ):
            until(partial(_does_nothing, service.url), "the no-op answers")
            rows += [_row(store, clients, _accepted(service.url, clients)) for clients in CLIENTS]
    calls = ", ".join(f"{calls} calls of {clients}" for clients, calls in CALLS_A_TURN.items())
    head = (
        f"{os.cpu_count()} cores, Ray {version('ray')}, one ingress replica, Serve's Python proxy; a Jobs replica that "
        f"runs nothing; {TURNS} turns of {calls} clients\n"
    )
    columns = (
        "| store | clients | no-op GET /s | no-op POST /s | p50 ms | p99 ms | jobs /s | p50 ms | p99 ms "
        "| % of no-op POST | % of no-op GET |"
    )
    return "\n".join([head, columns, "|---" * 11 + "|", *rows])


def _row(store: str, clients: int, loads: Mapping[str, Load]) -> str:
    get, post, job = (loads[name] for name in CALLS)
    return (
        f"| {store} | {clients} | {get.per_s:.0f} | {post.per_s:.0f} "
        f"| {post.percentile_ms(50):.1f} | {post.percentile_ms(99):.1f} "
        f"| {job.per_s:.0f} | {job.percentile_ms(50):.1f} | {job.percentile_ms(99):.1f} "
        f"| {100 * job.per_s / post.per_s:.0f} | {100 * job.per_s / get.per_s:.0f} |"
    )


def _does_nothing(url: str) -> bool:
    try:
        return call(url, CALLS["POST"])[0] == 200
    except ValueError:  # the proxy's own 404 is no JSON
        return False


def _accepted(url: str, clients: int) -> dict[str, Load]:
    loads = {name: Load() for name in CALLS}
    for turn in range(TURNS + 1):
        for name, wanted in CALLS.items():
            load = run_load(url, lambda _, wanted=wanted: wanted, clients=clients, calls=CALLS_A_TURN[clients])
            if turn:  # the first one warms up
                loads[name].add(load)
    return loads


if __name__ == "__main__":
    print(main())
