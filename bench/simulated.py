"""The service with an engine that costs time and no CPU, and with replicas that keep count of the calls they get.

    deploy.yaml -> import_path: bench.simulated:build -> serve_app.app.build, with other classes in the same deployments

So one machine of few cores can show what many replicas would do: a unit takes 0.04 x its audio, slept, and is silence.
`build_idle` has Jobs replicas that run nothing, so that only acceptance is left.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ray.serve import Application

from bench.no_op import NO_OP
from serve_app import app, logs
from serve_app.deployments.jobs import Jobs
from serve_app.deployments.priority import work_behind_the_ingress
from serve_app.deployments.synthesizer import Synthesizer
from serve_app.deployments.voice_cache import VoiceCacheArgs
from serve_app.domain import FRAMES_PER_S, SAMPLE_RATE_HZ, Pcm, SpokenUnit, Unit
from serve_app.engine.protocol import BatchLimits, EngineInput, one_by_one
from serve_app.runtimes import Runtimes
from serve_app.settings import BuildArgs, ModelSettings
from serve_app.storage import ObjectStore
from serve_app.synthesis import SynthesisService
from tests.support.running import ROOT, RunningService, environment, free_port, running

__all__ = [
    "RTF",
    "UNIT_AUDIO_S",
    "Calls",
    "SimulatedEngine",
    "build",
    "build_idle",
    "fixed",
    "serving",
    "text_of_units",
]

RTF = 0.04
CALLS = "BENCH_CALLS"
"""The variable that names the folder in which replicas note the calls that they get."""

UNIT_CHARACTERS = 160
"""More than half of what a unit may hold, so that no two sentences share one."""
UNIT_AUDIO_S = UNIT_CHARACTERS / 15
"""As the preview model's units are planned."""


class SimulatedEngine:
    """An Engine. As long as planned, one unit at a time."""

    batch_limits = BatchLimits(max_units=1, max_frames=1_000_000)
    runtime: Mapping[str, str] = {
        "device": "none",
        "dtype": "float32",
        "attention": "none",
        "attention_reason": "silence needs none",
    }
    version = "1"

    def frames(self, item: EngineInput) -> int:
        return item.unit.frames

    def computed_frames(self, frames: Sequence[int]) -> int:
        return sum(frames)

    def warm_up(self) -> None:
        """Nothing to warm."""

    def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
        return one_by_one(_silence, items)


def _silence(item: EngineInput) -> Pcm:
    audio_s = item.unit.frames / FRAMES_PER_S
    time.sleep(RTF * audio_s)
    return np.zeros(round(audio_s * SAMPLE_RATE_HZ), np.float32)


class Calls:
    """Calls that replicas got: a file for each process, a line for each call. Without a folder nothing is noted."""

    def __init__(self, folder: str | None) -> None:
        self._folder = Path(folder) if folder else None

    def note(self, method: str, job_id: str | None = None) -> None:
        if self._folder is not None:
            with (self._folder / f"{os.getpid()}.calls").open("a") as file:
                file.write(f"{method} {job_id}\n")

    def all(self) -> Counter[tuple[str, str]]:
        """How often each method was called, by job."""
        assert self._folder is not None
        lines = (line for path in self._folder.glob("*.calls") for line in path.read_text().splitlines())
        return Counter((method, job_id) for method, job_id in (line.split() for line in lines))


class SimulatedSynthesizer(Synthesizer):
    """A Synthesizer around SimulatedEngine."""

    def __init__(self, model: ModelSettings, store: ObjectStore, voices: VoiceCacheArgs, log_level: str) -> None:
        logs.configure(log_level)
        work_behind_the_ingress()
        self._calls = Calls(os.environ.get(CALLS))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._service = SynthesisService(SimulatedEngine(), voices.client(store), model.name, executor=self._thread)
        self._service.warm_up()
        Runtimes(store).publish(model.name, self._service.made_by)

    async def synthesize(self, unit: Unit) -> SpokenUnit:
        self._calls.note("synthesize", unit.job_id)
        return await super().synthesize(unit)

    async def health(self) -> Mapping[str, Any]:
        self._calls.note("health")
        return await super().health()


class CountedJobs(Jobs):
    """Jobs, with a note of each call."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._calls = Calls(os.environ.get(CALLS))

    async def start_named(self, names: Sequence[str]) -> None:
        for name in names:
            self._calls.note("start", name)
        await super().start_named(names)

    async def run_named(self, name: str) -> None:
        self._calls.note("run", name)
        await super().run_named(name)


class IdleJobs:
    """Takes what Jobs takes and runs nothing."""

    def __init__(self, *args: Any, **more: Any) -> None:
        pass

    async def start_named(self, names: Sequence[str]) -> None:
        pass

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {"unended_audio_s": 0.0, "running_audio_s": 0.0}


def build(args: BuildArgs) -> Application:
    """As serve_app.app.build, whose other parts stay what they are."""
    app.Synthesizer, app.Jobs = SimulatedSynthesizer, CountedJobs  # type: ignore[misc]
    return app.build(args)


def build_idle(args: BuildArgs) -> Application:
    app.Synthesizer, app.Jobs = SimulatedSynthesizer, IdleJobs  # type: ignore[misc,assignment]
    return app.build(args)


def fixed(replicas: int) -> dict[str, int]:
    """Autoscaling that does not scale."""
    return {"min_replicas": replicas, "max_replicas": max(1, replicas), "initial_replicas": replicas}


def text_of_units(units: int, name: str = "") -> str:
    """A text that is planned as so many units, the first of a few words and all others of UNIT_AUDIO_S; `name` makes it
    another one."""
    first, *others = (f"Sentence {name}{index:04d} of what nobody speaks" for index in range(units))
    return " ".join([f"{first}.", *(f"{sentence:x<{UNIT_CHARACTERS - 1}}." for sentence in others)])


@contextmanager
def serving(
    folder: Path,
    store: Mapping[str, str],
    *,
    builder: str = "build",
    models: int = 1,
    jobs: int = 1,
    running_jobs: int = 2,
    model_options: Mapping[str, Any] | None = None,
    jobs_options: Mapping[str, Any] | None = None,
    no_op: bool = False,
) -> Iterator[RunningService]:
    """The service on the store that the variables of `store` name, with fixed numbers of replicas; ready. `no_op`:
    behind the same proxy, which answers 404 until it is ready too."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "deploy.yaml").read_text())
    application, port = config["applications"][0], free_port()
    application["import_path"] = f"bench.simulated:{builder}"
    small = {"num_cpus": 0, "graceful_shutdown_timeout_s": 11}
    args = application["args"]
    args["models"] = [
        # Two at most at one replica: what waits elsewhere goes to whichever is free first.
        {"engine": "preview", "autoscaling": fixed(models), "max_ongoing_requests": 2, "max_queued_requests": -1}
        | small
        | dict(model_options or {})
    ]
    args["transcriber"] = None
    args["ingress"] |= {"autoscaling": fixed(1), **small}
    args["jobs"] |= {"autoscaling": fixed(jobs), "max_running_jobs": running_jobs, **small, **dict(jobs_options or {})}
    if no_op:
        config["applications"].append({"name": "no-op", "route_prefix": NO_OP, "import_path": "bench.no_op:build"})
    path, calls = folder / "deploy.yaml", folder / "calls"
    path.write_text(yaml.safe_dump(config))
    calls.mkdir(exist_ok=True)
    extra = {
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        CALLS: str(calls),
    }
    command = [sys.executable, "-m", "serve_app.launcher", str(path), "--port", str(port)]
    with running(command, port, environment(**store, **extra)) as service:
        yield service
