"""What a model runs on: what is asked for by name must be there, and "auto" takes what is."""

import sys
import types

import pytest
import torch

from serve_app.engine.hardware import AttentionChoice, choose_attention, choose_device, choose_dtype
from serve_app.errors import ModelLoadFailed

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


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
