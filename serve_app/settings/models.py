"""What can be set per model."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from serve_app.parameters import RANGES
from serve_app.settings.scale import AutoscalingSettings, ScaleSettings, Strict

__all__ = ["ArchitectureSettings", "F5Settings", "ModelSettings", "PreviewSettings"]

MIB = 1024 * 1024


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
