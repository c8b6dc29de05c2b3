"""From nothing to ready: the phases of a start, and what each leaves on the disk.

preview, and F5TTS_v1_Base with random weights on a CPU (its files are as large as the published ones, and come from a
web server on this machine that stands in for the hub), in both forms of the f5 environment, twice each: the second
start is that of another Ray session on the same node. uv's cache is warm; a stand-in takes flash_attn's place.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml

from bench.random_f5 import write_random_f5
from env_setup.wheels import sha256_of
from tests.support.running import ROOT, RunningService, environment, free_port, running
from tests.support.stand_in_wheel import write_wheel

LEAN = ROOT / ".venv" / "bin" / "python"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PHASES = ("environment", "import", "weights", "load", "warm-up", "routes")


@dataclass
class Start:
    """One start of the service: seconds of each phase and until ready, and what it cost."""

    name: str
    phases_s: dict[str, float]
    ready_s: float
    disk_bytes: int
    hub_bytes: int

    def row(self) -> str:
        spans = [f"{self.phases_s[phase]:.1f}" if phase in self.phases_s else "-" for phase in PHASES]
        cells = [self.name, *spans, f"{self.ready_s:.1f}", _mb(self.disk_bytes), _mb(self.hub_bytes)]
        return "| " + " | ".join(cells) + " |"


class Hub(SimpleHTTPRequestHandler):
    """Serves a folder as the hub serves repositories, and counts what it sends."""

    sent = 0

    def copyfile(self, source: Any, outputfile: Any) -> None:
        Hub.sent += os.fstat(source.fileno()).st_size
        super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> str:
    """The tables in Markdown."""
    folder = Path(tempfile.mkdtemp(prefix="cs-"))  # short, for Ray puts sockets below it
    try:
        with _hub(folder / "hub") as address:
            return _measure(folder, address)
    finally:
        shutil.rmtree(folder)


def _measure(folder: Path, address: str) -> str:
    write_random_f5(folder / "hub" / "bench" / "f5" / "resolve" / COMMIT)
    wheel = write_wheel(folder)
    env = {"HF_ENDPOINT": address, "FLASH_ATTN_WHEEL": f"{wheel}#sha256={sha256_of(wheel)}"}
    python = folder / "venv-f5" / "bin" / "python"
    install_s, install_bytes = _install(folder / "venv-f5", env)
    starts = [_start(f"preview, {nth}", folder, [{"engine": "preview"}], env) for nth in ("first", "second")]
    for form in ("ray", "prepared"):
        f5 = _f5(form)
        extra = env | {"WEIGHTS_DIR": str(folder / f"weights-{form}"), "F5_PYTHON": str(python)}
        starts += [_start(f"f5 {form}, {nth}", folder, [f5], extra) for nth in ("first", "second")]
    head = (
        f"{os.cpu_count()} cores; seconds of each phase, from `make run` to ready; MB that the start added to the disk "
        f"and took from the hub. The prepared environment was installed before: {install_s:.1f} s, "
        f"{_mb(install_bytes)} MB beside uv's cache.\n"
    )
    columns = "| start | " + " | ".join(PHASES) + " | ready after | MB disk | MB hub |"
    return "\n".join([head, columns, "|---" * 10 + "|", *(start.row() for start in starts)])


def _f5(form: str) -> dict[str, Any]:
    root = f"hf://bench/f5@{COMMIT}"
    return {
        "engine": "f5",
        "source": f"{root}/F5TTS_v1_Base.safetensors",
        "vocoder": root,
        "license": "random numbers",
        "languages": ["en"],
        "environment": form,
        "device": "cpu",
        "num_gpus": 0,
        "num_cpus": 0.1,
        "autoscaling": {"min_replicas": 1, "max_replicas": 1},
    }


def _install(target: Path, env: dict[str, str]) -> tuple[float, int]:
    began = time.monotonic()
    command = [LEAN, "-m", "env_setup", "install", "--environment", target, "--no-weights"]
    subprocess.run(command, cwd=ROOT, env=environment(**env), check=True, capture_output=True)
    return time.monotonic() - began, _own_bytes(target)


def _start(name: str, folder: Path, models: list[dict[str, Any]], env: dict[str, str]) -> Start:
    config = yaml.safe_load((ROOT / "deploy.yaml").read_text())
    config["applications"][0]["args"] |= {"models": models}
    path, port = folder / "deploy.yaml", free_port()
    path.write_text(yaml.safe_dump(config))
    before, sent, began = _own_bytes(folder), Hub.sent, datetime.now(UTC)
    command = [str(LEAN), "-m", "serve_app.launcher", str(path), "--port", str(port)]
    extra = {"RAY_TMPDIR": str(folder), "DATA_DIR": str(folder / "data")} | env
    with running(command, port, environment(**extra)) as service:
        ready = datetime.now(UTC)
        phases_s = _phases(service, ready)
        added = _own_bytes(folder) - before
    return Start(name, phases_s, (ready - began).total_seconds(), added, Hub.sent - sent)


def _phases(service: RunningService, ready: datetime) -> dict[str, float]:
    """What stands between the events of the model's only replica.

    environment: from the builder's choice to the replica's constructor. routes: until the ingress answers /readyz.
    """
    found = (re.search(r'{"time".*}', line) for line in service.printed.splitlines())
    events = [json.loads(match.group()) for match in found if match]
    times = {event["event"]: datetime.fromisoformat(event["time"]) for event in events}
    phases = {
        "warm-up": times["replica_ready"] - times["model_loaded"],
        "routes": ready - times["replica_ready"],
    }
    have_weights = [times[name] for name in ("weights_fetched", "weights_present") if name in times]
    fetching = timedelta(
        seconds=sum(event.get("seconds", 0) for event in events if event["event"] == "weights_fetched")
    )
    if have_weights:
        phases |= {
            "environment": times["replica_starting"] - times["environment_chosen"],
            "import": max(have_weights) - times["replica_starting"] - fetching,
            "weights": fetching,
        }
    phases["load"] = times["model_loaded"] - max([*have_weights, times["replica_starting"]])
    return {name: span.total_seconds() for name, span in phases.items()}


@contextmanager
def _hub(folder: Path) -> Iterator[str]:
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _own_bytes(folder: Path) -> int:
    """What is on the disk because of `folder`: files that are not hard links to uv's cache."""
    total = 0
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:  # Ray's files come and go
            continue
        total += status.st_blocks * 512 if status.st_nlink == 1 else 0
    return total


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f}"


if __name__ == "__main__":
    print(main())
