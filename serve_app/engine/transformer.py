"""F5-TTS's transformer arranged for sampling: what does not change from step to step is computed once.

    per schedule   times -> modulations: the AdaLN of every block, at every step
    per batch      references and texts -> context: what the input projection adds to the noisy mel
    per step       noisy mel + context -> velocity

Computes what upstream's `DiT.forward` computes (f5_tts/model/backbones/dit.py), from its weights, to rounding. One time
serves a whole batch, so a modulated LayerNorm is a LayerNorm whose weight is 1 + scale and whose bias is shift. Knows
nothing of steps, guidance or noise: that is `sampler.py`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from serve_app.engine.attention import Attend, Layout
from serve_app.engine.linear import make_linear

__all__ = ["MAX_FRAMES", "Transformer"]

MAX_FRAMES = 8192
"""Positions of upstream's text encoder: 87.4 s, reference included."""

BLOCK_MODULATIONS = 6  # shift and 1 + scale before attention, its gate; shift and 1 + scale before the MLP, its gate
FINAL_MODULATIONS = 2  # 1 + scale and shift before the output


class Transformer:
    """Upstream's `dit`, taken apart. On its device and in its dtype; the time embedding stays in float32.

    `dit` is not changed, and may be dropped: on a CPU the weights are copied into another layout.
    """

    def __init__(self, dit: Any, attend: Attend) -> None:
        self._text_embed: nn.Module = dit.text_embed
        self._time_embed = dit.time_embed
        self._adaln = [*(block.attn_norm.linear for block in dit.transformer_blocks), dit.norm_out.linear]
        weight, bias = dit.input_embed.proj.weight, dit.input_embed.proj.bias
        self.n_mels: int = dit.proj_out.out_features
        self.dtype: torch.dtype = weight.dtype
        self.device: torch.device = weight.device
        self._mel_in = make_linear(weight[:, : self.n_mels])  # its bias is in the context
        self._context_in = make_linear(weight[:, self.n_mels :], bias)
        self._convolutions = [layer for layer in dit.input_embed.conv_pos_embed.conv1d if isinstance(layer, nn.Conv1d)]
        self._blocks = [_Block(block, attend) for block in dit.transformer_blocks]
        self._mel_out = make_linear(dit.proj_out.weight, dit.proj_out.bias)
        self._dim: int = dit.dim
        self._rotations = _rotations(dit)

    def modulations(self, times: Tensor) -> Tensor:
        """Of each of `times`, (steps,): (steps, 6 * depth + 2, dim)."""
        hidden = self._time_embed.time_embed(times.to(self.device, torch.float32))
        embedded = functional.silu(_once(self._time_embed.time_mlp, hidden).to(self.dtype))
        parts = [_once([layer], embedded).unflatten(1, (-1, self._dim)) for layer in self._adaln]
        scales = torch.zeros(sum(part.shape[1] for part in parts), dtype=torch.bool, device=self.device)
        scales[1:-FINAL_MODULATIONS:BLOCK_MODULATIONS] = scales[4:-FINAL_MODULATIONS:BLOCK_MODULATIONS] = True
        scales[-FINAL_MODULATIONS] = True
        return torch.cat(parts, dim=1) + scales[:, None]

    def context(self, references: Sequence[Tensor], texts: Sequence[Tensor], frames: Sequence[int]) -> Tensor:
        """What each item's reference mel (reference_frames, n_mels) and token ids (tokens,) add to the projection of
        the noisy mel: (2 * batch, longest of frames, dim), the second half as if there were neither.

        Texts are embedded one by one, because upstream's text encoder normalises over the padded length.
        """
        rows = [
            torch.cat(
                [functional.pad(reference, (0, 0, 0, n - len(reference))), self._embedded(ids, n, drop_text=False)],
                dim=-1,
            )
            for reference, ids, n in zip(references, texts, frames, strict=True)
        ]
        rows += [
            functional.pad(self._embedded(ids, n, drop_text=True), (self.n_mels, 0))
            for ids, n in zip(texts, frames, strict=True)
        ]
        return self._context_in(pad_sequence(rows, batch_first=True))

    def _embedded(self, ids: Tensor, frames: int, *, drop_text: bool) -> Tensor:
        text: Tensor = self._text_embed(ids[None], seq_len=frames, drop_text=drop_text)[0]
        return text

    def velocity(self, mel: Tensor, context: Tensor, layout: Layout, modulations: Tensor) -> Tensor:
        """Of the noisy `mel`, (batch, frames, n_mels), for each row of `context`: (rows, frames, n_mels).

        `context` is (rows, frames, dim), where rows are batch or twice that; `modulations` are of one step,
        (6 * depth + 2, dim).
        """
        layout = layout.biased(self.dtype)
        projected = self._mel_in(mel.to(self.dtype))
        hidden = (context.unflatten(0, (-1, len(mel))) + projected).flatten(0, 1)
        hidden = self._convolved(hidden, layout) + hidden
        rotations = self._rotations[: mel.shape[1]]
        for block, modulation in zip(self._blocks, modulations.split(BLOCK_MODULATIONS), strict=False):
            # An overflow in padding would be heard: no mask takes a NaN out of a sum.
            hidden = block(layout.silenced(hidden), layout, rotations, modulation)
        scale, shift = modulations[-FINAL_MODULATIONS:]
        return self._mel_out(functional.layer_norm(hidden, (self._dim,), scale, shift, eps=1e-6))

    def _convolved(self, hidden: Tensor, layout: Layout) -> Tensor:
        """Upstream's ConvPositionEmbedding; padding is kept at zero, as the edge of an item alone is."""
        mixed = layout.silenced(hidden).transpose(1, 2)
        for convolution in self._convolutions:
            mixed = functional.mish(layout.silenced(convolution(mixed).transpose(1, 2)).transpose(1, 2))
        return mixed.transpose(1, 2)


