"""F5TTS_v1_Base and Vocos in their real sizes with random weights: as heavy to fetch, load and run as the real ones."""

from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from serve_app.engine.architecture import sizes
from serve_app.engine.load import import_f5_tts
from tests.support.tiny_f5 import N_MELS, VOCAB_SIZE, VOCODER

__all__ = ["write_random_f5"]

VOCOS_BACKBONE = {"input_channels": 100, "dim": 512, "intermediate_dim": 1536, "num_layers": 8}


def write_random_f5(directory: Path) -> None:
    """Write `F5TTS_v1_Base.safetensors`, and `config.yaml` and `model.safetensors` of Vocos, into a new `directory`."""
    import_f5_tts()
    from f5_tts.model.backbones.dit import DiT
    from vocos import Vocos

    directory.mkdir(parents=True)
    dit = DiT(**sizes("v1_base"), text_num_embeds=VOCAB_SIZE, mel_dim=N_MELS)
    named = {f"ema_model.transformer.{name}": value for name, value in dit.state_dict().items()}
    save_file(named, directory / "F5TTS_v1_Base.safetensors")
    config: dict[str, Any] = VOCODER | {"backbone": VOCODER["backbone"] | {"init_args": VOCOS_BACKBONE}}
    config["head"] = VOCODER["head"] | {"init_args": VOCODER["head"]["init_args"] | {"dim": 512}}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    with torch.random.fork_rng(devices=[]):
        vocoder = Vocos.from_hparams(str(directory / "config.yaml"))
    save_file(vocoder.state_dict(), directory / "model.safetensors")
