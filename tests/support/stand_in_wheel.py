"""Writes small valid wheels, so that installing is tested with the real installers and without a download.

Like the published flash_attn wheels (Dao-AILab/flash-attention, issue 730), one that is called
`flash_attn-2.8.2+cu12torch2.6cxx11abiFALSE-...whl` says in its METADATA that it is 2.8.2.
"""

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["FLASH_ATTN_FILES", "FLASH_ATTN_VERSION", "STAND_IN_LOG", "write_wheel"]

FLASH_ATTN_VERSION = "2.8.2+cu12torch2.6cxx11abiFALSE"
STAND_IN_LOG = "STAND_IN_LOG"
"""Names a file that gets a line, `<process id> <version>`, whenever a stand-in flash_attn is imported."""

FLASH_ATTN_FILES = {
    "flash_attn/__init__.py": '''"""Stand-in of flash_attn: the same answers, from torch's own attention."""

import os

__version__ = "@VERSION@"

if log := os.environ.get("STAND_IN_LOG"):
    with open(log, "a") as file:
        file.write(f"{os.getpid()} {__version__}\\n")


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, **ignored):
    """q, k, v: (batch, tokens, heads, head_dim)."""
    from torch.nn.functional import scaled_dot_product_attention

    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(*heads_first, scale=softmax_scale, is_causal=causal).transpose(1, 2)


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False,
    **ignored,
):
    """q, k, v: (tokens of all sequences, heads, head_dim)."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    q_ends, k_ends = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    spoken = [
        scaled_dot_product_attention(
            *(x.transpose(0, 1)[None] for x in (q[i:j], k[a:b], v[a:b])), scale=softmax_scale, is_causal=causal
        )[0].transpose(0, 1)
        for i, j, a, b in zip(q_ends[:-1], q_ends[1:], k_ends[:-1], k_ends[1:], strict=True)
    ]
    return torch.cat(spoken)
''',
    "flash_attn/bert_padding.py": '''"""Between (batch, length, ...) and the tokens of all sequences in a row."""


def unpad_input(hidden_states, attention_mask, unused_mask=None):
    """(tokens, their flat indices, cumulative lengths, the longest, lengths)."""
    import torch

    lengths = attention_mask.sum(dim=-1, dtype=torch.int32)
    indices = attention_mask.flatten().nonzero().flatten()
    ends = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return hidden_states.flatten(0, 1)[indices], indices, ends, int(lengths.max()), lengths


def pad_input(hidden_states, indices, batch, seqlen):
    """Back to (batch, seqlen, ...), zeros where nothing was."""
    out = hidden_states.new_zeros(batch * seqlen, *hidden_states.shape[1:])
    out[indices] = hidden_states
    return out.unflatten(0, (batch, seqlen))
''',
}


def write_wheel(
    directory: Path,
    name: str = "flash_attn",
    version: str = FLASH_ATTN_VERSION,
    python_tag: str = "cp311",
    platform: str = "linux_x86_64",
    files: Mapping[str, str] | None = None,
    metadata_version: str | None = None,
    requires: tuple[str, ...] = (),
) -> Path:
    """Write the wheel into `directory` (made here) and return its path; the same arguments give the same bytes.

    `version` is that of the file name. `metadata_version` is that of its METADATA: by default flash_attn's without
    the local part. `files`: contents by path, in place of flash_attn's, or of a package with only `__version__`.
    """
    installed = metadata_version or (version.partition("+")[0] if name == "flash_attn" else version)
    if files is None:
        bare = {f"{name}/__init__.py": '__version__ = "@VERSION@"\n'}
        files = FLASH_ATTN_FILES if name == "flash_attn" else bare
    contents = {path: text.replace("@VERSION@", installed) for path, text in files.items()}
    abi_tag = python_tag if python_tag.startswith("cp") else "none"
    info = f"{name}-{installed}.dist-info"
    contents[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {installed}\n"
        + "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    )
    contents[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: stand_in_wheel\nRoot-Is-Purelib: {str(abi_tag == 'none').lower()}\n"
        f"Tag: {python_tag}-{abi_tag}-{platform}\n"
    )
    record = f"{info}/RECORD"
    lines = [f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in contents.items()]
    contents[record] = "".join([*lines, f"{record},,\n"])
    directory.mkdir(parents=True, exist_ok=True)
    wheel = directory / f"{name}-{version}-{python_tag}-{abi_tag}-{platform}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in contents.items():
            entry = zipfile.ZipInfo(path)  # dated 1980
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return wheel


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
