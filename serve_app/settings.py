"""What can be configured, as strict frozen models: an unknown or wrong key is an error that names it.

Two sources, each read once: `args` of deploy.yaml becomes `BuildArgs`, and the process environment becomes
`StoreSettings` and, on the node of a model's replica, `NodeSettings`. Nothing else in the package reads the
environment. Knows nothing of Ray: `app.py` turns these values into deployment options.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from env_setup.layout import weights_dir
from serve_app.errors import ConfigError
from serve_app.parameters import RANGES

__all__ = [
    "AliasSettings",
    "ArchitectureSettings",
    "AutoscalingSettings",
    "BuildArgs",
    "F5Settings",
    "IngressSettings",
    "JobsSettings",
    "LimitSettings",
    "ModelSettings",
    "NodeSettings",
    "PreviewSettings",
    "ScaleSettings",
    "StoreSettings",
]

MIB = 1024 * 1024


class Strict(BaseModel):
    """Frozen, and refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AutoscalingSettings(Strict):
    """Serve's autoscaling of one deployment; the names are Ray's own."""

    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=1)
    initial_replicas: int | None = Field(None, ge=0)
    target_ongoing_requests: float = Field(2.0, gt=0)
    upscale_delay_s: float = Field(5.0, ge=0)
    downscale_delay_s: float = Field(120.0, ge=0)
    metrics_interval_s: float = Field(2.0, gt=0)
    look_back_period_s: float = Field(10.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "AutoscalingSettings":
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        return self


class ScaleSettings(Strict):
    """How one deployment is sized. Defaults suit a laptop; deploy.yaml gives the reasons beside its values."""

    autoscaling: AutoscalingSettings = AutoscalingSettings()
    max_ongoing_requests: int = Field(8, ge=1)
    max_queued_requests: int = Field(256, ge=-1)
    graceful_shutdown_timeout_s: float = Field(120.0, gt=0)
    retry_after_s: int = Field(5, ge=1)
    num_cpus: float = Field(0.1, ge=0)
    num_gpus: float = Field(0.0, ge=0)


class IngressSettings(ScaleSettings):
    """Ingress replicas wait on others nearly all the time, so each holds many requests."""

    max_ongoing_requests: int = Field(200, ge=1)
    max_queued_requests: int = Field(400, ge=-1)


class JobsSettings(ScaleSettings):
    """Jobs replicas: how many jobs one runs at once, and how a dead one is noticed."""

    max_ongoing_requests: int = Field(400, ge=1)
    max_queued_requests: int = Field(400, ge=-1)
    max_running_jobs: int = Field(2, ge=1)
    max_runs: int = Field(3, ge=1, description="runs of one job before it is failed for good")
    heartbeat_s: float = Field(2.0, gt=0)
    dead_after_s: float = Field(10.0, gt=0, description="a replica whose heartbeat did not change for so long is dead")
    sweep_s: float = Field(3.0, gt=0)

    @model_validator(mode="after")
    def _beats_before_death(self) -> "JobsSettings":
        if self.dead_after_s < 3 * self.heartbeat_s:
            raise ValueError(
                f"dead_after_s {self.dead_after_s} is under three heartbeats of {self.heartbeat_s} s: "
                "one late write would give a live replica's jobs away"
            )
        return self


def _ranged(name: str) -> Any:
    """The limits of a parameter of speech."""
    low, high = RANGES[name]
    return Field(ge=low, le=high)


Speed = Annotated[float, _ranged("speed")]
CrossFade = Annotated[float, _ranged("cross_fade_s")]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class PreviewSettings(ScaleSettings):
    """The embedded preview engine: English, one built-in voice, a draft and never a clone."""

    name: ModelName = "preview"
    engine: Literal["preview"] = "preview"
    threads: int = Field(1, ge=1)
    speed: Speed = 1.0
    cross_fade_s: CrossFade = 0.01
    autoscaling: AutoscalingSettings = AutoscalingSettings(max_replicas=2, target_ongoing_requests=4)
    max_ongoing_requests: int = Field(16, ge=1)
    num_cpus: float = Field(0.5, ge=0)


class ArchitectureSettings(Strict):
    """Explicit sizes of a DiT, by upstream's names (`model.arch` of its yaml files)."""

    dim: int = Field(ge=16, multiple_of=16)
    depth: int = Field(ge=1)
    heads: int = Field(ge=1)
    dim_head: int = Field(64, ge=1)
    ff_mult: int = Field(2, ge=1)
    text_dim: int = Field(512, ge=1)
    text_mask_padding: bool = True
    conv_layers: int = Field(4, ge=0)
    pe_attn_head: int | None = Field(None, ge=1)
    qk_norm: Literal["rms_norm"] | None = None


class F5Settings(ScaleSettings):
    """F5-TTS on GPU replicas (device cpu is for tests and patience).

    `source`, `vocoder` and `vocab` each name a file on this node, an object (`s3://bucket/key`) or a file of the
    model hub (`hf://owner/name@commit/file`), with `#sha256=` where it is known; the vocoder names a folder. Without
    a source it is the pinned F5TTS_v1_Base, whose published weights are CC-BY-NC: no commercial use. `nfe_steps`,
    `cfg_strength`, `sway`, `speed` and `cross_fade_s` (upstream's defaults) are for requests that bring none.
    """

    name: ModelName = "f5"
    engine: Literal["f5"] = "f5"
    source: str | None = Field(None, min_length=1)
    vocoder: str | None = Field(None, min_length=1)
    vocab: str | None = Field(None, min_length=1)
    architecture: Literal["v1_base", "v1_small", "base"] | ArchitectureSettings = "v1_base"
    license: str | None = Field(None, min_length=1, max_length=200)
    languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$")], ...] = Field((), max_length=50)
    environment: Literal["auto", "installed", "ray", "prepared"] = "auto"
    device: str = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    nfe_steps: Annotated[int, _ranged("nfe_steps")] = 32
    cfg_strength: Annotated[float, _ranged("cfg_strength")] = 2.0
    sway: Annotated[float, _ranged("sway")] = -1.0
    speed: Speed = 1.0
    cross_fade_s: CrossFade = 0.15
    attention: Literal["auto", "sdpa", "flash_attn"] = "auto"
    threads: int | None = Field(None, ge=1)
    reference_cache_bytes: int = Field(256 * MIB, ge=MIB)
    cuda_graphs: bool = True
    autoscaling: AutoscalingSettings = AutoscalingSettings(max_replicas=8, target_ongoing_requests=8)
    max_ongoing_requests: int = Field(32, ge=1)
    graceful_shutdown_timeout_s: float = Field(300.0, gt=0)
    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _says_what_it_is(self) -> "F5Settings":
        """What is true of the pinned weights need not be true of others."""
        if self.source is None:
            if self.vocab is not None or self.architecture != "v1_base" or self.license is not None or self.languages:
                raise ValueError("vocab, architecture, license and languages belong to a checkpoint: give its source")
            return self
        missing = [key for key in ("license", "languages") if not getattr(self, key)]
        if missing:
            raise ValueError(
                f"source is {self.source!r}, but {' and '.join(missing)} not given: say under which licence the "
                "weights are and which languages they speak, for /v1/models tells it to whoever chooses the model"
            )
        return self


ModelSettings = Annotated[PreviewSettings | F5Settings, Field(discriminator="engine")]


class AliasSettings(Strict):
    """Other names for models and voices. The target `default` is the default model, or the model's default voice."""

    models: Mapping[str, str] = {}
    voices: Mapping[str, str] = {}


class LimitSettings(Strict):
    """What one request may ask for."""

    text_chars: int = Field(40_000, ge=1, description="of a job; 45 minutes of speech, held in memory as a whole")
    speech_chars: int = Field(10_000, ge=1, description="of a synchronous call, which the ingress assembles")
    body_bytes: int = Field(48 * MIB, ge=1024)
    voice_bytes: int = Field(30 * MIB, ge=1024)
    url_expiry_s: int = Field(3600, ge=1, le=604_800, description="seven days is the most that S3 signs for")
    max_wait_s: float = Field(300.0, gt=0, description="longest that /runsync waits")


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


class StoreSettings(Strict):
    """Where voices, jobs and audio are kept. The names are the variables of the worker that this replaces."""

    bucket: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    region: str | None = None
    endpoint_url: str | None = None
    data_dir: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "StoreSettings":
        """Read S3_BUCKET, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL and DATA_DIR.

        An empty variable counts as unset. Raises ConfigError for half a key pair, or for S3 settings without a bucket.
        """
        value = {name: environ.get(name, "").strip() or None for name in ENVIRONMENT}
        if (value["AWS_ACCESS_KEY_ID"] is None) != (value["AWS_SECRET_ACCESS_KEY"] is None):
            missing = "AWS_ACCESS_KEY_ID" if value["AWS_ACCESS_KEY_ID"] is None else "AWS_SECRET_ACCESS_KEY"
            raise ConfigError(f"{missing} is not set, but the other half of the key pair is: set both or neither")
        if value["S3_BUCKET"] is None and value["AWS_ENDPOINT_URL"] is not None:
            raise ConfigError(
                f"AWS_ENDPOINT_URL is {value['AWS_ENDPOINT_URL']!r} but S3_BUCKET is not set: name the bucket, "
                "or unset AWS_ENDPOINT_URL to keep everything in DATA_DIR"
            )
        secret = value["AWS_SECRET_ACCESS_KEY"]
        return cls(
            bucket=value["S3_BUCKET"],
            access_key_id=value["AWS_ACCESS_KEY_ID"],
            secret_access_key=SecretStr(secret) if secret else None,
            region=value["AWS_REGION"],
            endpoint_url=value["AWS_ENDPOINT_URL"],
            data_dir=Path(value["DATA_DIR"] or "data").absolute(),
        )


class NodeSettings(Strict):
    """Where a node keeps model weights, and which hub it gets them from."""

    weights_dir: Path
    hub_endpoint: str = "https://huggingface.co"
    hub_token: SecretStr | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "NodeSettings":
        """Read WEIGHTS_DIR, HF_ENDPOINT and HF_TOKEN (the model hub's own names). An empty variable counts as unset."""
        endpoint, token = (environ.get(name, "").strip() for name in ("HF_ENDPOINT", "HF_TOKEN"))
        return cls(
            weights_dir=weights_dir(environ),
            hub_endpoint=endpoint.rstrip("/") or "https://huggingface.co",
            hub_token=SecretStr(token) if token else None,
        )


ENVIRONMENT = (
    "S3_BUCKET",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "DATA_DIR",
)
