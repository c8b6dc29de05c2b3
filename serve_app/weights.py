"""Finds the files of an F5-TTS model on this node: local paths where given, else the model hub at pinned revisions.

The published F5-TTS weights are CC-BY-NC 4.0 (no commercial use); its code is MIT. Knows nothing of Ray or torch.
"""

from dataclasses import dataclass
from pathlib import Path

from serve_app.errors import ModelLoadFailed

__all__ = ["F5_REPOSITORY", "F5_REVISION", "VOCOS_REPOSITORY", "VOCOS_REVISION", "F5Files", "f5_files"]

F5_REPOSITORY = "SWivid/F5-TTS"
F5_REVISION = "84e5a410d9cead4de2f847e7c9369a6440bdfaca"
F5_CHECKPOINT = "F5TTS_v1_Base/model_1250000.safetensors"
VOCOS_REPOSITORY = "charactr/vocos-mel-24khz"
VOCOS_REVISION = "0feb3fdd929bcd6649e0e7c5a688cf7dd012ef21"

NEEDS_F5_PACKAGES = (
    "model f5 needs packages that this environment does not have: prepare it with `EXTRAS=f5 make run`, "
    "or list only preview under `models` in deploy.yaml"
)


@dataclass(frozen=True, slots=True)
class F5Files:
    """Paths on this node. `vocab` and `config` are None where the f5-tts package's own are meant."""

    checkpoint: Path
    vocoder: Path  # directory with config.yaml and the weights
    vocab: Path | None = None
    config: Path | None = None


def f5_files(given: F5Files | None) -> F5Files:
    """`given` when every path of it exists; for None the pinned files of the hub, downloaded once per node.

    Raises ModelLoadFailed naming the path or the file that is missing and what to set.
    """
    if given is None:
        return _from_hub()
    for field in ("checkpoint", "vocoder", "vocab", "config"):
        path: Path | None = getattr(given, field)
        if path is not None and not path.exists():
            raise ModelLoadFailed(f"models[].weights.{field} is {str(path)!r}, which does not exist on this node")
    return given


def _from_hub() -> F5Files:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ModelLoadFailed(NEEDS_F5_PACKAGES) from error
    try:
        checkpoint = hf_hub_download(F5_REPOSITORY, F5_CHECKPOINT, revision=F5_REVISION)
        config = hf_hub_download(VOCOS_REPOSITORY, "config.yaml", revision=VOCOS_REVISION)
        hf_hub_download(VOCOS_REPOSITORY, "pytorch_model.bin", revision=VOCOS_REVISION)
    except (OSError, ValueError) as error:  # the hub client's own errors derive from these
        raise ModelLoadFailed(
            f"the weights {F5_REPOSITORY}@{F5_REVISION[:8]} and {VOCOS_REPOSITORY}@{VOCOS_REVISION[:8]} could not be "
            f"downloaded ({type(error).__name__}: {error}): set models[].weights.checkpoint and .vocoder to local files"
        ) from error
    return F5Files(checkpoint=Path(checkpoint), vocoder=Path(config).parent)
