"""What the layers cost: one sentence spoken by the engine alone, through HTTP, and as a job.

All three in one run, in turns, on the same machine; the service is the real one, on a directory store.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version

import httpx

from serve_app.domain import BUILTIN, Unit, VoiceRef
from serve_app.engine.preview import PreviewEngine
from serve_app.engine.protocol import EngineInput, speak
from tests.support.running import environment, free_port, running

TEXT = "The juice of lemons makes fine punch, and the hogs were fed chopped corn and garbage."
ROUNDS = 30


def main() -> str:
    """The table in Markdown."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "serve_app.launcher", "deploy.yaml", "--port", str(port)]
        with running(command, port, environment(DATA_DIR=folder)) as service, httpx.Client(timeout=60) as client:
            return _table(_measure(service.url, client))


def _measure(url: str, client: httpx.Client) -> dict[str, list[float]]:
    engine = PreviewEngine()
    unit = Unit(0, TEXT, VoiceRef("heart", BUILTIN), 1.0, 1, 500, "bench")

    def speech() -> None:
        body = {"input": TEXT, "response_format": "wav", "seed": 1, "cache": False}
        client.post(f"{url}/v1/audio/speech", json=body).raise_for_status()

    def job() -> None:
        client.post(f"{url}/runsync", json={"input": {"text": TEXT, "seed": 1, "cache": False}}).raise_for_status()

    calls: dict[str, Callable[[], object]] = {
        "engine alone": lambda: speak(engine, EngineInput(unit, None)),
        "POST /v1/audio/speech": speech,
        "POST /runsync (durable job)": job,
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS + 3):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn >= 3:  # the first ones warm caches
                times[name].append(time.perf_counter() - began)
    return times


def _table(times: dict[str, list[float]]) -> str:
    base = statistics.median(times["engine alone"])
    rows = [
        f"| {name} | {1000 * statistics.median(t):.1f} | {1000 * statistics.quantiles(t, n=20)[-1]:.1f} "
        f"| {statistics.median(t) / base:.1f} |"
        for name, t in times.items()
    ]
    head = f"{os.cpu_count()} cores, Ray {version('ray')}, {ROUNDS} rounds in turns, {len(TEXT)} characters\n"
    return "\n".join([head, "| path | median ms | p95 ms | x engine |", "|---|---|---|---|", *rows])
