"""A model loads alike from every form of its files, onto what there is; what does not fit is refused by name."""

import sys
import types
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from serve_app.engine.attention import AttentionChoice, choose_attention, choose_device, choose_dtype
from serve_app.engine.load import F5Model, F5Weights, import_f5_tts, load_f5
from serve_app.errors import ModelLoadFailed
from tests.support.tiny_f5 import write_tiny_f5

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def weights(tmp_path: Path) -> F5Weights:
    return write_tiny_f5(tmp_path)


def load(weights: F5Weights, dtype: torch.dtype = torch.float32) -> F5Model:
    return load_f5(weights, CPU, dtype, "sdpa")


def parameters(weights: F5Weights) -> dict[str, Tensor]:
    dit: Any = load(weights).dit
    return dict(dit.state_dict())


def stored(weights: F5Weights) -> dict[str, Tensor]:
    return load_file(weights.checkpoint)


def without_prefix(weights: F5Weights) -> F5Weights:
    tensors = {name.removeprefix("ema_model."): value for name, value in stored(weights).items()}
    save_file(tensors, weights.checkpoint)
    return weights


def trainer_checkpoint(weights: F5Weights) -> F5Weights:
    extra = {
        "initted": torch.tensor(True),
        "step": torch.tensor(7),
        "mel_spec.mel_stft.window": torch.ones(3),
    }
    path = weights.checkpoint.with_name("model_7.pt")
    torch.save({"ema_model_state_dict": {**stored(weights), **extra}, "update": 7}, path)
    return replace(weights, checkpoint=path)


def half_checkpoint(weights: F5Weights) -> F5Weights:
    """With rotary frequencies as a half-precision export has them, and all else unharmed."""
    tensors = stored(weights)
    name = "ema_model.transformer.rotary_embed.inv_freq"
    save_file({**tensors, name: tensors[name].half()}, weights.checkpoint)
    return weights


@pytest.mark.parametrize("convert", [without_prefix, trainer_checkpoint, half_checkpoint])
def test_forms_of_a_checkpoint_load_alike(
    tmp_path: Path, weights: F5Weights, convert: Callable[[F5Weights], F5Weights]
) -> None:
    """All forms that upstream writes give the parameters that were stored, bit for bit."""
    expected = parameters(weights)
    found = parameters(convert(weights))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    name = "transformer_blocks.1.ff.ff.2.weight"
    assert torch.equal(expected[name], stored(write_tiny_f5(tmp_path / "again"))[f"ema_model.transformer.{name}"])


def test_reads_upstreams_own_config(weights: F5Weights) -> None:
    """A config as upstream writes it, with its training settings and interpolations, is read for its model."""
    assert weights.config is not None
    shipped = yaml.safe_load(files("f5_tts").joinpath("configs/F5TTS_v1_Base.yaml").read_text())
    shipped["model"]["arch"].update(yaml.safe_load(weights.config.read_text())["model"]["arch"])
    expected = parameters(weights)
    weights.config.write_text(yaml.safe_dump(shipped))
    found = parameters(weights)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_vocoder_loads_from_either_file(weights: F5Weights) -> None:
    """Vocos decodes the same from model.safetensors as from pytorch_model.bin."""
    mel = torch.randn(1, 100, 20, generator=torch.Generator().manual_seed(0))
    expected = load(weights).decode(mel)
    stored_as_bin = weights.vocoder / "pytorch_model.bin"
    save_file(torch.load(stored_as_bin, weights_only=True), weights.vocoder / "model.safetensors")
    stored_as_bin.unlink()
    assert torch.equal(load(weights).decode(mel), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_precision(weights: F5Weights, dtype: torch.dtype) -> None:
    """The transformer is in the dtype asked for, but positions, times and the vocoder stay in float32."""
    model = load(weights, dtype)
    dit: Any = model.dit
    exact = load(weights)
    reference: Any = exact.dit
    assert dit.transformer_blocks[0].attn.to_q.weight.dtype == dtype
    assert torch.equal(dit.rotary_embed.inv_freq, reference.rotary_embed.inv_freq)
    assert dit.time_embed.time_mlp[0].weight.dtype == torch.float32
    assert dit.time_embed(torch.tensor([0.3])).dtype == dtype
    mel = torch.zeros(1, 100, 20)
    assert torch.equal(model.decode(mel), exact.decode(mel))


def test_attention_mask_is_enabled(weights: F5Weights) -> None:
    """Every block masks padding, which upstream's default does not."""
    dit: Any = load(weights).dit
    assert [block.attn.processor.attn_mask_enabled for block in dit.transformer_blocks] == [True, True]


def test_nothing_of_the_trainer_stays(weights: F5Weights) -> None:
    """The stand-in for upstream's trainer is gone after the import, so the real one can be imported."""
    load(weights)
    assert "f5_tts.model" in sys.modules
    assert "f5_tts.model.trainer" not in sys.modules


def test_real_trainer_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where upstream's trainer is imported already, nothing is put in its place and nothing taken away."""
    real = types.ModuleType("f5_tts.model.trainer")
    monkeypatch.setitem(sys.modules, "f5_tts.model.trainer", real)
    monkeypatch.delitem(sys.modules, "f5_tts.model", raising=False)
    import_f5_tts()
    assert sys.modules["f5_tts.model.trainer"] is real


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


def without_ema(weights: F5Weights) -> F5Weights:
    torch.save({"model_state_dict": {}}, weights.checkpoint.with_name("model.pt"))
    return replace(weights, checkpoint=weights.checkpoint.with_name("model.pt"))


def change(file: str, before: str, after: str) -> Callable[[F5Weights], F5Weights]:
    def changed(weights: F5Weights) -> F5Weights:
        path = weights.checkpoint.parent / file
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))
        return weights

    return changed