class _Block:
    """Upstream's DiTBlock (f5_tts/model/modules.py), with one projection for query, key and value."""

    def __init__(self, block: Any, attend: Attend) -> None:
        attention, (project_in, _, project_out) = block.attn, block.ff.ff
        layers = (attention.to_q, attention.to_k, attention.to_v)
        self._heads: int = attention.heads
        self._norms = [norm.weight for norm in (attention.q_norm, attention.k_norm) if norm is not None]
        self._qkv = make_linear(torch.cat([x.weight for x in layers]), torch.cat([x.bias for x in layers]))
        self._out = make_linear(attention.to_out[0].weight, attention.to_out[0].bias)
        self._up = make_linear(project_in[0].weight, project_in[0].bias, gelu=True)
        self._down = make_linear(project_out.weight, project_out.bias)
        self._attend = attend

    def __call__(self, hidden: Tensor, layout: Layout, rotations: Tensor, modulation: Tensor) -> Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation
        size = hidden.shape[-1:]
        qkv = self._qkv(functional.layer_norm(hidden, size, scale, shift, eps=1e-6)).unflatten(-1, (3, self._heads, -1))
        query, key = _rotated(self._normed(qkv[:, :, :2]), rotations).unbind(2)
        attended = self._attend(query, key, qkv[:, :, 2], layout)
        hidden = torch.addcmul(hidden, gate, self._out(attended.flatten(2)))
        normed = functional.layer_norm(hidden, size, mlp_scale, mlp_shift, eps=1e-6)
        return torch.addcmul(hidden, mlp_gate, self._down(self._up(normed)))

    def _normed(self, query_key: Tensor) -> Tensor:
        if not self._norms:
            return query_key
        parts = zip(query_key.unbind(2), self._norms, strict=True)
        return torch.stack(
            [functional.rms_norm(part, part.shape[-1:], weight, eps=1e-6) for part, weight in parts], dim=2
        )


def _once(layers: Iterable[Any], x: Tensor) -> Tensor:
    """`x` through `layers`, whose weights are laid out for this call alone: they are too many to be kept twice."""
    for layer in layers:
        x = make_linear(layer.weight, layer.bias)(x) if isinstance(layer, nn.Linear) else layer(x)
    return x


def _rotations(dit: Any) -> Tensor:
    """Rotary position embedding as complex numbers, (MAX_FRAMES, 1, heads or 1, dim_head / 2), from float32 angles.

    Half precision is too coarse for them: the rotated query of frame 1400 would be 4.8 % off in float16 and 38 % in
    bfloat16. Heads that the architecture (`pe_attn_head`) leaves alone are rotated by nothing.
    """
    inv_freq: Tensor = dit.rotary_embed.inv_freq.float()
    angles = torch.arange(MAX_FRAMES, device=inv_freq.device)[:, None] * inv_freq
    rotations = torch.polar(torch.ones_like(angles), angles)[:, None, None]
    attention = dit.transformer_blocks[0].attn
    if (rotated := attention.processor.pe_attn_head) is None:
        return rotations
    rotations = rotations.repeat(1, 1, attention.heads, 1)
    rotations[:, :, rotated:] = 1
    return rotations


def _rotated(query_key: Tensor, rotations: Tensor) -> Tensor:
    """`query_key` (rows, frames, 2, heads, dim_head), each pair of neighbours turned as one complex number."""
    pairs = torch.view_as_complex(query_key.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotations).flatten(-2).to(query_key.dtype)
