"""Writes a tiny F5-TTS model with random weights, in upstream's file formats: it speaks noise, but at once.

For tests, and for running the service without the real weights: `python -m tests.support.tiny_f5 DIR`.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from serve_app.engine.load import F5Weights, import_f5_tts

__all__ = ["write_tiny_f5"]

VOCAB_SIZE = 2545
"""Entries of the vocabulary in the f5-tts wheel, which the tiny model uses."""

MODEL: dict[str, Any] = {
    "name": "tiny",
    "tokenizer": "pinyin",
    "backbone": "DiT",
    "arch": {
        "dim": 64,
        "depth": 2,
        "heads": 4,
        "dim_head": 16,
        "ff_mult": 2,
        "text_dim": 32,
        "text_mask_padding": True,
        "conv_layers": 2,
    },
    "mel_spec": {
        "target_sample_rate": 24000,
        "n_mel_channels": 100,
        "hop_length": 256,
        "win_length": 1024,
        "n_fft": 1024,
        "mel_spec_type": "vocos",
    },
}

VOCODER: dict[str, Any] = {  # charactr/vocos-mel-24khz with smaller numbers
    "feature_extractor": {
        "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
        "init_args": {
            "sample_rate": 24000,
            "n_fft": 1024,
            "hop_length": 256,
            "n_mels": 100,
            "padding": "center",
        },
    },
    "backbone": {
        "class_path": "vocos.models.VocosBackbone",
        "init_args": {"input_channels": 100, "dim": 64, "intermediate_dim": 128, "num_layers": 2},
    },
    "head": {
        "class_path": "vocos.heads.ISTFTHead",
        "init_args": {"dim": 64, "n_fft": 1024, "hop_length": 256, "padding": "center"},
    },
}


def write_tiny_f5(directory: Path, seed: int = 0) -> F5Weights:
    """Write checkpoint (`.safetensors`, `ema_model.` prefix), config and vocoder into `directory`, made here.

    The same seed writes the same parameters. The audio is finite and well above silence, and depends on text,
    reference and noise.
    """
    vocoder_dir = directory / "vocoder"
    vocoder_dir.mkdir(parents=True, exist_ok=True)
    weights = F5Weights(directory / "model.safetensors", vocoder_dir, config=directory / "config.yaml")
    (directory / "config.yaml").write_text(yaml.safe_dump({"model": MODEL}))
    (vocoder_dir / "config.yaml").write_text(yaml.safe_dump(VOCODER))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dit, vocoder = _random_dit(), _random_vocoder(vocoder_dir / "config.yaml")
    named = {f"ema_model.transformer.{name}": value for name, value in dit.state_dict().items()}
    save_file(named, weights.checkpoint)
    torch.save(vocoder.state_dict(), vocoder_dir / "pytorch_model.bin")
    return weights


def _random_dit() -> Any:
    import_f5_tts()
    from f5_tts.model.backbones.dit import DiT

    n_mels = MODEL["mel_spec"]["n_mel_channels"]
    dit = DiT(**MODEL["arch"], text_num_embeds=VOCAB_SIZE, mel_dim=n_mels)
    # Upstream starts AdaLN, GRN and the output at zero: untrained, it returns its noise and ignores the text.
    for parameter in dit.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    dit.input_embed.proj.weight.data[:, -MODEL["arch"]["text_dim"] :] *= 10  # else the text is hardly heard
    return dit


def _random_vocoder(config: Path) -> Any:
    from vocos import Vocos

    vocoder = Vocos.from_hparams(str(config))
    for module in vocoder.backbone.modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    magnitude, phase = vocoder.head.out.weight.data.chunk(2)
    nn.init.normal_(magnitude, std=0.1)
    nn.init.normal_(phase, std=0.5)  # spread: equal phases add up at the edge of the window, which is silent
    return vocoder


if __name__ == "__main__":
    print(write_tiny_f5(Path(sys.argv[1])))