def empty_vocoder(weights: F5Weights) -> F5Weights:
    (weights.vocoder / "pytorch_model.bin").unlink()
    return weights


@pytest.mark.parametrize(
    ("spoil", "file", "reason"),
    [
        (lambda w: replace(w, checkpoint=w.vocoder / "no.pt"), "no.pt", "weights.checkpoint is .* no such file"),
        (lambda w: replace(w, checkpoint=w.vocoder / "no.pt", config=None), "no.pt", "weights.checkpoint"),
        (lambda w: replace(w, vocab=w.vocoder / "no.txt"), "no.txt", "no such file"),
        (lambda w: replace(w, config=w.vocoder / "no.yaml"), "no.yaml", "no such file"),
        (drop_block, "model.safetensors", r"14 parameters missing \(like transformer_blocks.1.attn.to_k.bias\)"),
        (reshape, "model.safetensors", r"1 parameters of another shape \(like proj_out.bias\)"),
        (shorten_vocab, "vocab.txt", "has 3 entries, .* trained with 2545"),
        (damage, "model.safetensors", "damaged or of another format"),
        (without_ema, "model.pt", "'model_state_dict'.* no 'ema_model_state_dict'"),
        (change("config.yaml", "depth: 2", "depth: 1"), "model.safetensors", "parameters unknown"),
        (change("config.yaml", "depth: 2", "colour: 2"), "config.yaml", "model.arch does not describe a DiT"),
        (change("config.yaml", "DiT", "UNetT"), "config.yaml", "'backbone': 'UNetT'"),
        (change("config.yaml", "hop_length: 256", "hop_length: 320"), "config.yaml", "'hop_length': 320"),
        (change("config.yaml", "mel_spec:", "mel:"), "config.yaml", "not in upstream's layout"),
        (change("config.yaml", "model:", "]"), "config.yaml", "not in upstream's layout"),
        (empty_vocoder, "vocoder", "config.yaml and one of model.safetensors, pytorch_model.bin"),
        (change("vocoder/config.yaml", "dim: 64", "dim: 32"), "pytorch_model.bin", "does not fit .*config.yaml"),
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


def test_attention_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """flash_attn is taken where it fits; by name it must fit, and "auto" says what stood in the way."""
    half = torch.float16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert choose_attention("sdpa", CUDA, half) == AttentionChoice("sdpa", "attention is set to sdpa")
    assert choose_attention("auto", CUDA, half).reason.startswith("flash_attn cannot be imported")
    assert "float16 or bfloat16" in choose_attention("auto", CUDA, torch.float32).reason
    with pytest.raises(ModelLoadFailed, match="attention is 'flash_attn', but flash_attn cannot be imported"):
        choose_attention("flash_attn", CUDA, half)
    monkeypatch.setitem(sys.modules, "flash_attn", types.ModuleType("flash_attn"))
    assert [choose_attention(asked, CUDA, half).path for asked in ("auto", "flash_attn")] == ["flash_attn"] * 2
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert choose_attention("auto", CUDA, half).reason == "flash_attn needs compute capability 8.0 and cuda has 7.5"


def test_device_and_dtype_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "auto" takes what is there; what is asked for by name must be there."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert (choose_device("auto"), choose_dtype("auto", CPU)) == (
        CPU,
        torch.float32,
    )
    for device, reason in (("cuda", "sees 0 CUDA devices"), ("mps", "use auto"), ("gpu", "use auto")):
        with pytest.raises(ModelLoadFailed, match=f"device is '{device}'.*{reason}"):
            choose_device(device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto") == CUDA
    assert choose_dtype("auto", CUDA) == torch.float16
    assert choose_dtype("bfloat16", CUDA) == torch.bfloat16
    with pytest.raises(ModelLoadFailed, match="sees 1 CUDA devices"):
        choose_device("cuda:1")
