"""The real service as a process of its own: started as a user starts it, ended by pid."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx

from tests.support.deadline import DEADLINE_S

ROOT = Path(__file__).parents[2]
START_S, STOP_S = 480, 120
T = TypeVar("T")


@dataclass
class RunningService:
    """A started service. `output` collects what it printed."""

    process: "subprocess.Popen[str]"
    url: str
    output: list[str] = field(default_factory=list)

    @property
    def printed(self) -> str:
        return "".join(self.output)

    @property
    def dashboard(self) -> str:
        line = next(line for line in self.output if line.startswith("Ready: "))
        return line.split("dashboard: ")[1].rstrip(")\n")

    def applications(self) -> dict:
        """The dashboard's own view, read with Ray's token."""
        token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token")).read_text()
        headers = {"Authorization": f"Bearer {token.strip()}"}
        answer = httpx.get(f"{self.dashboard}/api/serve/applications/", headers=headers, timeout=DEADLINE_S)
        answer.raise_for_status()
        return answer.json()["applications"]

    def replicas(self, deployment: str) -> list[dict]:
        replicas = self.applications()["speech"]["deployments"][deployment]["replicas"]
        return [replica for replica in replicas if replica["state"] == "RUNNING"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], T], what: str, within_s: float = DEADLINE_S) -> T:
    """Poll until `condition` is truthy; its value. A deadline, not a pause: returns as soon as it holds."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within_s} s")
        threading.Event().wait(0.2)
    return value


def ended(status: dict) -> dict | None:
    """A job's status once it is final."""
    return status if status["status"] in ("COMPLETED", "FAILED") else None


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without any store settings, plus `changes`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "S3_", "RAY_", "DATA_DIR", "PYTEST"))}
    if "AWS_CA_BUNDLE" in os.environ:
        kept["AWS_CA_BUNDLE"] = os.environ["AWS_CA_BUNDLE"]
    return kept | changes


@contextmanager
def running(command: list[str], port: int, env: dict[str, str]) -> Iterator[RunningService]:
    """Start `command` in the repository, wait for its word that it is ready, end it with SIGINT."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    service = RunningService(process, f"http://127.0.0.1:{port}")
    reader = threading.Thread(target=_collect, args=(process, service.output), daemon=True)
    reader.start()
    try:
        until(lambda: "Ready: " in service.printed or process.poll() is not None, "start", START_S)
        if process.poll() is not None:
            reader.join(STOP_S)
            raise AssertionError(f"ended with {process.returncode}:\n{service.printed}")
        yield service
    finally:
        _stop(process)
        reader.join(STOP_S)
        process.stdout.close()


def _collect(process: "subprocess.Popen[str]", output: list[str]) -> None:
    output.extend(iter(process.stdout.readline, ""))


def _stop(process: "subprocess.Popen[str]") -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGINT)  # the group is the one this test started: make and its child
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
