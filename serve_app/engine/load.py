"""Loads F5-TTS from files: the transformer, its vocabulary, the mel front end and the Vocos vocoder.

    F5Weights (paths, architecture) -> DiT <- checkpoint -> Transformer -> F5Model (on a device, in a precision)

The modules are upstream's. A file that is missing, or does not fit the others, is a ModelLoadFailed that
names it. Knows nothing of where the files came from.
"""

import hashlib
import importlib
import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from env_setup.wheels import sha256_of
from serve_app.engine.architecture import PRESETS, Architecture, sizes
from serve_app.engine.attention import attention
from serve_app.engine.checkpoints import existing, read_checkpoint, read_pinned_vocos, read_safetensors
from serve_app.engine.hardware import AttentionPath
from serve_app.engine.linear import pack_linears
from serve_app.engine.transformer import Transformer
from serve_app.errors import ModelLoadFailed

__all__ = ["F5Model", "F5Weights", "import_f5_tts", "load_dit", "load_f5", "load_vocab"]

TRAINER = "f5_tts.model.trainer"
HOP_SAMPLES = 256
N_MELS = 100
SAFE_VOCODER = "model.safetensors"
ROTARY = "rotary_embed.inv_freq"
VOCAB_REMEDY = "give models[].vocab and models[].architecture as the checkpoint was trained with"


