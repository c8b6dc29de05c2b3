"""Loads F5-TTS from files: the transformer, its vocabulary, the mel front end and the Vocos vocoder.

    F5Weights (paths) -> config -> DiT <- checkpoint -> F5Model (on a device, in a precision)

The modules are upstream's. A file that is missing, or does not fit the others, is a ModelLoadFailed that
names it. Knows nothing of where the files came from.
"""

import importlib
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from serve_app.domain import SAMPLE_RATE_HZ
from serve_app.engine.attention import AttentionPath
from serve_app.engine.sampler import Transformer
from serve_app.errors import ModelLoadFailed

__all__ = ["F5Model", "F5Weights", "import_f5_tts", "load_f5"]

TRAINER = "f5_tts.model.trainer"
SUPPORTED = {
    "backbone": "DiT",
    "mel_spec_type": "vocos",
    "target_sample_rate": SAMPLE_RATE_HZ,
    "hop_length": 256,
}
VOCODER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
ROTARY = "rotary_embed.inv_freq"


@dataclass(frozen=True, slots=True)
class F5Weights:
    """Files of one F5-TTS model.

    `checkpoint`: `.safetensors`, or a `.pt` of upstream's trainer. `vocoder`: directory with config.yaml and
    model.safetensors or pytorch_model.bin. `vocab`: None for the one in the f5-tts wheel (2545 entries).
    `config`: yaml in upstream's layout (`model.arch`, `model.mel_spec`); None for F5TTS_v1_Base.
    """

    checkpoint: Path
    vocoder: Path
    vocab: Path | None = None
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class F5Model:
    """A loaded model.

    `mel`: waveforms (batch, samples) to mels (batch, n_mels, frames), on the CPU. `decode`: mels to
    waveforms, on the device. `tokenize`: texts to lists of tokens, `vocab`: a token to its id. Mel and
    vocoder are in float32.
    """

    dit: Transformer
    mel: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    tokenize: Callable[[list[str]], list[list[str]]]
    vocab: Mapping[str, int]


def load_f5(weights: F5Weights, device: torch.device, dtype: torch.dtype, attention: AttentionPath) -> F5Model:
    """Load the model of `weights` onto `device`, its transformer in `dtype`. Raises ModelLoadFailed."""
    import_f5_tts()
    from f5_tts.model.utils import convert_char_to_pinyin, get_tokenizer

    config = _file("config", weights.config or _packaged("configs/F5TTS_v1_Base.yaml"))
    vocab_path = _file("vocab", weights.vocab or _packaged("infer/examples/vocab.txt"))
    checkpoint = _file("checkpoint", weights.checkpoint)
    arch, mel = _read_config(config)
    vocab, _ = get_tokenizer(str(vocab_path), "custom")
    state = _read_checkpoint(checkpoint)
    _check_vocab(state, vocab, vocab_path, checkpoint)
    arch |= {"text_num_embeds": len(vocab), "mel_dim": mel.n_mel_channels}
    dit = _build_dit(arch, attention, config)
    _fill(dit, state, checkpoint, config)
    decode = _load_vocoder(weights.vocoder).to(device).decode
    return F5Model(_place(dit, device, dtype), mel, decode, convert_char_to_pinyin, vocab)


def import_f5_tts() -> None:
    """Import `f5_tts.model` without its training half.

    `f5_tts/model/__init__.py` imports the trainer, and with it wandb, accelerate, datasets and pandas: 1.8 s
    and 130 MB that inference has no use for, and packages that our lock leaves out. An empty module stands in
    for the trainer during the import and is taken out again, so that `import f5_tts.model.trainer` still
    finds the real one; a trainer or package that is already imported is left alone. Raises ModelLoadFailed.
    """
    if TRAINER in sys.modules or "f5_tts.model" in sys.modules:
        return
    stand_in = types.ModuleType(TRAINER, "Stands in for upstream's trainer while f5_tts.model is imported.")
    vars(stand_in)["Trainer"] = None  # the name that f5_tts.model takes from it
    sys.modules[TRAINER] = stand_in
    try:
        importlib.import_module("f5_tts.model")
    except (ImportError, OSError) as error:  # OSError: a library that was built for another torch
        raise ModelLoadFailed(f"f5-tts cannot be imported ({error}): install the f5 extra with its lock") from error
    finally:
        del sys.modules[TRAINER]


def _packaged(name: str) -> Path:
    return Path(str(files("f5_tts").joinpath(name)))


def _file(field: str, path: Path) -> Path:
    if not path.is_file():
        raise ModelLoadFailed(f"weights.{field} is {str(path)!r}, and there is no such file on this node")
    return path


