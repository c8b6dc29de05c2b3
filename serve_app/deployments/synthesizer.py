"""The Serve shell of a model: one replica holds one engine."""

import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from env_setup.guard import pip_guard
from serve_app import logs
from serve_app.deployments.metrics import RayMetrics
from serve_app.deployments.priority import work_behind_the_ingress
from serve_app.deployments.voice_cache import VoiceCacheArgs
from serve_app.domain import SpokenUnit, Unit
from serve_app.errors import ModelLoadFailed
from serve_app.models import load_engine
from serve_app.runtimes import Runtimes
from serve_app.settings import ModelSettings, NodeSettings
from serve_app.storage import ObjectStore, S3Store
from serve_app.synthesis import SynthesisService
from serve_app.weights import NodeWeights

__all__ = ["RefusedSynthesizer", "Synthesizer"]


class Synthesizer:
    """Loads and warms its model in the constructor, and publishes what it runs on: a model that cannot load, or a store
    that cannot be written, is a deployment that fails."""

    def __init__(self, model: ModelSettings, store: ObjectStore, voices: VoiceCacheArgs, log_level: str) -> None:
        logs.configure(log_level)
        work_behind_the_ingress()
        logs.event("replica_starting", model=model.name, python=sys.executable, **_packages())
        os.environ.update(pip_guard())  # whatever is imported below can install nothing
        node = NodeSettings.from_environment(os.environ)
        weights = NodeWeights(node, store if isinstance(store, S3Store) else None)
        # Everything that computes runs in one thread: what a device and a maths library keep for each is then ready.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        engine = self._thread.submit(load_engine, model, weights).result()
        logs.event("model_loaded", model=model.name)
        self._service = SynthesisService(
            engine, voices.client(store), model.name, metrics=RayMetrics(), executor=self._thread
        )
        self._service.warm_up()
        Runtimes(store).publish(model.name, self._service.made_by)
        logs.event("replica_ready", model=model.name, made_by=self._service.made_by, **engine.runtime)

    async def synthesize(self, unit: Unit) -> SpokenUnit:
        """Speak one unit; many at once are batched."""
        return await self._service.synthesize(unit)

    async def health(self) -> Mapping[str, Any]:
        """What this replica runs on, and what it has done."""
        return self._service.health()

    async def check_health(self) -> None:
        """A replica whose device is lost is replaced by Serve."""
        self._service.check_health()

    async def __del__(self) -> None:
        await self._service.close()
        self._thread.shutdown(wait=False)


def _packages() -> dict[str, str | None]:
    """What the environment brought before anything was loaded."""
    return {name: _version(name) for name in ("torch", "flash_attn")}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


class RefusedSynthesizer:
    """Stands for a model whose environment cannot be made: its deployment fails with the reason, the others serve."""

    def __init__(self, model: ModelSettings, refusal: str) -> None:
        raise ModelLoadFailed(f"model {model.name!r} cannot start: {refusal}")
