"""What each kind of engine means to the rest: its entry in the catalog, its units, and how it is loaded.

Engines are imported only when one is loaded, so neither the builder nor the ingress ever imports torch.
"""

from typing import Protocol

from serve_app.catalog import Model
from serve_app.domain import Sampling, Synthesizer, VoiceStats
from serve_app.engine import f5
from serve_app.engine.protocol import Engine
from serve_app.errors import ModelLoadFailed
from serve_app.parameters import Defaults
from serve_app.planning import PREVIEW_LIMITS, UnitLimits, limits_for_f5
from serve_app.settings import F5Settings, ModelSettings, PreviewSettings
from serve_app.speech import SpeakingModel
from serve_app.weights import F5Files, F5Sources

__all__ = ["WeightsSource", "describe", "load_engine", "speaking"]

PUBLISHED_WEIGHTS_LICENSE = "CC-BY-NC-4.0 (no commercial use)"
PUBLISHED_WEIGHTS_LANGUAGES = ("en", "zh")


class WeightsSource(Protocol):
    """Where a replica gets the files of a model from: `NodeWeights`, or fixed paths in a test."""

    def fetch(self, sources: F5Sources) -> F5Files:
        """Their paths on this node. Raises ModelLoadFailed."""
        ...


def describe(model: ModelSettings) -> Model:
    """The model as clients see it."""
    if isinstance(model, PreviewSettings):
        return Model(
            name=model.name,
            engine="preview",
            draft=True,
            builtin_voices=("heart",),
            default_voice="heart",
            license="Apache-2.0",
            languages=("en",),
            defaults=Defaults(speed=model.speed, cross_fade_s=model.cross_fade_s),
        )
    return Model(
        name=model.name,
        engine="f5",
        draft=False,
        builtin_voices=tuple(f5.BUILTIN_VOICES),
        default_voice=next(iter(f5.BUILTIN_VOICES)),
        license=f"code MIT; weights {model.license or PUBLISHED_WEIGHTS_LICENSE}",
        languages=model.languages or PUBLISHED_WEIGHTS_LANGUAGES,
        defaults=Defaults(_sampling(model), model.speed, model.cross_fade_s),
    )


def speaking(model: ModelSettings, synthesizer: Synthesizer) -> SpeakingModel:
    """How to plan for the model and where to have its units spoken."""
    if isinstance(model, PreviewSettings):
        return SpeakingModel(synthesizer, _preview_limits, model.cross_fade_s, draft=True)
    return SpeakingModel(synthesizer, _f5_limits, model.cross_fade_s, draft=False)


def load_engine(model: ModelSettings, weights: WeightsSource) -> Engine:
    """Load the model into this process, fetching its files where they are missing. Raises ModelLoadFailed."""
    if isinstance(model, F5Settings):
        return _load_f5(model, weights)
    from serve_app.engine.preview import PreviewEngine

    return PreviewEngine(threads=model.threads)


def _load_f5(model: F5Settings, weights: WeightsSource) -> Engine:
    try:
        from serve_app.engine.load import F5Weights  # before the download, which would be for nothing
    except ImportError as error:
        raise ModelLoadFailed(
            f"model {model.name!r} needs packages that the environment of its replica does not have ({error}): prepare "
            "one with `python -m env_setup install`, or list only preview under `models` in deploy.yaml"
        ) from error
    files = weights.fetch(F5Sources(model.source, model.vocoder, model.vocab))
    given = model.architecture
    architecture = given if isinstance(given, str) else given.model_dump()
    return f5.F5Engine(
        F5Weights(files.checkpoint, files.vocoder, files.vocab, architecture, files.sha256),
        device=model.device,
        dtype=model.dtype,
        sampling=_sampling(model),
        attention=model.attention,
        threads=model.threads,
        reference_cache_bytes=model.reference_cache_bytes,
        memory_share=min(model.num_gpus, 1.0) or 1.0,
        cuda_graphs=model.cuda_graphs,
    )


def _sampling(model: F5Settings) -> Sampling:
    return Sampling(model.nfe_steps, model.cfg_strength, model.sway)


def _preview_limits(stats: VoiceStats | None, speed: float) -> UnitLimits:
    return PREVIEW_LIMITS


def _f5_limits(stats: VoiceStats | None, speed: float) -> UnitLimits:
    return limits_for_f5(stats or next(iter(f5.BUILTIN_VOICES.values())), speed)
