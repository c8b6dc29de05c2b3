"""How soon a client learns about its jobs while all replicas are busy, and while there are none.

    python -m bench.jobs       about 9 minutes

    finished jobs -> a backlog that keeps every slot busy -> calls beside a no-op, in turns -> the same without replicas

Real Ray Serve with its Python proxy on each store; the engine is simulated (bench/simulated.py), and its replicas note
what reaches them.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.load import Call, Load, call, run_load
from bench.simulated import Calls, serving, text_of_units
from bench.stores import STORES, BenchStore, new_store
from serve_app import keys
from serve_app.domain import DEFAULT_TENANT
from tests.support.running import RunningService, until

FINISHED, BACKLOG, UNITS = 300, 60, 100
"""Jobs; a job of the backlog has 100 units of 0.4 s each, so that it outlasts the measurement."""
MODELS, JOBS, RUNNING_JOBS = 2, 2, 3
CLIENTS, TURNS, CALLS_A_TURN = 4, 3, 100
PACES_S = {"a call of each client every 0.1 s": 0.1, "no pause": 0.0}
LONG_S = 300
LISTS = ("completed", "open")


def main() -> str:
    """The tables in Markdown."""
    rows, notes = [], []
    for store in STORES:
        with tempfile.TemporaryDirectory(prefix="b") as name, new_store(store, Path(name)) as kept:
            for state, measure in (("saturated", _saturated), ("scaled to zero", _scaled_to_zero)):
                loads, note = measure(Path(name), kept)
                rows += [_row(f"{store}, {state}", pace, what, load) for (pace, what), load in loads.items()]
                notes.append(f"{store}, {state}: {note}")
    head = (
        f"{os.cpu_count()} cores, Ray {version('ray')}, one ingress replica, Serve's Python proxy; {FINISHED} finished "
        f"jobs and {BACKLOG} that are not; {CLIENTS} clients, {TURNS} turns of {CALLS_A_TURN} calls each\n"
    )
    columns = "| store, replicas | pace | call | calls/s | p50 ms | p95 ms | p99 ms |"
    return "\n".join([head, columns, "|---" * 7 + "|", *rows, "", *(f"- {note}" for note in notes)])


def _row(where: str, pace: str, what: str, load: Load) -> str:
    percentiles = " | ".join(f"{load.percentile_ms(percent):.1f}" for percent in (50, 95, 99))
    return f"| {where} | {pace} | {what} | {load.per_s:.0f} | {percentiles} |"


def _saturated(folder: Path, kept: BenchStore) -> tuple[Mapping[tuple[str, str], Load], str]:
    with serving(folder, kept.variables, models=MODELS, jobs=JOBS, running_jobs=RUNNING_JOBS) as service:
        finished = [_submitted(service.url, f"Number {number} of those that end soon.") for number in range(FINISHED)]
        until(lambda: not kept.store.list(keys.listed(DEFAULT_TENANT, "open")).items, "all jobs end", LONG_S)
        backlog = [_submitted(service.url, text_of_units(UNITS, f"{number:02d}")) for number in range(BACKLOG)]
        until(lambda: _busy(service.url) == JOBS * RUNNING_JOBS, "all slots are busy")
        calls = Calls(str(folder / "calls"))
        before = calls.all()
        loads = _measured(service.url, finished, backlog)
        reached = calls.all() - before
        assert _busy(service.url) == JOBS * RUNNING_JOBS
    units = Counter({key: count for key, count in reached.items() if key[0] == "synthesize" and key[1] in backlog})
    other = reached - units
    return loads, (
        f"{JOBS * RUNNING_JOBS} of {JOBS * RUNNING_JOBS} slots busy before and after; calls that reached a Jobs or "
        f"model replica meanwhile: {other.total()}, beside {units.total()} units of the backlog"
    )


def _scaled_to_zero(folder: Path, kept: BenchStore) -> tuple[Mapping[tuple[str, str], Load], str]:
    """On what `_saturated` left: its backlog is open still, and nobody runs it."""
    lists = {name: [info.key for info in kept.store.list(keys.listed(DEFAULT_TENANT, name)).items] for name in LISTS}
    finished, backlog = ([key.rpartition(".")[2] for key in lists[name]] for name in LISTS)
    with serving(folder, kept.variables, models=0, jobs=0) as service:
        calls = Calls(str(folder / "calls"))
        before, replicas = calls.all(), _replicas(service)
        loads = _measured(service.url, finished, backlog)
        reached = calls.all() - before
        replicas += _replicas(service)
    return loads, (
        f"replicas of the model and of Jobs before and after: {', '.join(map(str, replicas))}; calls that reached one: "
        f"{reached.total()}"
    )


def _measured(url: str, finished: Sequence[str], backlog: Sequence[str]) -> dict[tuple[str, str], Load]:
    """Loads by pace and call, in turns; the first turn warms up."""
    kinds: dict[str, Callable[[int], Call]] = {
        "GET /healthz (no-op)": lambda _: Call("GET", "/healthz"),
        "GET /status/{id}, finished": lambda i: Call("GET", f"/status/{finished[i % len(finished)]}"),
        "GET /status/{id}, waiting": lambda i: Call("GET", f"/status/{backlog[-1 - i % 20]}"),
        "POST /runsync, `result`": lambda i: Call("POST", "/runsync", _result(finished[i % len(finished)])),
        "GET /v1/jobs/{id}": lambda i: Call("GET", f"/v1/jobs/{finished[i % len(finished)]}"),
        "GET /v1/jobs/{id}/result": lambda i: Call("GET", f"/v1/jobs/{finished[i % len(finished)]}/result"),
        "GET /v1/jobs, 20 newest": lambda _: Call("GET", "/v1/jobs?limit=20"),
        "GET /v1/jobs, 20 queued": lambda _: Call("GET", "/v1/jobs?limit=20&state=queued"),
        "GET /v1/jobs, 20 completed": lambda _: Call("GET", "/v1/jobs?limit=20&state=completed"),
    }
    loads = {(pace, what): Load() for pace in PACES_S for what in kinds}
    for turn in range(TURNS + 1):
        for pace, what in loads:
            calls = CALLS_A_TURN if turn else CLIENTS
            load = run_load(url, kinds[what], clients=CLIENTS, calls=calls, every_s=PACES_S[pace])
            if turn:
                loads[pace, what].add(load)
    return loads


def _result(job_id: str) -> dict[str, Any]:
    return {"input": {"endpoint": "result", "job_id": job_id}}


def _submitted(url: str, text: str) -> str:
    status, answer = call(url, Call("POST", "/run", {"input": {"text": text}}))
    assert status == 200, answer
    return str(answer["id"])


def _busy(url: str) -> int:
    """Running jobs, as the heartbeats say."""
    return int(_health(url)["jobs"]["inProgress"])


def _replicas(service: RunningService) -> list[int]:
    """Of the model and of Jobs, as Serve counts them."""
    return [len(service.replicas(name)) for name in ("preview", "Jobs")]


def _health(url: str) -> dict[str, Any]:
    status, answer = call(url, Call("GET", "/health"))
    assert status == 200, answer
    return dict(answer)


if __name__ == "__main__":
    print(main())
