"""What the HTTP layer needs of the rest, in one frozen bundle. No Ray: tests fill it with in-process parts."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from fastapi import Request
from starlette.requests import HTTPConnection

from serve_app.api.acceptance import Acceptance
from serve_app.api.policy import JobPolicyDefaults
from serve_app.catalog import Catalog
from serve_app.domain import DEFAULT_TENANT
from serve_app.fetching import Fetcher
from serve_app.heartbeats import Liveness
from serve_app.job_client import JobClient
from serve_app.jobs import Results
from serve_app.lexicon import Lexicons
from serve_app.settings import LOOPBACK_NAMES, JobsSettings, LimitSettings
from serve_app.speech import Speaker
from serve_app.storage import ObjectStore, UrlSigner
from serve_app.voices import VoiceLibrary

__all__ = ["Cluster", "PartState", "PartStatus", "Services", "services_of", "tenant_of"]

PartState = Literal["ready", "idle", "starting", "failed"]


@dataclass(frozen=True, slots=True)
class PartStatus:
    """How a deployment is. idle: without replicas until a request comes. `message`: why it is not ready."""

    state: PartState
    replicas: int = 0
    message: str = ""


class Cluster(Protocol):
    """What can be asked about the deployments behind the ingress."""

    async def statuses(self) -> Mapping[str, PartStatus]:
        """Of every model and of Jobs, by name."""
        ...

    async def health(self, model: str) -> Mapping[str, Any]:
        """What one replica of the model says of itself. Raises Unavailable when none answers soon."""
        ...


@dataclass(frozen=True)
class Services:
    """`signer` is set where the ingress itself serves the store's files. `cors_origins`: of pages that may call it. `*`
    for all. `wall_clock`: Unix seconds. `liveness`: of the Jobs replicas, as this process sees them."""

    catalog: Catalog
    acceptance: Acceptance
    speaker: Speaker
    library: VoiceLibrary
    jobs: JobClient
    store: ObjectStore
    limits: LimitSettings
    cluster: Cluster
    fetcher: Fetcher
    results: Results
    lexicons: Lexicons
    signer: UrlSigner | None = None
    public_url: str | None = None
    allowed_hosts: tuple[str, ...] = LOOPBACK_NAMES
    cors_origins: tuple[str, ...] = ()
    job_defaults: JobPolicyDefaults = field(default_factory=JobPolicyDefaults)
    wall_clock: Callable[[], float] = time.time
    liveness: Liveness = field(default_factory=lambda: Liveness(JobsSettings().dead_after_s, time.monotonic))

    def url(self, request: Request, key: str, filename: str) -> str:
        """An absolute URL at which the holder can read the object until it expires."""
        url = self.store.url(key, expires_s=self.limits.url_expiry_s, filename=filename)
        if "://" in url:
            return url
        return f"{self.base_url(request)}{url}"

    def base_url(self, request: Request) -> str:
        """What clients call this service, without a slash at its end."""
        return (self.public_url or str(request.base_url)).rstrip("/")


def services_of(request: HTTPConnection) -> Services:
    services: Services = request.app.state.services
    return services


def tenant_of(request: HTTPConnection) -> str:
    """The tenant of the caller. One place, so that API keys can decide it."""
    return DEFAULT_TENANT
