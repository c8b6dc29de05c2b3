"""Ray as processes of this run: a head and one more node, and the service on them by `serve run`.

Every node is one session of processes, so a node, or all of Ray, dies by kill -9 of all that it holds.
"""

import re
import secrets
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from serve_app.launcher import RAY_SETTINGS
from tests.chaos.node import STARTED
from tests.chaos.processes import Process, Sessions, members, title
from tests.support.running import ROOT, environment, free_port, until

__all__ = [
    "DEAD_AFTER_S",
    "HEARTBEAT_S",
    "JOBS_REPLICAS",
    "MAX_RUNNING_JOBS",
    "RayCluster",
    "double_owners",
    "job_starts",
    "running_cluster",
]

JOBS_REPLICAS = 2
MAX_RUNNING_JOBS = 2
CPUS = {"head": 3, "more": 4}
"""Each replica asks for one, so the six of them need both nodes, and the death of either is felt."""

START_S = 180
NODE_ATTEMPTS = 6
TITLES = {
    "jobs": "ray::ServeReplica:speech:Jobs",
    "synthesizer": "ray::ServeReplica:speech:preview",
    "ingress": "ray::ServeReplica:speech:Ingress",
    "actor": "ray::VoiceCacheActor",
    "controller": "ray::ServeController",
}
REPLACED = ("jobs", "ingress", "synthesizer")

JOB_ID = re.compile(r'"job_id": "([0-9a-f-]{36})"')
TAKEN = re.compile(r'"event": "run_stopped"|"event": "job_finished".*"own": false')
HEARTBEAT_S, DEAD_AFTER_S, SWEEP_S, MAX_RUNS = 0.5, 2.0, 0.5, 20


class RayCluster:
    """The processes of Ray. `url` is the service's."""

    def __init__(self, folder: Path, store_environment: Mapping[str, str], sessions: Sessions) -> None:
        self._folder = folder
        self._sessions = sessions
        self._port, self._http_port = free_port(), free_port()
        self._nodes: dict[str, Process] = {}
        self.url = f"http://127.0.0.1:{self._http_port}"
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self._env = environment(
            **store_environment,
            PYTHONPATH=str(ROOT),
            PYTHONWARNINGS="ignore",
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=str(token),
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
            RAY_USAGE_STATS_ENABLED="0",
            RAY_DEDUP_LOGS="0",
            **RAY_SETTINGS,
            RAY_prestart_worker_first_driver="0",
        )
        self._config = folder / "deploy.yaml"
        self._config.write_text(yaml.safe_dump(_config(self._http_port)))

    def start(self) -> None:
        """All of Ray, then the service; returns when it takes jobs and speaks."""
        self._start_node("head")
        self.start_node()
        self._deploy()

    def start_node(self) -> None:
        """The node beside the head."""
        self._start_node("more")

    def kill_node(self) -> int:
        """kill -9 of all processes of the node beside the head; how many there were."""
        return self._end("more")

    def kill(self) -> int:
        """kill -9 of everything."""
        return sum(self._end(kind) for kind in ("more", "head") if kind in self._nodes)

    def pids(self, part: str) -> list[int]:
        """Of the processes of a part of the service, by the titles that Ray gives them."""
        return [
            pid
            for pid in members(process.pid for process in self._nodes.values())
            if title(pid).startswith(TITLES[part])
        ]

    def wait_until_ready(self, within_s: float = START_S) -> None:
        """Until it says that all models speak, and all replicas run."""
        until(lambda: self._is_ready(), "the service is ready", within_s)

    def update(self) -> None:
        """Deploy with other settings, so that all replicas are replaced one after the other, under load."""
        config = yaml.safe_load(self._config.read_text())
        args = config["applications"][0]["args"]
        args["limits"]["url_expiry_s"] += 1
        args["models"][0]["retry_after_s"] += 1
        self._config.write_text(yaml.safe_dump(config))
        before = {pid for part in REPLACED for pid in self.pids(part)}
        self._deploy()
        until(lambda: not before & {pid for part in REPLACED for pid in self.pids(part)}, "all are replaced", START_S)
        self.wait_until_ready()

    def _is_ready(self) -> bool:
        if any(len(self.pids(part)) < 2 for part in ("jobs", "synthesizer", "ingress")):
            return False
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def _start_node(self, kind: str) -> None:
        """Again, where other processes keep it from starting: Ray gives a node 30 s, and its raylet ends by itself when
        the agent beside it has not said its port after 15 s; neither can be set."""
        for attempt in range(1, NODE_ATTEMPTS + 1):
            try:
                self._try_to_start_node(kind)
                return
            except RuntimeError:
                self._end(kind)
                if attempt == NODE_ATTEMPTS:
                    raise

    def _try_to_start_node(self, kind: str) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.chaos.node",
            kind,
            str(self._port),
            str(CPUS[kind]),
            f"{self._folder}/ray",
        ]
        log = self._folder / f"{kind}.log"
        before = log.stat().st_size if log.exists() else 0
        process = self._sessions.start(command, self._env, log)
        self._nodes[kind] = process

        def told() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"a Ray node ended with {process.returncode}:\n{log.read_text()[-4000:]}")
            return STARTED in log.read_text()[before:]

        until(told, f"node {kind!r} starts", START_S)

    def _deploy(self) -> None:
        command = [
            str(Path(sys.executable).with_name("serve")), "run", "--non-blocking",
            f"--address=127.0.0.1:{self._port}", str(self._config),
        ]  # fmt: skip
        log = self._folder / "deploy.log"
        process = self._sessions.start(command, self._env, log)
        try:
            until(lambda: process.poll() is not None, "the service is deployed", START_S)
        finally:
            self._sessions.end(process)
        if process.returncode:
            raise RuntimeError(f"`serve run` ended with {process.returncode}:\n{log.read_text()[-4000:]}")
        self.wait_until_ready()

    def _end(self, kind: str) -> int:
        return self._sessions.end(self._nodes.pop(kind))


