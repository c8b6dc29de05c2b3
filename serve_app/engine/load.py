"""Loads F5-TTS from files: the transformer, its vocabulary, the mel front end and the Vocos vocoder.

    F5Weights (paths, architecture) -> DiT <- checkpoint -> F5Model (on a device, in a precision)

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
from safetensors.torch import load_file
from torch import Tensor, nn

from env_setup.pins import VOCOS_WEIGHTS
from env_setup.wheels import sha256_of
from serve_app.engine.architecture import PRESETS, Architecture, sizes
from serve_app.engine.attention import AttentionPath
from serve_app.engine.sampler import Transformer
from serve_app.errors import ModelLoadFailed

__all__ = ["F5Model", "F5Weights", "import_f5_tts", "load_f5"]

TRAINER = "f5_tts.model.trainer"
HOP_SAMPLES = 256
ROTARY = "rotary_embed.inv_freq"
VOCAB_REMEDY = "give models[].vocab and models[].architecture as the checkpoint was trained with"


@dataclass(frozen=True, slots=True)
class F5Weights:
    """Files of one F5-TTS model.

    `checkpoint`: `.safetensors`. `vocoder`: directory with config.yaml and model.safetensors, or the published
    pytorch_model.bin. `vocab`: None for the one in the f5-tts wheel (2545 entries). `architecture`: see `sizes`.
    """

    checkpoint: Path
    vocoder: Path
    vocab: Path | None = None
    architecture: Architecture = "v1_base"


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
    import_f5_tts(attention)
    from f5_tts.model.modules import MelSpec
    from f5_tts.model.utils import convert_char_to_pinyin, get_tokenizer

    vocab_path = _file("vocab", weights.vocab or Path(str(files("f5_tts").joinpath("infer/examples/vocab.txt"))))
    checkpoint = _file("source", weights.checkpoint)
    vocab, _ = get_tokenizer(str(vocab_path), "custom")
    mel = MelSpec()  # upstream's defaults, which all of its presets share: 24 kHz, 100 mels, a hop of 256
    dit = _build_dit(weights.architecture, attention, text_num_embeds=len(vocab), mel_dim=mel.n_mel_channels)
    model = f"architecture {_named(weights.architecture)} with the {len(vocab)} entries of {vocab_path}"
    _fill(dit, _read_checkpoint(checkpoint), checkpoint, model, VOCAB_REMEDY)
    decode = _load_vocoder(weights.vocoder).to(device).decode
    return F5Model(_place(dit, device, dtype), mel, decode, convert_char_to_pinyin, vocab)


def import_f5_tts(attention: AttentionPath = "sdpa") -> None:
    """Import `f5_tts.model` without its training half, and without flash_attn where that is not the path taken.

    `f5_tts/model/__init__.py` imports the trainer, and with it wandb, accelerate, datasets and pandas: 1.8 s
    and 130 MB that inference has no use for, and packages that our lock leaves out. An empty module stands in
    for the trainer during the import and is taken out again, so that `import f5_tts.model.trainer` still
    finds the real one; a trainer or package that is already imported is left alone. Upstream imports flash_attn
    wherever it is installed, so one that is broken, or of no use on this device, would end a start that does without
    it: it is hidden for that moment. Raises ModelLoadFailed.
    """
    if TRAINER in sys.modules or "f5_tts.model" in sys.modules:
        return
    stand_in = types.ModuleType(TRAINER, "Stands in for upstream's trainer while f5_tts.model is imported.")
    vars(stand_in)["Trainer"] = None  # the name that f5_tts.model takes from it
    hidden: dict[str, types.ModuleType | None] = {TRAINER: stand_in}
    if attention != "flash_attn":
        hidden["flash_attn"] = None  # to Python: not installed
    before = {name: sys.modules[name] for name in hidden if name in sys.modules}
    sys.modules |= cast("dict[str, types.ModuleType]", hidden)
    try:
        importlib.import_module("f5_tts.model")
    except (ImportError, OSError) as error:  # OSError: a library that was built for another torch
        raise ModelLoadFailed(f"f5-tts cannot be imported ({error}): install the f5 extra with its lock") from error
    finally:
        for name in hidden:
            del sys.modules[name]
        sys.modules |= before


def _file(field: str, path: Path) -> Path:
    if not path.is_file():
        raise ModelLoadFailed(f"models[].{field} is {str(path)!r}, and there is no such file on this node")
    return path


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Parameters of the transformer by upstream's names: the averaged (EMA) ones, which are for inference."""
    loaded = _read_safetensors(path)
    # `initted` and `step` belong to the averaging, mel_spec.* to old checkpoints that stored the mel filters.
    names = {key: key.removeprefix("ema_model.") for key in loaded if key not in ("initted", "step")}
    return {
        name.removeprefix("transformer."): loaded[key]
        for key, name in names.items()
        if not name.startswith("mel_spec.")
    }


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise ModelLoadFailed(
            f"{path} is not a .safetensors file, and other formats can run code when they are opened: save the "
            "checkpoint's ema_model_state_dict with safetensors.torch.save_file, and name that file"
        )
    try:
        return dict(load_file(path))
    except Exception as error:  # the parser raises many types, and each means the same: not such a file
        raise _damaged(path, error) from error


