"""Turns noise into a mel spectrogram with F5-TTS's transformer: flow matching, integrated with Euler steps.

    reference mel + text + noise -> ODE over t in [0, 1] -> mel of the spoken text

Takes the place of upstream's `CFM.sample` (f5_tts/model/cfm.py). It computes the same thing, and differs in
what a service needs: each item has its own seed, padding cannot be heard, no device synchronisation at each
step, and the transformer's text cache never outlives a call. Knows nothing of text, voices or waveforms.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

__all__ = ["SampleInput", "Transformer", "sample", "time_schedule"]

EPSS_GRID = 32
EPSS_STEPS = {
    5: (0, 2, 4, 8, 16, 32),
    6: (0, 2, 4, 6, 8, 16, 32),
    7: (0, 2, 4, 6, 8, 16, 24, 32),
    10: (0, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32),
    12: (0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32),
    16: (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32),
}
"""Empirically pruned step sampling (Fast F5-TTS, arXiv 2505.19931): where to step, in 1/32, for few steps."""

NO_GUIDANCE = 1e-5
"""CFG strength under which upstream leaves the unconditional pass out."""


class Transformer(Protocol):
    """What is used of upstream's DiT (f5_tts/model/backbones/dit.py), with its attention mask enabled.

    `text_cond` and `text_uncond` are where it keeps embedded text between steps, for one thread; upstream
    clears them only when all went well, and after an error the next call would speak the old text.
    """

    proj_out: nn.Linear
    text_embed: nn.Module
    text_cond: Tensor | None
    text_uncond: Tensor | None

    def clear_cache(self) -> None: ...

    def __call__(
        self,
        *,
        x: Tensor,  # (batch, frames, n_mels)
        cond: Tensor,  # (batch, frames, n_mels)
        text: Tensor | None,  # read only where nothing is kept
        time: Tensor,  # (batch,), float32
        mask: Tensor | None,  # (batch, frames)
        cfg_infer: bool,  # with and without text and reference, stacked: (2 * batch, frames, n_mels)
        cache: bool,
    ) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class SampleInput:
    """One utterance to sample.

    `reference`: mel of the reference audio, (reference_frames, n_mels), float32. `token_ids`: reference text
    and text to speak, (tokens,), int64. `frames`: reference and speech together, more than either has.
    `noise`: where the ODE starts, (frames, n_mels); None draws it from `seed`, on the CPU, so that a seed
    means the same on every device.
    """

    reference: Tensor
    token_ids: Tensor
    frames: int
    seed: int
    noise: Tensor | None = None

    def __post_init__(self) -> None:
        if self.frames <= max(len(self.reference), len(self.token_ids)):
            raise ValueError(
                f"frames is {self.frames}, but the reference has {len(self.reference)} frames and the text "
                f"{len(self.token_ids)} tokens: frames must be more than both"
            )


def time_schedule(steps: int, sway: float | None) -> Tensor:
    """The times that the ODE is evaluated at: (steps + 1,), float32, rising from 0 to 1.

    Pruned where EPSS has a schedule for `steps`, else evenly spaced; then bent by sway sampling (F5-TTS,
    arXiv 2410.06885): t + sway * (cos(pi t / 2) - 1 + t), which for -1 takes small steps first. None: not
    bent.
    """
    grid = EPSS_STEPS.get(steps)
    times = torch.linspace(0, 1, steps + 1) if grid is None else torch.tensor(grid) / EPSS_GRID
    if sway is None:
        return times
    return times + sway * (torch.cos(torch.pi / 2 * times) - 1 + times)


def sample(
    dit: Transformer, items: Sequence[SampleInput], *, steps: int, cfg_strength: float, sway: float | None
) -> list[Tensor]:
    """Sample all `items` in one batch; for each the mel of the speech, without the reference.

    Returns float32 tensors of shape (frames - reference_frames, n_mels) on the device of `dit`. Shorter items
    are padded and masked, and their text is embedded at their own length, because upstream's text encoder
    normalises over the padded one.
    """
    times = time_schedule(steps, sway).tolist()
    with torch.inference_mode():
        try:
            _embed_text(dit, items)
            condition, mask = _stack(items, dit.proj_out.weight)
            mel = pad_sequence([_noise(item) for item in items], batch_first=True).to(condition.device)
            for start, end in itertools.pairwise(times):
                mel = mel + (end - start) * _flow(dit, mel, condition, mask, start, cfg_strength)
        finally:
            dit.clear_cache()
    return [mel[index, len(item.reference) : item.frames] for index, item in enumerate(items)]


def _embed_text(dit: Transformer, items: Sequence[SampleInput]) -> None:
    """Put the embedded texts, and the embedded absence of text, where `dit` looks for them at each step."""

    def embedded(drop_text: bool) -> Tensor:
        device = dit.proj_out.weight.device
        rows = [
            dit.text_embed(item.token_ids[None].to(device), seq_len=item.frames, drop_text=drop_text)[0]
            for item in items
        ]
        return pad_sequence(rows, batch_first=True)

    dit.text_cond, dit.text_uncond = embedded(drop_text=False), embedded(drop_text=True)


def _stack(items: Sequence[SampleInput], like: Tensor) -> tuple[Tensor, Tensor | None]:
    """The references, zero where speech is to be made, (batch, frames, n_mels), and which frames are not
    padding, (batch, frames). None for the latter where none is: a mask says nothing then, and keeps attention
    from its fast kernels. On the device, and the references in the dtype, of `like`."""
    frames = torch.tensor([item.frames for item in items])
    longest = int(frames.max())
    condition = torch.zeros(len(items), longest, items[0].reference.shape[1])
    for row, item in zip(condition, items, strict=True):
        row[: len(item.reference)] = item.reference
    padded = bool((frames < longest).any())
    mask = (torch.arange(longest) < frames[:, None]).to(like.device) if padded else None
    return condition.to(like), mask


def _noise(item: SampleInput) -> Tensor:
    """Standard normal noise, (frames, n_mels)."""
    if item.noise is not None:
        return item.noise
    generator = torch.Generator(device="cpu").manual_seed(item.seed)
    return torch.randn(item.frames, item.reference.shape[1], generator=generator)


def _flow(
    dit: Transformer, mel: Tensor, condition: Tensor, mask: Tensor | None, time: float, cfg_strength: float
) -> Tensor:
    """The velocity of `mel` at `time`, with classifier-free guidance: float32, of the shape of `mel`."""
    guided = cfg_strength >= NO_GUIDANCE
    velocity = dit(
        x=mel.to(condition.dtype),
        cond=condition,
        text=None,  # kept by _embed_text
        time=torch.full((len(mel),), time, device=mel.device),
        mask=mask,
        cfg_infer=guided,
        cache=True,
    ).float()
    if not guided:
        return velocity
    conditional, unconditional = velocity.chunk(2)
    return conditional + (conditional - unconditional) * cfg_strength
