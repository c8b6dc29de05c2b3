"""The shape of a DiT: one of upstream's presets, or explicit sizes by upstream's names (`model.arch` of its yaml).

Presets are read from the f5-tts wheel, so they are upstream's own. The tensors of v1_base and base have the same
shapes, but are masked and rotated differently: nothing but the name tells them apart.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

__all__ = ["PRESETS", "Architecture", "sizes"]

Architecture = str | Mapping[str, Any]

PRESETS = {"v1_base": "F5TTS_v1_Base", "v1_small": "F5TTS_v1_Small", "base": "F5TTS_Base"}
RUNTIME_CHOICES = ("attn_backend", "attn_mask_enabled", "checkpoint_activations")
"""Keys of upstream's files that say how to run a model, not what it is."""


def sizes(architecture: Architecture) -> dict[str, Any]:
    """Arguments of upstream's `DiT` for a preset's name, or for explicit sizes these themselves.

    Raises KeyError for another name.
    """
    if not isinstance(architecture, str):
        return dict(architecture)
    text = files("f5_tts").joinpath(f"configs/{PRESETS[architecture]}.yaml").read_text(encoding="utf-8")
    arch = yaml.safe_load(text)["model"]["arch"]
    return {key: value for key, value in arch.items() if key not in RUNTIME_CHOICES}