def _read_pinned_vocos(path: Path) -> dict[str, Tensor]:
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


def _build_dit(architecture: Architecture, attention: AttentionPath, **derived: int) -> Any:
    from f5_tts.model.backbones.dit import DiT

    # The mask is enabled after construction: enabling it there makes upstream warn once per block.
    ours = {"attn_backend": "torch" if attention == "sdpa" else attention, "attn_mask_enabled": False}
    try:
        dit = DiT(**{**sizes(architecture), **derived, **ours})
    except (KeyError, TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ModelLoadFailed(
            f"models[].architecture {_named(architecture)} does not describe a DiT of the installed f5-tts "
            f"({type(error).__name__}: {error}): use one of {', '.join(PRESETS)}, or the sizes that the checkpoint "
            "was trained with"
        ) from error
    for block in dit.transformer_blocks:
        block.attn.processor.attn_mask_enabled = True
    return dit


def _named(architecture: Architecture) -> str:
    if isinstance(architecture, str):
        return repr(architecture)
    return "{" + ", ".join(f"{key}: {value}" for key, value in architecture.items()) + "}"


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: Path, model: str, remedy: str) -> None:
    """Load `state` of `path` into the `module` that `model` describes: all of it and nothing else."""
    # Rotary frequencies follow from the sizes; what a half-precision checkpoint has of them is too coarse.
    wanted = {key: value.shape for key, value in module.state_dict().items() if key != ROTARY}
    given = {key: value.shape for key, value in state.items() if key != ROTARY}
    names = [*wanted, *sorted(given.keys() - wanted.keys())]
    if misfits := [name for name in names if wanted.get(name) != given.get(name)]:
        first = misfits[0]
        raise ModelLoadFailed(
            f"{path} does not fit {model}: {first} is {_shape(given, first)} in the file and {_shape(wanted, first)} "
            f"in the model, the first of {len(misfits)} tensors that differ; {remedy}"
        )
    module.load_state_dict({key: value for key, value in state.items() if key != ROTARY}, strict=False)


def _shape(shapes: Mapping[str, torch.Size], name: str) -> str:
    return str(tuple(shapes[name])) if name in shapes else "absent"


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

    config, weights, pinned = (directory / name for name in ("config.yaml", "model.safetensors", "pytorch_model.bin"))
    if not config.is_file() or not (weights.is_file() or pinned.is_file()):
        raise ModelLoadFailed(
            f"models[].vocoder is {str(directory)!r}, which is not a directory with config.yaml and one of "
            f"{weights.name}, {pinned.name}: put charactr/vocos-mel-24khz there"
        )
    try:
        vocoder = Vocos.from_hparams(str(config))
        if vocoder.head.istft.hop_length != HOP_SAMPLES:
            raise ValueError(f"hop_length is {vocoder.head.istft.hop_length}")
    except Exception as error:  # the file names classes and their arguments, so it can fail in any way
        raise ModelLoadFailed(
            f"models[].vocoder: {config} does not describe a Vocos with an ISTFTHead and a hop of {HOP_SAMPLES} "
            f"({type(error).__name__}: {error}): use the config.yaml of charactr/vocos-mel-24khz"
        ) from error
    path, read = (weights, _read_safetensors) if weights.is_file() else (pinned, _read_pinned_vocos)
    _fill(vocoder, read(path), path, str(config), "give both files from one source")
    return vocoder.eval().requires_grad_(False)
