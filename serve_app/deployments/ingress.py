"""The Serve shell of the HTTP application."""

import asyncio
from collections.abc import Mapping
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
from serve_app.catalog import Catalog
from serve_app.deployments.handles import JobsHandle
from serve_app.deployments.jobs import speaker_for
from serve_app.deployments.voice_cache import VoiceCacheArgs
from serve_app.job_client import JobClient
from serve_app.models import describe
from serve_app.settings import BuildArgs, ModelSettings
from serve_app.storage import ObjectStore, UrlSigner
from serve_app.voices import VoiceLibrary

__all__ = ["Ingress", "catalog_of", "not_ready"]


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
    ) -> None:
        logs.configure(args.log_level)
        catalog = catalog_of(args, models)
        built_in = {name for model in catalog.models for name in model.builtin_voices}
        library = VoiceLibrary(store, reserved=built_in)
        self._deployments = (*synthesizers, "Jobs")
        self._services = Services(
            catalog=catalog,
            acceptance=Acceptance(catalog, library, args.limits),
            speaker=speaker_for(models, store, voices, synthesizers),
            library=library,
            jobs=JobClient(store, JobsHandle(jobs)),
            store=store,
            limits=args.limits,
            not_ready=self._not_ready,
            signer=signer,
            public_url=args.public_url,
            allowed_hosts=args.allowed_hosts,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._services, echo_request_id=False)

    async def _not_ready(self) -> Mapping[str, str]:
        app = serve.get_replica_context().app_name
        status = (await asyncio.to_thread(serve.status)).applications[app]
        return not_ready({name: status.deployments[name] for name in self._deployments})


def not_ready(deployments: Mapping[str, DeploymentStatusOverview]) -> dict[str, str]:
    """The deployments that cannot speak yet, with Serve's word on why.

    A replica runs once its constructor returned, and that is after its model was warmed. A healthy deployment
    without replicas is one that scales from zero.
    """
    return {
        name: status.message or status.status.value
        for name, status in deployments.items()
        if not status.replica_states.get(ReplicaState.RUNNING) and status.status != DeploymentStatus.HEALTHY
    }


def catalog_of(args: BuildArgs, models: tuple[ModelSettings, ...]) -> Catalog:
    """Raises ConfigError when the default model or an alias names a model that is not deployed."""
    return Catalog([describe(model) for model in models], args.default_model, args.aliases.models, args.aliases.voices)
