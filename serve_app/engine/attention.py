"""Two ways to attend within the items of a padded batch, behind one signature.

    query, key, value (rows, frames, heads, dim_head) + Layout -> (rows, frames, heads, dim_head)

`sdpa` is torch's scaled_dot_product_attention, with a mask where there is padding; on a CPU without padding the same is
computed head by head with oneDNN's products, in half to four fifths of the time. `flash_attn` reads the batch as one
sequence of all rows with boundaries after each item and each stretch of padding (flash_attn's "varlen" form), so that
nothing is masked and no item pays for the padding beside it. Both give the same; what stands in padding is not defined.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from serve_app.engine.hardware import AttentionPath, on_device
from serve_app.engine.linear import make_linear, packs

__all__ = ["Attend", "Layout", "attention"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the items of a padded batch end.

    `valid`: which frames are not padding, (rows, frames), bool; None where there is no padding, because a mask keeps
    attention from its fast kernels. `boundaries`: where each item and each stretch of padding ends in the flattened
    batch, (2 * rows + 1,), int32, from 0 on. `bias`: what `valid` adds to scores, (rows, 1, 1, frames), see `biased`.
    Holds tensors only, so that a captured CUDA graph can be given others.
    """

    valid: Tensor | None
    boundaries: Tensor
    bias: Tensor | None = None

    @classmethod
    def of(cls, frames: Sequence[int], padded_to: int, device: torch.device) -> "Layout":
        """Rows of these `frames`, each padded to `padded_to`."""
        ends = [end for row, n in enumerate(frames) for end in (row * padded_to + n, (row + 1) * padded_to)]
        boundaries = torch.tensor([0, *ends], dtype=torch.int32)
        valid = torch.arange(padded_to) < torch.tensor(frames)[:, None]
        padded = min(frames) < padded_to
        return cls(on_device(valid, device) if padded else None, on_device(boundaries, device))

    def biased(self, dtype: torch.dtype) -> "Layout":
        """With `bias` in `dtype`, so that not every attention makes its own of the mask."""
        if self.valid is None:
            return self
        bias = torch.zeros_like(self.valid, dtype=dtype).masked_fill_(~self.valid, float("-inf"))
        return replace(self, bias=bias[:, None, None, :])

    def silenced(self, hidden: Tensor) -> Tensor:
        """`hidden` (rows, frames, dim) with zeros where padding is, be it NaN there."""
        return hidden if self.valid is None else hidden.masked_fill(~self.valid[:, :, None], 0.0)


Attend = Callable[[Tensor, Tensor, Tensor, Layout], Tensor]

HEAD_QUERIES = 1024
"""Queries of one head that are scored at once: the scores of 1024 by 2800 frames are 11 MB and stay near the cache."""


def attention(path: AttentionPath) -> Attend:
    """The function for `path`. Raises ImportError where flash_attn is asked for and not installed."""
    if path == "sdpa":
        return _sdpa
    varlen = importlib.import_module("flash_attn").flash_attn_varlen_func

    def flash(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        rows, frames = query.shape[:2]
        flat = (x.flatten(0, 1) for x in (query, key, value))
        attended: Tensor = varlen(*flat, layout.boundaries, layout.boundaries, frames, frames)
        unflattened: Tensor = attended.unflatten(0, (rows, frames))
        return unflattened

    return flash


def _sdpa(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    if layout.bias is None and packs(query.device, query.dtype):
        return _by_head(query, key, value)
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))  # heads first
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=layout.bias).transpose(1, 2)


def _by_head(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """On the CPU. Scores are in float32, for in half precision those of a sharp head would be far off."""
    scaled = query.float() * (1 / math.sqrt(query.shape[-1]))
    queries, keys = (x.transpose(1, 2).flatten(0, 1).contiguous() for x in (scaled, key.float()))
    values = value.permute(0, 2, 3, 1).flatten(0, 1).contiguous()  # (rows * heads, dim_head, frames)
    attended = torch.empty_like(value, memory_format=torch.contiguous_format)
    for index, (q, k, v) in enumerate(zip(queries, keys, values, strict=True)):
        row, head = divmod(index, query.shape[2])
        to_keys, to_values = make_linear(k), make_linear(v)
        for start in range(0, len(q), HEAD_QUERIES):
            weights = to_keys(q[start : start + HEAD_QUERIES]).softmax(-1).to(value.dtype)
            attended[row, start : start + HEAD_QUERIES, head] = to_values(weights)
    return attended