def _read_config(path: Path) -> tuple[dict[str, Any], Any]:
    """`model.arch` of an upstream yaml, and the MelSpec of `model.mel_spec`; refuses what cannot be run."""
    from f5_tts.model.modules import MelSpec

    try:
        model = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]
        arch, mel = dict(model["arch"]), MelSpec(**model["mel_spec"])
        found = {key: {**model, **model["mel_spec"]}[key] for key in SUPPORTED}
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, AssertionError) as error:
        raise ModelLoadFailed(
            f"weights.config {path} is not in upstream's layout ({type(error).__name__}: {error}): "
            "it needs model.backbone, model.arch and model.mel_spec, as in F5TTS_v1_Base.yaml"
        ) from error
    if found != SUPPORTED:
        raise ModelLoadFailed(f"weights.config {path} has {found}: only {SUPPORTED} can be run")
    return arch, mel


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Parameters of the transformer by upstream's names: the averaged (EMA) ones, which are for inference."""
    loaded = _read(path)
    if path.suffix != ".safetensors":
        if "ema_model_state_dict" not in loaded:
            raise ModelLoadFailed(
                f"weights.checkpoint {path} has {sorted(loaded)[:5]} and no 'ema_model_state_dict': "
                "give a .safetensors file, or a .pt of upstream's trainer with its EMA parameters"
            )
        loaded = loaded["ema_model_state_dict"]
    # `initted` and `step` belong to the averaging, mel_spec.* to old checkpoints that stored the mel filters.
    names = {key: key.removeprefix("ema_model.") for key in loaded if key not in ("initted", "step")}
    return {
        name.removeprefix("transformer."): loaded[key]
        for key, name in names.items()
        if not name.startswith("mel_spec.")
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # the parsers raise many types, and each means the same: not such a file
        raise ModelLoadFailed(
            f"{path} cannot be read as what its name says ({type(error).__name__}: {error}): "
            "it is damaged or of another format, so fetch it again"
        ) from error


def _check_vocab(state: Mapping[str, Tensor], vocab: Mapping[str, int], path: Path, checkpoint: Path) -> None:
    table = state.get("text_embed.text_embed.weight")
    if table is not None and len(table) != len(vocab) + 1:  # one more: the filler token
        raise ModelLoadFailed(
            f"weights.vocab {path} has {len(vocab)} entries, and weights.checkpoint {checkpoint} was trained "
            f"with {len(table) - 1}: give the vocab.txt that came with the checkpoint"
        )


def _build_dit(arch: Mapping[str, Any], attention: AttentionPath, config: Path) -> Any:
    from f5_tts.model.backbones.dit import DiT

    # The mask is enabled after construction: enabling it there makes upstream warn once per block.
    ours = {"attn_backend": "torch" if attention == "sdpa" else attention, "attn_mask_enabled": False}
    try:
        dit = DiT(**{**arch, **ours})
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ModelLoadFailed(
            f"weights.config {config}: model.arch does not describe a DiT of the installed f5-tts ({error}): "
            "give the config that the checkpoint was trained with"
        ) from error
    for block in dit.transformer_blocks:
        block.attn.processor.attn_mask_enabled = True
    return dit


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: Path, config: Path) -> None:
    """Load `state` of `path` into the `module` that `config` describes: all of it and nothing else."""
    # Rotary frequencies follow from the config; what a half-precision checkpoint has of them is too coarse.
    wanted = {key: value for key, value in module.state_dict().items() if key != ROTARY}
    given = {key: value for key, value in state.items() if key != ROTARY}
    misfits = {
        "missing": wanted.keys() - given.keys(),
        "unknown": given.keys() - wanted.keys(),
        "of another shape": {k for k in wanted.keys() & given.keys() if wanted[k].shape != given[k].shape},
    }
    if found := [f"{len(keys)} parameters {how} (like {min(keys)})" for how, keys in misfits.items() if keys]:
        raise ModelLoadFailed(f"{path} does not fit {config} ({', '.join(found)}): give both from one source")
    module.load_state_dict(given, strict=False)


def _place(dit: Any, device: torch.device, dtype: torch.dtype) -> Transformer:
    """Move `dit` to `device` and `dtype`, but keep positions and times in float32.

    Half precision is too coarse for them: the rotated query of frame 1400 is 4.8 % off in float16 and 38 % in
    bfloat16, and a time t enters as angles up to 1000 t.
    """
    inv_freq = dit.rotary_embed.inv_freq.clone()
    dit = dit.eval().requires_grad_(False).to(device=device, dtype=dtype)
    dit.rotary_embed.inv_freq = inv_freq.to(device)
    dit.time_embed.float().register_forward_hook(lambda _module, _inputs, output: output.to(dtype))
    return cast(Transformer, dit)


def _load_vocoder(directory: Path) -> Any:
    """Vocos in float32, as upstream's `load_vocoder` has it."""
    from vocos import Vocos

    config = directory / "config.yaml"
    weights = [directory / name for name in VOCODER_WEIGHTS if (directory / name).is_file()]
    if not config.is_file() or not weights:
        raise ModelLoadFailed(
            f"weights.vocoder is {str(directory)!r}, which is not a directory with config.yaml and one of "
            f"{', '.join(VOCODER_WEIGHTS)}: put charactr/vocos-mel-24khz there"
        )
    try:
        vocoder = Vocos.from_hparams(str(config))
        if vocoder.head.istft.hop_length != SUPPORTED["hop_length"]:
            raise ValueError(f"hop_length is {vocoder.head.istft.hop_length}")
    except Exception as error:  # the file names classes and their arguments, so it can fail in any way
        raise ModelLoadFailed(
            f"weights.vocoder: {config} does not describe a Vocos with an ISTFTHead and a hop of 256 "
            f"({type(error).__name__}: {error}): use the config.yaml of charactr/vocos-mel-24khz"
        ) from error
    _fill(vocoder, _read(weights[0]), weights[0], config)
    return vocoder.eval().requires_grad_(False)