@contextmanager
def running_cluster(folder: Path, store_environment: Mapping[str, str], sessions: Sessions) -> Iterator[RayCluster]:
    """A started service, gone with the block."""
    cluster = RayCluster(folder, store_environment, sessions)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


def job_starts(folder: Path) -> Counter[str]:
    """How often each job was started, by what the replicas logged in every Ray that this run had."""
    started = (line for line in _logged(folder) if '"job_started"' in line)
    return Counter(found[1] for line in started if (found := JOB_ID.search(line)))


def double_owners(folder: Path) -> int:
    """Runs whose replica saw, in the run or at its end, that another had taken the job over and it had not known."""
    return sum(bool(TAKEN.search(line)) and '"state": "cancelled"' not in line for line in _logged(folder))


def _logged(folder: Path) -> Iterator[str]:
    for path in folder.glob("ray/session_2*/logs/worker-*.err"):
        with path.open(errors="replace") as lines:
            yield from lines


def _config(http_port: int) -> dict[str, Any]:
    """deploy.yaml as it is, but small, quick to notice a death, and patient with jobs whose replicas are killed."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "deploy.yaml").read_text())
    config["proxy_location"] = "HeadOnly"  # two proxies of one machine would want one port
    config["http_options"]["port"] = http_port
    args = config["applications"][0]["args"]
    two = {"min_replicas": JOBS_REPLICAS, "max_replicas": JOBS_REPLICAS}
    scale = {"num_cpus": 1, "graceful_shutdown_timeout_s": 5}
    args["models"] = [{"engine": "preview", "max_ongoing_requests": 4, "retry_after_s": 5, "autoscaling": two, **scale}]
    args["default_model"] = "preview"
    args["transcriber"] = None
    args["ingress"] |= {"autoscaling": two, **scale}
    args["jobs"] |= {
        "max_running_jobs": MAX_RUNNING_JOBS,
        "max_runs": MAX_RUNS,
        "heartbeat_s": HEARTBEAT_S,
        "dead_after_s": DEAD_AFTER_S,
        "sweep_s": SWEEP_S,
        "autoscaling": two,
        **scale,
    }
    return config
