"""Reads the files of a model: safetensors, and the one pinned pickle. A bad one is a ModelLoadFailed that names it."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from env_setup.pins import VOCOS_WEIGHTS
from env_setup.wheels import sha256_of
from serve_app.errors import ModelLoadFailed

__all__ = ["existing", "read_checkpoint", "read_pinned_vocos", "read_safetensors"]


def existing(field: str, path: Path) -> Path:
    """`path`, which models[].`field` names."""
    if not path.is_file():
        raise ModelLoadFailed(f"models[].{field} is {str(path)!r}, and there is no such file on this node")
    return path


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Parameters of the transformer by upstream's names: the averaged (EMA) ones, which are for inference."""
    loaded = read_safetensors(path)
    # `initted` and `step` belong to the averaging, mel_spec.* to old checkpoints that stored the mel filters.
    names = {key: key.removeprefix("ema_model.") for key in loaded if key not in ("initted", "step")}
    return {
        name.removeprefix("transformer."): loaded[key]
        for key, name in names.items()
        if not name.startswith("mel_spec.")
    }


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name."""
    if path.suffix != ".safetensors":
        raise ModelLoadFailed(
            f"{path} is not a .safetensors file, and other formats can run code when they are opened: save the "
            "checkpoint's ema_model_state_dict with safetensors.torch.save_file, and name that file"
        )
    try:
        return dict(load_file(path))
    except Exception as error:  # the parser raises many types, and each means the same: not such a file
        raise _damaged(path, error) from error


def read_pinned_vocos(path: Path) -> dict[str, Tensor]:
    """The one pickled file that is opened: charactr/vocos-mel-24khz exists in no other form."""
    if (found := sha256_of(path)) != VOCOS_WEIGHTS.sha256:
        raise ModelLoadFailed(
            f"{path} has sha256 {found}, and of such files only {VOCOS_WEIGHTS.repository}'s is opened "
            f"({VOCOS_WEIGHTS.sha256}): fetch that, or save your vocoder as model.safetensors"
        )
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # as above
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ModelLoadFailed:
    return ModelLoadFailed(
        f"{path} cannot be read as what its name says ({type(error).__name__}: {error}): "
        "it is damaged or of another format, so fetch it again"
    )
