"""F5-TTS and Vocos with random weights, in the sizes of real ones: as heavy to fetch, load and run."""

from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from serve_app.engine.architecture import sizes
from serve_app.engine.load import F5Weights
from tests.support.tiny_f5 import VOCODER, random_dit

__all__ = ["write_random_f5"]

VOCOS_BACKBONE = {"input_channels": 100, "dim": 512, "intermediate_dim": 1536, "num_layers": 8}
STD = 0.05
"""Of what upstream starts at zero; more would be numerically wild in 22 layers."""


def write_random_f5(directory: Path, architecture: dict[str, Any] | None = None) -> F5Weights:
    """Write `F5TTS_v1_Base.safetensors`, and `config.yaml` and `model.safetensors` of Vocos, into a new `directory`.

    Of F5TTS_v1_Base's size, or of `architecture`'s; the vocoder has the published size always.
    """
    architecture = architecture or sizes("v1_base")
    directory.mkdir(parents=True)
    checkpoint = directory / "F5TTS_v1_Base.safetensors"
    config: dict[str, Any] = VOCODER | {"backbone": VOCODER["backbone"] | {"init_args": VOCOS_BACKBONE}}
    config["head"] = VOCODER["head"] | {"init_args": VOCODER["head"]["init_args"] | {"dim": 512}}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dit = random_dit(architecture, std=STD)
        save_file({f"ema_model.transformer.{name}": value for name, value in dit.state_dict().items()}, checkpoint)
        from vocos import Vocos

        vocoder = Vocos.from_hparams(str(directory / "config.yaml"))
    save_file(vocoder.state_dict(), directory / "model.safetensors")
    return F5Weights(checkpoint, directory, None, architecture)
