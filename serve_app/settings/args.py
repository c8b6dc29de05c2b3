"""`args` of deploy.yaml."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from serve_app.settings.models import ModelSettings
from serve_app.settings.scale import IngressSettings, JobsSettings, Strict

__all__ = ["LOOPBACK_NAMES", "AliasSettings", "BuildArgs", "LimitSettings"]

MIB = 1024 * 1024


class AliasSettings(Strict):
    """Other names for models and voices. The target `default` is the default model, or the model's default voice."""

    models: Mapping[str, str] = {}
    voices: Mapping[str, str] = {}


class LimitSettings(Strict):
    """What one request may ask for."""

    max_text_chars: int = Field(200_000, ge=1, description="of a job or a call; 3.7 hours of speech")
    body_bytes: int = Field(48 * MIB, ge=1024)
    voice_bytes: int = Field(30 * MIB, ge=1024)
    url_expiry_s: int = Field(3600, ge=1, le=604_800, description="seven days is the most that S3 signs for")
    frame_bytes: int = Field(
        MIB, ge=1024, le=16 * MIB, description="of one WebSocket frame; Serve's proxy takes 16 MiB"
    )
    idle_timeout_s: float = Field(60.0, gt=0, description="how long a WebSocket may be silent while nothing is spoken")
    max_wait_s: float = Field(300.0, gt=0, description="longest that /runsync waits")


ORIGIN = r"^(\*|[a-z][a-z0-9+.-]*://[^/?#\s]+)$"
"""As a browser writes it: scheme, host and port, without a slash at its end."""
LOOPBACK_NAMES = ("127.0.0.1", "::1", "localhost")


class BuildArgs(Strict):
    """`args` of deploy.yaml: everything about the application that is not a secret."""

    models: Literal["auto"] | tuple[ModelSettings, ...] = "auto"
    default_model: str | None = None
    aliases: AliasSettings = AliasSettings()
    ingress: IngressSettings = IngressSettings()
    jobs: JobsSettings = JobsSettings()
    limits: LimitSettings = LimitSettings()
    voice_cache_bytes: int = Field(512 * MIB, ge=MIB)
    url_addresses: tuple[str, ...] = Field(
        (), description="networks (CIDR) that URLs of voices may lead to though they are not public"
    )
    url_timeout_s: float = Field(30.0, gt=0, le=300, description="for all of a URL, redirects included")
    transcriber: str | None = Field(
        "tiny.en", min_length=1, description="of recordings without a text: a faster-whisper model by name or path"
    )
    allowed_hosts: tuple[str, ...] = Field(LOOPBACK_NAMES, description="names that clients call it by; `*` for any")
    cors_origins: tuple[Annotated[str, Field(pattern=ORIGIN)], ...] = Field(
        (), description="pages that may call it from elsewhere, as browsers name them; `*` for any"
    )
    public_url: str | None = Field(None, description="what clients call this service; default: the request's Host")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _models_are_consistent(self) -> "BuildArgs":
        if self.models == "auto":
            return self
        names = [model.name for model in self.models]
        if not names:
            raise ValueError("models is empty: name at least one, or write `models: auto`")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"models: two have the name {twice[0]!r}; names select a model, so give each its own")
        if reserved := sorted({"Ingress", "Jobs"}.intersection(names)):
            raise ValueError(f"models: {reserved[0]!r} is the name of a deployment of the service; choose another")
        return self
