"""What the HTTP layer needs of the rest, in one frozen bundle. No Ray: tests fill it with in-process parts."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from fastapi import Request

from serve_app.api.acceptance import Acceptance
from serve_app.catalog import Catalog
from serve_app.domain import DEFAULT_TENANT
from serve_app.job_client import JobClient
from serve_app.settings import LOOPBACK_NAMES, LimitSettings
from serve_app.speech import Speaker
from serve_app.storage import ObjectStore, UrlSigner
from serve_app.voices import VoiceLibrary

__all__ = ["Services", "services_of", "tenant_of"]


@dataclass(frozen=True)
class Services:
    """`not_ready` says for each part that is not ready why; empty when the service can speak.
    `signer` is set where the ingress itself serves the store's files."""

    catalog: Catalog
    acceptance: Acceptance
    speaker: Speaker
    library: VoiceLibrary
    jobs: JobClient
    store: ObjectStore
    limits: LimitSettings
    not_ready: Callable[[], Awaitable[Mapping[str, str]]]
    signer: UrlSigner | None = None
    public_url: str | None = None
    allowed_hosts: tuple[str, ...] = LOOPBACK_NAMES

    def url(self, request: Request, key: str, filename: str) -> str:
        """An absolute URL at which the holder can read the object until it expires."""
        url = self.store.url(key, expires_s=self.limits.url_expiry_s, filename=filename)
        if "://" in url:
            return url
        base = self.public_url or str(request.base_url)
        return f"{base.rstrip('/')}{url}"


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def tenant_of(request: Request) -> str:
    """The tenant of the caller. One place, so that API keys can decide it."""
    return DEFAULT_TENANT
