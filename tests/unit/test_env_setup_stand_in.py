"""The stand-in flash_attn that other tests install."""

import hashlib
import sys
import zipfile

import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.support.stand_in_wheel import write_wheel


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    """So that a hash of it can be pinned; its METADATA has no local version, like the published wheels'."""
    one, two = write_wheel(tmp_path / "a"), write_wheel(tmp_path / "b")
    assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(two.read_bytes()).digest()
    assert b"Version: 2.8.2\n" in zipfile.ZipFile(one).read("flash_attn-2.8.2.dist-info/METADATA")


def test_it_attends_as_torch_does(tmp_path, monkeypatch):
    """Without padding it answers what SDPA answers with a mask; each import is logged."""
    zipfile.ZipFile(write_wheel(tmp_path)).extractall(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "log"))
    from flash_attn import flash_attn_varlen_func
    from flash_attn.bert_padding import pad_input, unpad_input

    try:
        x = torch.randn(2, 5, 3, 8, generator=torch.Generator().manual_seed(1))  # (batch, length, heads, head_dim)
        mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
        tokens, indices, ends, longest, lengths = unpad_input(x, mask)
        assert (longest, lengths.tolist(), ends.tolist()) == (5, [5, 3], [0, 5, 8])
        found = pad_input(flash_attn_varlen_func(tokens, tokens, tokens, ends, ends, 5, 5), indices, 2, 5)
        q = x.transpose(1, 2)
        expected = scaled_dot_product_attention(q, q, q, attn_mask=mask[:, None, None]).transpose(1, 2)
        torch.testing.assert_close(found[mask], expected[mask])
        assert (found[~mask] == 0).all()
        assert (tmp_path / "log").read_text().endswith(" 2.8.2\n")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "flash_attn"]:
            del sys.modules[name]
