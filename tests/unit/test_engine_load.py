"""A model loads alike from every form of its files, onto what there is; what does not fit is refused by name."""

import re
import subprocess
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

from env_setup.wheels import sha256_of
from serve_app.engine import checkpoints
from serve_app.engine import load as load_module
from serve_app.engine.architecture import PRESETS, sizes
from serve_app.engine.hardware import AttentionChoice, choose_attention, choose_device, choose_dtype
from serve_app.engine.load import F5Model, F5Weights, content_version, import_f5_tts, load_dit, load_f5, load_vocab
from serve_app.errors import ModelLoadFailed
from tests.support.tiny_f5 import ARCHITECTURE, random_dit, write_tiny_f5

import_f5_tts()
from f5_tts.model.modules import MelSpec  # noqa: E402 - without upstream's trainer, see import_f5_tts

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


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


@pytest.mark.parametrize(("preset", "dim", "depth"), [("v1_base", 1024, 22), ("v1_small", 768, 18), ("base", 1024, 22)])
def test_presets_are_upstreams(preset: str, dim: int, depth: int) -> None:
    """A preset has the sizes of upstream's yaml, and the two base models differ in what no tensor shows."""
    found = sizes(preset)
    shipped = yaml.safe_load(files("f5_tts").joinpath(f"configs/{PRESETS[preset]}.yaml").read_text())["model"]
    assert found.items() <= shipped["arch"].items()
    assert (found["dim"], found["depth"], found["text_mask_padding"]) == (dim, depth, preset != "base")
    assert shipped["mel_spec"] == {key: getattr(MelSpec(), key, value) for key, value in shipped["mel_spec"].items()}


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
