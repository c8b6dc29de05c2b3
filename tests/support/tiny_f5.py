"""Writes a tiny F5-TTS model with random weights, in upstream's file formats: it speaks noise, but at once.

For tests, and for running the service without the real weights: `python -m tests.support.tiny_f5 DIR` writes it and
prints its entry for deploy.yaml.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from serve_app.engine.load import F5Weights, import_f5_tts
from serve_app.engine.sampler import SampleInput

__all__ = ["ARCHITECTURE", "SMALL", "random_dit", "sample_inputs", "tiny_settings", "write_tiny_f5"]

VOCAB_SIZE = 2545
"""Entries of the vocabulary in the f5-tts wheel, which the tiny model uses."""

N_MELS = 100
ARCHITECTURE: dict[str, Any] = {
    "dim": 64,
    "depth": 2,
    "heads": 4,
    "dim_head": 16,
    "ff_mult": 2,
    "text_dim": 32,
    "text_mask_padding": True,
    "conv_layers": 2,
}

SMALL: dict[str, Any] = ARCHITECTURE | {
    "dim": 384,
    "depth": 8,
    "heads": 6,
    "dim_head": 64,
    "text_dim": 256,
    "conv_layers": 4,
}
"""19.6 M parameters: large enough to be measured, small enough for a CPU."""

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


def write_tiny_f5(directory: Path, seed: int = 0, *, depth: int = 2, letters: str = "") -> F5Weights:
    """Write checkpoint (`ema_model.` prefix) and vocoder as safetensors into `directory`, made here.

    The same seed writes the same parameters. The audio is finite and well above silence, and depends on text,
    reference and noise. With `letters` these, and a space, are its vocabulary, written beside it.
    """
    vocoder_dir = directory / "vocoder"
    vocoder_dir.mkdir(parents=True, exist_ok=True)
    vocab = _write_vocab(directory / "vocab.txt", letters) if letters else None
    weights = F5Weights(directory / "model.safetensors", vocoder_dir, vocab, ARCHITECTURE | {"depth": depth})
    (vocoder_dir / "config.yaml").write_text(yaml.safe_dump(VOCODER))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dit = random_dit(ARCHITECTURE | {"depth": depth}, len(letters) + 1 if letters else VOCAB_SIZE)
        vocoder = _random_vocoder(vocoder_dir / "config.yaml")
    named = {f"ema_model.transformer.{name}": value for name, value in dit.state_dict().items()}
    save_file(named, weights.checkpoint)
    save_file(vocoder.state_dict(), vocoder_dir / "model.safetensors")
    return weights


def tiny_settings(directory: Path, **changes: Any) -> dict[str, Any]:
    """An entry of `models` in deploy.yaml that serves what `write_tiny_f5` wrote into `directory`, on a CPU."""
    return {
        "engine": "f5",
        "source": str(directory / "model.safetensors"),
        "vocoder": str(directory / "vocoder"),
        "architecture": ARCHITECTURE,
        "license": "CC0-1.0 (random numbers)",
        "languages": ["en"],
        "environment": "installed",
        "device": "cpu",
        "threads": 1,  # two torch threads on two shared cores wait for each other
        "nfe_steps": 4,
        "num_cpus": 0.1,
        "num_gpus": 0,
    } | changes


def _write_vocab(path: Path, letters: str) -> Path:
    path.write_text("".join(f"{letter}\n" for letter in f" {letters}"), encoding="utf-8")
    return path


def random_dit(architecture: dict[str, Any], vocab_size: int = VOCAB_SIZE, std: float = 0.2) -> Any:
    """Upstream's DiT with random parameters, none of them zero; it depends on its text, reference and noise.

    `std`: of what upstream starts at zero. In a deep model less will do, and more makes it numerically wild.
    """
    import_f5_tts()
    from f5_tts.model.backbones.dit import DiT

    dit = DiT(**architecture, text_num_embeds=vocab_size, mel_dim=N_MELS)
    # Upstream starts AdaLN, GRN and the output at zero: untrained, it returns its noise and ignores the text.
    for parameter in dit.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=std)
    dit.input_embed.proj.weight.data[:, -architecture["text_dim"] :] *= 10  # else the text is hardly heard
    return dit.eval().requires_grad_(False)


def sample_inputs(*frames: int) -> list[SampleInput]:
    """One of so many frames each, a third of them reference; every call gives the same."""
    generator = torch.Generator().manual_seed(1)
    return [
        SampleInput(
            torch.randn(n // 3, N_MELS, generator=generator) * 2 - 4,
            torch.randint(VOCAB_SIZE, (n // 5,), generator=generator),
            n,
            seed,
        )
        for seed, n in enumerate(frames)
    ]


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
    folder = Path(sys.argv[1]).absolute()
    write_tiny_f5(folder)
    print(yaml.safe_dump({"models": [tiny_settings(folder)]}, sort_keys=False), end="")
