"""The Serve shell of the HTTP application."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import (  # type: ignore[attr-defined]  # Ray has these here, but not in __all__
    DeploymentStatus,
    DeploymentStatusOverview,
    ReplicaState,
)

from serve_app import logs
from serve_app.api import Services, create_app
from serve_app.api.acceptance import Acceptance
from serve_app.api.policy import JobPolicyDefaults
from serve_app.api.services import PartStatus
from serve_app.catalog import Catalog
from serve_app.deployments.explain import explain
from serve_app.deployments.handles import JobsHandle, SynthesizerHandle
from serve_app.deployments.jobs import speaker_for
from serve_app.deployments.threads import wait_in_threads
from serve_app.deployments.voice_cache import VoiceCacheArgs
from serve_app.fetching import UrlFetcher
from serve_app.heartbeats import Liveness
from serve_app.job_client import JobClient
from serve_app.jobs import Results
from serve_app.lexicon import Lexicons
from serve_app.models import describe
from serve_app.runtimes import Runtimes
from serve_app.settings import BuildArgs, ModelSettings
from serve_app.storage import ObjectStore, UrlSigner
from serve_app.voices import VoiceLibrary

__all__ = ["Ingress", "ServeCluster", "catalog_of", "part_status"]


class Ingress:
    """Speaks HTTP; holds no model and imports no torch."""

    def __init__(
        self,
        args: BuildArgs,
        models: tuple[ModelSettings, ...],
        store: ObjectStore,
        signer: UrlSigner | None,
        voices: VoiceCacheArgs,
        synthesizers: Mapping[str, DeploymentHandle[Any]],
        jobs: DeploymentHandle[Any],
        exclusive: bool,
    ) -> None:
        logs.configure(args.log_level)
        wait_in_threads()
        catalog = catalog_of(args, models)
        built_in = {name for model in catalog.models for name in model.builtin_voices}
        library = VoiceLibrary(store, voices.preparer, reserved=built_in)
        lexicons = Lexicons(store)
        self._services = Services(
            catalog=catalog,
            acceptance=Acceptance(catalog, library, args.limits, Runtimes(store), lexicons),
            speaker=speaker_for(models, store, voices, synthesizers),
            library=library,
            jobs=JobClient(store, JobsHandle(jobs), exclusive=exclusive, idempotency_s=args.jobs.idempotency_s),
            store=store,
            limits=args.limits,
            cluster=ServeCluster(
                (*synthesizers, "Jobs"),
                {m.name: SynthesizerHandle(synthesizers[m.name], m.name, m.retry_after_s) for m in models},
            ),
            fetcher=UrlFetcher(args.url_timeout_s, args.url_addresses),
            results=Results(store),
            lexicons=lexicons,
            signer=signer,
            public_url=args.public_url,
            allowed_hosts=args.allowed_hosts,
            job_defaults=JobPolicyDefaults(args.jobs.ttl_s, args.jobs.retention_s),
            liveness=Liveness(args.jobs.dead_after_s, time.monotonic),
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._services, echo_request_id=False)


class ServeCluster:
    """What Serve says of the deployments of this application."""

    def __init__(self, deployments: Sequence[str], models: Mapping[str, SynthesizerHandle]) -> None:
        self._deployments = deployments
        self._models = models

    async def statuses(self) -> Mapping[str, PartStatus]:
        app = serve.get_replica_context().app_name
        found = (await asyncio.to_thread(serve.status)).applications[app].deployments
        return {name: part_status(found[name]) for name in self._deployments if name in found}

    async def health(self, model: str) -> Mapping[str, Any]:
        return await self._models[model].health()


def part_status(status: DeploymentStatusOverview) -> PartStatus:
    """Serve's word in ours.

    A replica runs once its constructor returned, and that is after its model was warmed: one is enough to speak. A
    healthy deployment without replicas is one that scales from zero.
    """
    replicas = status.replica_states.get(ReplicaState.RUNNING, 0)
    if replicas:
        return PartStatus("ready", replicas)
    if status.status == DeploymentStatus.HEALTHY:
        return PartStatus("idle")
    failed = status.status in (DeploymentStatus.DEPLOY_FAILED, DeploymentStatus.UNHEALTHY)
    return PartStatus("failed" if failed else "starting", 0, explain(status.message))


def catalog_of(args: BuildArgs, models: tuple[ModelSettings, ...]) -> Catalog:
    """Raises ConfigError when the default model or an alias names a model that is not deployed."""
    return Catalog([describe(model) for model in models], args.default_model, args.aliases.models, args.aliases.voices)
