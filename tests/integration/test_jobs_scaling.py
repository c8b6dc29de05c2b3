"""Jobs replicas in a real Serve follow what they report, with no request open."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.app import jobs_deployment
from serve_app.settings import AutoscalingSettings, JobsSettings
from tests.support.deadline import DEADLINE_S
from tests.support.running import until

pytestmark = pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
DOWNSCALE_DELAY_S, INTERVAL_S = 1.0, 0.2


class StandIn:
    """Reports what the file says, and leaves a mark of each report that it made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._marks = folder / f"{os.getpid()}.marks"

    async def record_autoscaling_stats(self) -> dict[str, float]:
        said = json.loads((self._folder / "report.json").read_text())
        with self._marks.open("a") as marks:
            marks.write(f"{said['running_audio_s']}\n")
        return said

    async def start(self) -> str:
        return "started"


@dataclass
class Jobs:
    """The deployed stand-ins, and what they are to report."""

    folder: Path
    handle: DeploymentHandle | None = None

    def report(self, *, unended: float, running: float) -> None:
        fresh = self.folder / "report.new"
        fresh.write_text(json.dumps({"unended_audio_s": unended, "running_audio_s": running}))
        fresh.replace(self.folder / "report.json")

    def running(self) -> int:
        return serve.status().applications[self.folder.name].deployments["Jobs"].replica_states.get("RUNNING", 0)

    def becomes(self, count: int) -> None:
        until(lambda: self.running() == count, f"{count} replicas")

    def reports_of(self, running: float) -> list[int]:
        """How often each replica reported this much running."""
        return [file.read_text().splitlines().count(str(running)) for file in self.folder.glob("*.marks")]


@pytest.fixture(scope="module")
def serving(cluster: None) -> Iterator[None]:
    serve.start(proxy_location="Disabled")
    yield
    serve.shutdown()  # ends the applications too, together


def deployed(folder: Path, min_replicas: int) -> Jobs:
    """Scaled as Jobs is, one replica for 100 s, three at most; an application named for its folder."""
    scale = AutoscalingSettings(
        min_replicas=min_replicas,
        initial_replicas=min_replicas,
        max_replicas=3,
        upscale_delay_s=0,
        downscale_delay_s=DOWNSCALE_DELAY_S,
        metrics_interval_s=INTERVAL_S,
        look_back_period_s=1,
    )
    settings = JobsSettings(target_audio_s=100, autoscaling=scale, num_cpus=0.1, graceful_shutdown_timeout_s=1)
    jobs = Jobs(folder)
    jobs.report(unended=0, running=0)
    jobs.handle = serve.run(jobs_deployment(StandIn, settings).bind(folder), name=folder.name, route_prefix=None)
    return jobs


def test_replicas_follow_the_queue_and_running_jobs_keep_them(serving: None, tmp_path: Path):
    """1 -> 3 (the most) for a long queue, 3 while each has a little running, 1 after the delay when nothing is left."""
    jobs = deployed(tmp_path, min_replicas=1)
    jobs.becomes(1)
    jobs.report(unended=5_000, running=0)
    jobs.becomes(3)

    jobs.report(unended=3, running=1)
    enough = round(3 * DOWNSCALE_DELAY_S / INTERVAL_S)
    seen = set()

    def each_has_reported() -> bool:
        seen.add(jobs.running())
        reports = jobs.reports_of(running=1)
        return len(reports) == 3 and min(reports) >= enough

    until(each_has_reported, f"{enough} reports by each of three replicas")
    assert seen == {3}

    emptied = time.monotonic()
    jobs.report(unended=0, running=0)
    jobs.becomes(1)
    assert time.monotonic() - emptied >= DOWNSCALE_DELAY_S


def test_a_call_wakes_a_deployment_without_replicas(serving: None, tmp_path: Path):
    """Nobody is there to report, but a `start` waits at a handle."""
    jobs = deployed(tmp_path, min_replicas=0)
    assert jobs.running() == 0
    assert jobs.handle.start.remote().result(timeout_s=DEADLINE_S) == "started"
