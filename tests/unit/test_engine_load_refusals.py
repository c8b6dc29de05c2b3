"""What is missing, damaged or of another model is refused by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from serve_app.engine.load import F5Model, F5Weights, load_f5
from serve_app.errors import ModelLoadFailed
from tests.support.tiny_f5 import ARCHITECTURE, write_tiny_f5


@pytest.fixture
def weights(tmp_path: Path) -> F5Weights:
    return write_tiny_f5(tmp_path)


def load(weights: F5Weights) -> F5Model:
    return load_f5(weights, torch.device("cpu"), torch.float32, "sdpa")


def stored(weights: F5Weights) -> dict[str, Tensor]:
    return load_file(weights.checkpoint)


def drop_block(weights: F5Weights) -> F5Weights:
    kept = {name: value for name, value in stored(weights).items() if "transformer_blocks.1" not in name}
    save_file(kept, weights.checkpoint)
    return weights


def reshape(weights: F5Weights) -> F5Weights:
    tensors = stored(weights)
    tensors["ema_model.transformer.proj_out.bias"] = torch.zeros(80)
    save_file(tensors, weights.checkpoint)
    return weights


def shorten_vocab(weights: F5Weights) -> F5Weights:
    vocab = weights.checkpoint.with_name("vocab.txt")
    vocab.write_text(" \na\nb\n", encoding="utf-8")
    return replace(weights, vocab=vocab)


def damage(weights: F5Weights) -> F5Weights:
    weights.checkpoint.write_bytes(weights.checkpoint.read_bytes()[:1000])
    return weights


def as_pickle(weights: F5Weights) -> F5Weights:
    torch.save({"ema_model_state_dict": {}}, weights.checkpoint.with_name("model.pt"))
    return replace(weights, checkpoint=weights.checkpoint.with_name("model.pt"))


def damage_bin(weights: F5Weights) -> F5Weights:
    (weights.vocoder / "model.safetensors").rename(weights.vocoder / "pytorch_model.bin")
    return weights


def sized(**changes: Any) -> Callable[[F5Weights], F5Weights]:
    return lambda weights: replace(weights, architecture={**ARCHITECTURE, **changes})


def change(file: str, before: str, after: str) -> Callable[[F5Weights], F5Weights]:
    def changed(weights: F5Weights) -> F5Weights:
        path = weights.checkpoint.parent / file
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))
        return weights

    return changed


def empty_vocoder(weights: F5Weights) -> F5Weights:
    (weights.vocoder / "model.safetensors").unlink()
    return weights


@pytest.mark.parametrize(
    ("spoil", "file", "reason"),
    [
        (lambda w: replace(w, checkpoint=w.vocoder / "no.safetensors"), "no.safetensors", r"\].source is .*such file"),
        (lambda w: replace(w, vocab=w.vocoder / "no.txt"), "no.txt", r"\].vocab is .*no such file"),
        (drop_block, "model.safetensors", r"blocks.1.attn_norm.linear.weight is absent in the file and \(384, 64\) in"),
        (reshape, "model.safetensors", r"proj_out.bias is \(80,\) in the file and \(100,\) in .* first of 1 tensors"),
        (shorten_vocab, "vocab.txt", r"3 entries of .*text_embed.weight is \(2546, 32\) in the file and \(4, 32\) in"),
        (damage, "model.safetensors", "damaged or of another format"),
        (as_pickle, "model.pt", "not a .safetensors file.*save the checkpoint's ema_model_state_dict"),
        (sized(depth=1), "model.safetensors", r"blocks.1.* in the file and absent in the model"),
        (sized(depth=3), "model.safetensors", r"depth: 3.*blocks.2.* is absent in the file and"),
        (lambda w: replace(w, architecture="v1_small"), "model.safetensors", r"'v1_small' with .*64.* in the file and"),
        (empty_vocoder, "vocoder", "config.yaml and one of model.safetensors, pytorch_model.bin"),
        (damage_bin, "pytorch_model.bin", "has sha256"),
        (change("vocoder/config.yaml", "dim: 64", "dim: 32"), "vocoder", r"does not fit .*config.yaml: .* in the file"),
        (change("vocoder/config.yaml", "hop_length: 256", "hop_length: 300"), "config.yaml", "hop of 256"),
        (change("vocoder/config.yaml", "ISTFTHead", "NoHead"), "config.yaml", "does not describe a Vocos"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    weights: F5Weights, spoil: Callable[[F5Weights], F5Weights], file: str, reason: str
) -> None:
    """A file that is missing, damaged or of another model is refused, by its path and with what was found."""
    spoilt = spoil(weights)
    with pytest.raises(ModelLoadFailed, match=reason) as caught:
        load(spoilt)
    assert str(weights.checkpoint.parent) in caught.value.message
    assert file in caught.value.message


@pytest.mark.parametrize(
    "architecture",
    ["v2", {"dim": 64, "colour": 2}, {"dim": 65, "depth": 1}, ARCHITECTURE | {"long_skip_connection": True}],
)
def test_an_architecture_that_is_none_is_refused(weights: F5Weights, architecture: Any) -> None:
    """The message repeats what was given and names the presets."""
    with pytest.raises(ModelLoadFailed, match=r"models\[\].architecture .* does not describe a DiT.*v1_base, v1_small"):
        load(replace(weights, architecture=architecture))
