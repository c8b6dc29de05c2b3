"""A model loads alike from every form of its files, and its version follows what is in them."""

import re
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from env_setup.wheels import sha256_of
from serve_app.engine import checkpoints
from serve_app.engine import load as load_module
from serve_app.engine.architecture import sizes
from serve_app.engine.load import F5Model, F5Weights, content_version, import_f5_tts, load_dit, load_f5, load_vocab
from serve_app.errors import ModelLoadFailed
from tests.support.tiny_f5 import ARCHITECTURE, random_dit, write_tiny_f5

CPU = torch.device("cpu")


@pytest.fixture
def weights(tmp_path: Path) -> F5Weights:
    return write_tiny_f5(tmp_path)


def load(weights: F5Weights) -> F5Model:
    return load_f5(weights, CPU, torch.float32, "sdpa")


def load_upstream(weights: F5Weights, dtype: torch.dtype = torch.float32) -> Any:
    """Upstream's DiT with the checkpoint's parameters."""
    return load_dit(weights, load_vocab(weights), CPU, dtype)


def parameters(weights: F5Weights) -> dict[str, Tensor]:
    return dict(load_upstream(weights).state_dict())


def stored(weights: F5Weights) -> dict[str, Tensor]:
    return load_file(weights.checkpoint)


def without_prefix(weights: F5Weights) -> F5Weights:
    tensors = {name.removeprefix("ema_model."): value for name, value in stored(weights).items()}
    save_file(tensors, weights.checkpoint)
    return weights


def with_averaging(weights: F5Weights) -> F5Weights:
    """With what upstream's averaging and its old mel front end leave beside the parameters."""
    extra = {"initted": torch.tensor(True), "step": torch.tensor(7), "mel_spec.mel_stft.window": torch.ones(3)}
    save_file({**stored(weights), **extra}, weights.checkpoint)
    return weights


def half_checkpoint(weights: F5Weights) -> F5Weights:
    """With rotary frequencies as a half-precision export has them, and all else unharmed."""
    tensors = stored(weights)
    name = "ema_model.transformer.rotary_embed.inv_freq"
    save_file({**tensors, name: tensors[name].half()}, weights.checkpoint)
    return weights


@pytest.mark.parametrize("convert", [without_prefix, with_averaging, half_checkpoint])
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


def test_the_published_vocos_is_the_only_pickle_that_is_opened(
    weights: F5Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytorch_model.bin decodes the same as model.safetensors where its sha256 is the pinned one, else is refused."""
    mel = torch.randn(1, 100, 20, generator=torch.Generator().manual_seed(0))
    expected = load(weights).decode(mel)
    stored_as_bin = weights.vocoder / "pytorch_model.bin"
    torch.save(load_file(weights.vocoder / "model.safetensors"), stored_as_bin)
    (weights.vocoder / "model.safetensors").unlink()
    with monkeypatch.context() as opened:
        opened.setattr(torch, "load", None)  # to open it would be a TypeError
        with pytest.raises(ModelLoadFailed, match=f"has sha256 {sha256_of(stored_as_bin)}, .* only charactr/vocos"):
            load(weights)
    pinned = replace(checkpoints.VOCOS_WEIGHTS, sha256=sha256_of(stored_as_bin))
    monkeypatch.setattr(checkpoints, "VOCOS_WEIGHTS", pinned)
    assert torch.equal(load(weights).decode(mel), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_precision(weights: F5Weights, dtype: torch.dtype) -> None:
    """The transformer is in the dtype asked for, but positions, times and the vocoder stay in float32."""
    dit, exact = load_upstream(weights, dtype), load_upstream(weights)
    assert dit.transformer_blocks[0].attn.to_q.weight.dtype == dtype
    assert torch.equal(dit.rotary_embed.inv_freq, exact.rotary_embed.inv_freq)
    assert dit.time_embed.time_mlp[0].weight.dtype == torch.float32
    model, mel = load_f5(weights, CPU, dtype, "sdpa"), torch.zeros(1, 100, 20)
    assert model.transformer.dtype == dtype
    assert torch.equal(model.decode(mel), load(weights).decode(mel))


def test_a_vocoder_in_half_precision_is_used_in_single(weights: F5Weights) -> None:
    """What is stored takes the place of what was there; its dtype does not."""
    path = weights.vocoder / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path)
    assert load(weights).decode(torch.zeros(1, 100, 20)).dtype == torch.float32


def test_nothing_is_made_up_that_the_checkpoint_has(weights: F5Weights) -> None:
    """Loading draws no random number, and what is in no checkpoint is as upstream makes it."""
    exact, before = random_dit(ARCHITECTURE), torch.get_rng_state()
    dit = load_upstream(weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(tensor.is_meta for tensor in (*dit.parameters(), *dit.buffers()))
    for name, buffer in exact.named_buffers():
        assert torch.equal(dict(dit.named_buffers())[name], buffer)


def test_a_version_follows_what_is_in_the_files(tmp_path: Path) -> None:
    """The same content elsewhere is the same model; one byte of any file, or the architecture, makes it another."""
    weights = write_tiny_f5(tmp_path / "a", letters="abc")
    version = content_version(weights)
    assert re.fullmatch("[0-9a-f]{16}", version)
    assert load(weights).version == version
    assert content_version(write_tiny_f5(tmp_path / "b", letters="abc")) == version
    assert content_version(replace(weights, architecture={**weights.architecture, "heads": 1})) != version
    seen = {version}
    for path in (weights.checkpoint, weights.vocab, *sorted(weights.vocoder.iterdir())):
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        seen.add(content_version(weights))
        path.write_bytes(before)
    assert len(seen) == 5
    assert content_version(weights) == version


def test_a_preset_is_the_same_model_as_its_sizes(weights: F5Weights) -> None:
    """Its name is not part of the version, and v1_base is another model than base, of the same files."""
    versions = [content_version(replace(weights, architecture=a)) for a in ("base", sizes("base"), "v1_base")]
    assert versions[0] == versions[1] != versions[2]


def test_a_digest_that_is_known_is_not_computed(weights: F5Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the files are read of which nobody knows it, and the version is the same."""
    version, read = content_version(weights), []
    monkeypatch.setattr(load_module, "sha256_of", lambda path: (read.append(path.name), sha256_of(path))[1])
    known = {weights.checkpoint: sha256_of(weights.checkpoint)}
    assert content_version(replace(weights, sha256=known)) == version
    assert read == ["config.yaml", "model.safetensors", "vocab.txt"]
    assert content_version(replace(weights, sha256={weights.checkpoint: "0" * 64})) != version


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


def test_a_broken_flash_attn_does_not_end_a_start_that_does_without_it(tmp_path: Path) -> None:
    """Upstream imports flash_attn wherever it is installed; it is left alone until it is the path taken."""
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn" / "__init__.py").write_text("raise OSError('undefined symbol')")
    script = (
        "import sys, serve_app.engine.load as load; load.import_f5_tts(); "
        "import f5_tts.model.modules; print('flash_attn' in sys.modules); "
        "from serve_app.engine.attention import attention; attention(sys.argv[1])"
    )
    env = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    run = [
        subprocess.run([sys.executable, "-c", script, path], env=env, capture_output=True, text=True, check=False)
        for path in ("sdpa", "flash_attn")
    ]
    assert (run[0].stdout, run[0].returncode) == ("False\n", 0), run[0].stderr
    assert "undefined symbol" in run[1].stderr