@dataclass(frozen=True, slots=True)
class F5Weights:
    """Files of one F5-TTS model.

    `checkpoint`: `.safetensors`. `vocoder`: directory with config.yaml and model.safetensors, or the published
    pytorch_model.bin. `vocab`: None for the one in the f5-tts wheel (2545 entries). `architecture`: see `sizes`.
    `sha256`: of those files whose digest is known, so that they need not be read for it.
    """

    checkpoint: Path
    vocoder: Path
    vocab: Path | None = None
    architecture: Architecture = "v1_base"
    sha256: Mapping[Path, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class F5Model:
    """A loaded model.

    `mel`: waveforms (batch, samples) to mels (batch, n_mels, frames), on the CPU. `decode`: mels to
    waveforms, on the device. `tokenize`: texts to lists of tokens, `vocab`: a token to its id. Mel and
    vocoder are in float32. `version`: see `content_version`.
    """

    transformer: Transformer
    mel: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    tokenize: Callable[[list[str]], list[list[str]]]
    vocab: Mapping[str, int]
    version: str


def load_f5(weights: F5Weights, device: torch.device, dtype: torch.dtype, path: AttentionPath) -> F5Model:
    """Load the model of `weights` onto `device`, its transformer in `dtype`. Raises ModelLoadFailed."""
    vocab = load_vocab(weights)
    dit = load_dit(weights, vocab, device, dtype)
    from f5_tts.model.modules import MelSpec
    from f5_tts.model.utils import convert_char_to_pinyin

    vocoder = _load_vocoder(weights.vocoder).to(device)
    transformer = Transformer(dit, attention(path))
    for module in (vocoder, dit.text_embed):
        pack_linears(module)
    # MelSpec with upstream's defaults, which all of its presets share: 24 kHz, 100 mels, a hop of 256.
    version = content_version(weights)
    return F5Model(transformer, MelSpec(), vocoder.decode, convert_char_to_pinyin, vocab, version)


def content_version(weights: F5Weights) -> str:
    """16 hex digits that change with the content of any file and with the architecture, and not with where files lie.

    Reads the files whose sha256 is not known: a second for each gigabyte.
    """
    config, vocoder = _vocoder_files(weights.vocoder)
    used = {"checkpoint": weights.checkpoint, "config": config, "vocoder": vocoder, "vocab": _vocab_path(weights)}
    digests = {role: weights.sha256.get(path) or sha256_of(path) for role, path in used.items()}
    told = json.dumps([digests, sizes(weights.architecture)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def load_vocab(weights: F5Weights) -> Mapping[str, int]:
    """A token to its id. Raises ModelLoadFailed."""
    import_f5_tts()
    from f5_tts.model.utils import get_tokenizer

    vocab: Mapping[str, int] = get_tokenizer(str(existing("vocab", _vocab_path(weights))), "custom")[0]
    return vocab


def load_dit(weights: F5Weights, vocab: Mapping[str, int], device: torch.device, dtype: torch.dtype) -> Any:
    """Upstream's DiT with the checkpoint's parameters, on `device` and in `dtype`. Raises ModelLoadFailed.

    Its rotary frequencies and its time embedding stay in float32: half precision is too coarse for angles.
    """
    import_f5_tts()
    checkpoint = existing("source", weights.checkpoint)
    dit = _build_dit(weights.architecture, text_num_embeds=len(vocab))
    named = f"architecture {_named(weights.architecture)} with the {len(vocab)} entries of {_vocab_path(weights)}"
    _fill(dit, read_checkpoint(checkpoint), checkpoint, named, VOCAB_REMEDY)
    inv_freq = dit.rotary_embed.inv_freq
    dit = dit.eval().requires_grad_(False).to(device=device, dtype=dtype)
    dit.rotary_embed.inv_freq = inv_freq.to(device)
    dit.time_embed.float()
    return dit


def _vocab_path(weights: F5Weights) -> Path:
    return weights.vocab or Path(str(files("f5_tts").joinpath("infer/examples/vocab.txt")))


def import_f5_tts() -> None:
    """Import `f5_tts.model` without its training half and without flash_attn.

    `f5_tts/model/__init__.py` imports the trainer, and with it wandb, accelerate, datasets and pandas: 1.8 s
    and 130 MB that inference has no use for, and packages that our lock leaves out. An empty module stands in
    for the trainer during the import and is taken out again, so that `import f5_tts.model.trainer` still
    finds the real one; a trainer or package that is already imported is left alone. Upstream imports flash_attn
    wherever it is installed, so one that is broken, or of no use on this device, would end a start that does without
    it: it is hidden for that moment, and `attention.py` calls it where it is the path taken. Raises ModelLoadFailed.
    """
    if TRAINER in sys.modules or "f5_tts.model" in sys.modules:
        return
    stand_in = types.ModuleType(TRAINER, "Stands in for upstream's trainer while f5_tts.model is imported.")
    vars(stand_in)["Trainer"] = None  # the name that f5_tts.model takes from it
    hidden: dict[str, types.ModuleType | None] = {TRAINER: stand_in, "flash_attn": None}  # None: not installed
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


def _build_dit(architecture: Architecture, text_num_embeds: int) -> Any:
    """A DiT without parameters: the checkpoint's take their place, so none are made up first."""
    from f5_tts.model.backbones.dit import DiT
    from f5_tts.model.modules import precompute_freqs_cis
    from x_transformers.x_transformers import RotaryEmbedding

    try:
        with torch.device("meta"):
            dit = DiT(**sizes(architecture), text_num_embeds=text_num_embeds, mel_dim=N_MELS)
        if dit.long_skip_connection is not None:
            raise ValueError("long_skip_connection, which no preset has, is not computed here")
    except (KeyError, TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ModelLoadFailed(
            f"models[].architecture {_named(architecture)} does not describe a DiT of the installed f5-tts "
            f"({type(error).__name__}: {error}): use one of {', '.join(PRESETS)}, or the sizes that the checkpoint "
            "was trained with"
        ) from error
    text = dit.text_embed  # what is in no checkpoint, because it follows from the sizes
    if text.extra_modeling:
        text.freqs_cis = precompute_freqs_cis(text.text_embed.embedding_dim, text.precompute_max_pos)
    dit.rotary_embed = RotaryEmbedding(2 * len(dit.rotary_embed.inv_freq))
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
    module.load_state_dict({key: value for key, value in state.items() if key != ROTARY}, strict=False, assign=True)


def _shape(shapes: Mapping[str, torch.Size], name: str) -> str:
    return str(tuple(shapes[name])) if name in shapes else "absent"


def _vocoder_files(directory: Path) -> tuple[Path, Path]:
    """Its configuration and its weights. Raises ModelLoadFailed."""
    config, weights, pinned = (directory / name for name in ("config.yaml", SAFE_VOCODER, "pytorch_model.bin"))
    if not config.is_file() or not (weights.is_file() or pinned.is_file()):
        raise ModelLoadFailed(
            f"models[].vocoder is {str(directory)!r}, which is not a directory with config.yaml and one of "
            f"{weights.name}, {pinned.name}: put charactr/vocos-mel-24khz there"
        )
    return config, weights if weights.is_file() else pinned


def _load_vocoder(directory: Path) -> Any:
    """Vocos in float32, as upstream's `load_vocoder` has it."""
    from vocos import Vocos

    config, path = _vocoder_files(directory)
    try:
        vocoder = Vocos.from_hparams(str(config))
        if vocoder.head.istft.hop_length != HOP_SAMPLES:
            raise ValueError(f"hop_length is {vocoder.head.istft.hop_length}")
    except Exception as error:  # the file names classes and their arguments, so it can fail in any way
        raise ModelLoadFailed(
            f"models[].vocoder: {config} does not describe a Vocos with an ISTFTHead and a hop of {HOP_SAMPLES} "
            f"({type(error).__name__}: {error}): use the config.yaml of charactr/vocos-mel-24khz"
        ) from error
    read = read_safetensors if path.name == SAFE_VOCODER else read_pinned_vocos
    _fill(vocoder, read(path), path, str(config), "give both files from one source")
    return vocoder.eval().requires_grad_(False).float()
