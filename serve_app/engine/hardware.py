"""Chooses, once per replica, what the model runs on: device, precision and the attention path.

Knows nothing of the model: `load.py` builds it for what was chosen here. The reason is for `/health`.
"""

import importlib
from dataclasses import dataclass
from typing import Literal

import torch

from serve_app.errors import ModelLoadFailed

__all__ = [
    "AttentionChoice",
    "AttentionPath",
    "AttentionRequest",
    "DtypeRequest",
    "choose_attention",
    "choose_device",
    "choose_dtype",
    "on_device",
]

DtypeRequest = Literal["auto", "float32", "float16", "bfloat16"]
AttentionPath = Literal["sdpa", "flash_attn"]
AttentionRequest = Literal["auto", "sdpa", "flash_attn"]

FLOAT16_CAPABILITY = (7, 0)
"""The oldest GPU generation (Volta) that is fast at float16: upstream's condition in `load_checkpoint`."""
FLASH_CAPABILITY = (8, 0)
"""The oldest GPU generation (Ampere) that flash_attn 2 has kernels for."""


@dataclass(frozen=True, slots=True)
class AttentionChoice:
    """The path taken, and why: `sdpa` is torch's own scaled_dot_product_attention."""

    path: AttentionPath
    reason: str


def choose_device(requested: str) -> torch.device:
    """The device for "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N". Raises ModelLoadFailed."""
    available = torch.cuda.device_count()
    if requested == "auto":
        return torch.device("cuda" if available else "cpu")
    try:
        device = torch.device(requested)
    except RuntimeError as error:
        raise ModelLoadFailed(f"device is {requested!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ModelLoadFailed(f"device is {requested!r}: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= available:
        raise ModelLoadFailed(
            f"device is {requested!r}, but torch {torch.__version__} sees {available} CUDA devices here: "
            "start the replica on a node with a GPU (num_gpus), or set device to auto or cpu"
        )
    return device


def choose_dtype(requested: DtypeRequest, device: torch.device) -> torch.dtype:
    """The precision of the transformer; "auto" is float16 on a GPU that is fast at it, else float32.

    As upstream has it. bfloat16 rounds eight times as coarsely, but cannot overflow.
    """
    if requested != "auto":
        return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[requested]
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= FLOAT16_CAPABILITY
    return torch.float16 if fast else torch.float32


def choose_attention(requested: AttentionRequest, device: torch.device, dtype: torch.dtype) -> AttentionChoice:
    """The attention path for a model of `dtype` on `device`.

    "auto" takes flash_attn where it fits and otherwise SDPA, with what stood in the way as the reason. Raises
    ModelLoadFailed when flash_attn is asked for by name where it does not fit.
    """
    if requested == "sdpa":
        return AttentionChoice("sdpa", "attention is set to sdpa")
    obstacle = _obstacle(device, dtype)
    if obstacle is None:
        return AttentionChoice("flash_attn", f"flash_attn fits {dtype} on {device}")
    if requested == "flash_attn":
        raise ModelLoadFailed(f"attention is 'flash_attn', but {obstacle}: mend that, or set attention to auto or sdpa")
    return AttentionChoice("sdpa", obstacle)


def _obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why flash_attn cannot be used here; None if it can."""
    if device.type != "cuda":
        return f"flash_attn needs a CUDA device and the device is {device}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"flash_attn needs float16 or bfloat16 and the dtype is {dtype}"
    capability = torch.cuda.get_device_capability(device)
    if capability < FLASH_CAPABILITY:
        return f"flash_attn needs compute capability 8.0 and {device} has {capability[0]}.{capability[1]}"
    try:
        importlib.import_module("flash_attn")
    except Exception as error:  # absent, or built for another torch, CUDA or C++ ABI: each fails in its own way
        return f"flash_attn cannot be imported ({type(error).__name__}: {error})"
    return None


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor`, which is on the CPU, on `device`; from pinned memory, so that the copy does not wait for the device."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
