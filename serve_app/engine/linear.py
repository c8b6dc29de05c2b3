"""Linear layers arranged for inference on their device.

On a CPU the weights are laid out once for oneDNN, with the activation computed as each result is written: on a 2-core
AVX512 machine 420 GFLOP/s in float32, where torch's own `F.linear` (MKL) reaches 180 and the activation is another pass
over memory. And with weights in this layout a result does not depend on the number of threads, to the bit; MKL's does
where there are few rows, and oneDNN's own does for weights that are not laid out.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Linear", "make_linear", "pack_linears", "packs"]

Linear = Callable[[Tensor], Tensor]
"""(..., in_features) -> (..., out_features)."""

Activation = tuple[str, list[float], str]
"""Name, numbers and form, as oneDNN's operator takes them."""


def packs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether weights of `dtype` on `device` are laid out for oneDNN: the operators are those of torch's Inductor. In
    bfloat16 they refuse a CPU without AVX512 (or AVX-NE-CONVERT)."""
    if device.type != "cpu" or not (
        torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def make_linear(weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> Linear:
    """x -> x W^T + b, with GELU (its tanh form) on top where `gelu`; `weight` is (out_features, in_features)."""
    if not packs(weight.device, weight.dtype):
        return partial(_gelu_linear if gelu else functional.linear, weight=weight, bias=bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    activation: Activation = ("gelu", [], "tanh") if gelu else ("none", [], "")
    return partial(_packed_linear, weight=packed, bias=bias, activation=activation)


def pack_linears(module: nn.Module) -> None:
    """Put the packed form in place of every nn.Linear within `module`, where there is one; it is for inference only."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and packs(child.weight.device, child.weight.dtype):
                setattr(parent, name, _Packed(make_linear(child.weight, child.bias)))


class _Packed(nn.Module):
    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self._linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return self._linear(x)


def _gelu_linear(x: Tensor, *, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.gelu(functional.linear(x, weight, bias), approximate="tanh")


def _packed_linear(x: Tensor, *, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, *activation)
    return result
