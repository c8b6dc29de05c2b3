"""Turns noise into a mel spectrogram with F5-TTS's transformer: flow matching, integrated with Euler steps.

    reference mel + text + noise -> ODE over t in [0, 1] -> mel of the spoken text

Takes the place of upstream's `CFM.sample` (f5_tts/model/cfm.py). It computes the same thing, and differs in what a
service needs: each item has its own seed, padding cannot be heard, the device is never waited for between steps, and
nothing is kept from one call to the next but the modulations of a schedule. Knows nothing of text, voices or waveforms.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import torch
from cachetools import LRUCache
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from serve_app.domain import Sampling
from serve_app.engine.attention import Layout
from serve_app.engine.hardware import on_device
from serve_app.engine.transformer import Transformer

__all__ = ["Batch", "Integrate", "SampleInput", "Sampler", "Schedule", "integrate", "time_schedule"]

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

KEPT_SCHEDULES = 8
"""Of 64 steps, v1_base in half precision, one is 18 MB."""


@dataclass(frozen=True, slots=True)
class SampleInput:
    """One utterance to sample.

    `reference`: mel of the reference audio, (reference_frames, n_mels). `token_ids`: reference text and text to speak,
    (tokens,), int64. `frames`: reference and speech together, more than either has. `noise`: where the ODE starts,
    (frames, n_mels), float32; None draws it from `seed`, on the CPU, so that a seed means the same on every device.
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


@dataclass(frozen=True, slots=True)
class Batch:
    """What is integrated. `mel`: noise, (batch, frames, n_mels), float32; `context`: see `Transformer.context`,
    (2 * batch, frames, dim); `frames`: of each item, at most the second size of both."""

    mel: Tensor
    context: Tensor
    frames: Sequence[int]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps of the ODE: their lengths, (steps,), float32, and modulations, (steps, 6 * depth + 2, dim)."""

    lengths: Tensor
    modulations: Tensor


Integrate = Callable[[Transformer, Batch, Schedule, float], Tensor]
"""From a batch, a schedule and a CFG strength to mels, (batch, frames, n_mels), float32."""


def time_schedule(steps: int, sway: float) -> Tensor:
    """The times that the ODE is evaluated at: (steps + 1,), float32, rising from 0 to 1.

    Pruned where EPSS has a schedule for `steps`, else evenly spaced; then bent by sway sampling (F5-TTS,
    arXiv 2410.06885): t + sway * (cos(pi t / 2) - 1 + t), which for -1 takes small steps first, and for 0 is t.
    """
    grid = EPSS_STEPS.get(steps)
    times = torch.linspace(0, 1, steps + 1) if grid is None else torch.tensor(grid) / EPSS_GRID
    return times + sway * (torch.cos(torch.pi / 2 * times) - 1 + times) if sway else times


def integrate(transformer: Transformer, batch: Batch, schedule: Schedule, cfg_strength: float) -> Tensor:
    """Euler's method, one call of the transformer a step, with classifier-free guidance in the same call."""
    guided, size = cfg_strength >= NO_GUIDANCE, len(batch.mel)
    rows = 2 if guided else 1
    layout = Layout.of([*batch.frames] * rows, batch.mel.shape[1], batch.mel.device)
    mel, context = batch.mel, batch.context[: rows * size]
    for length, modulations in zip(schedule.lengths, schedule.modulations, strict=True):
        velocity = transformer.velocity(mel, context, layout, modulations).float()
        if guided:
            conditional, unconditional = velocity.chunk(2)
            velocity = conditional + (conditional - unconditional) * cfg_strength
        mel = mel + length * velocity
    return mel


class Sampler:
    """Samples batches with one transformer. `integrate` may be replaced by one that computes the same faster.

    Any number of threads may sample with `integrate` as it is.
    """

    def __init__(self, transformer: Transformer, integrate: Integrate = integrate) -> None:
        self._transformer = transformer
        self._integrate = integrate
        self._schedules: LRUCache[tuple[int, float], Schedule] = LRUCache(KEPT_SCHEDULES)
        self._lock = Lock()

    def sample(self, items: Sequence[SampleInput], sampling: Sampling) -> list[Tensor]:
        """Sample all `items` in one batch; for each the mel of the speech, without the reference.

        Returns float32 tensors of shape (frames - reference_frames, n_mels) on the transformer's device. Shorter items
        are padded, which none of them can hear.
        """
        device = self._transformer.device
        with torch.inference_mode():
            frames = [item.frames for item in items]
            references = [item.reference.to(device, self._transformer.dtype) for item in items]
            texts = [on_device(item.token_ids, device) for item in items]
            noise = on_device(pad_sequence([self._noise(item) for item in items], batch_first=True), device)
            batch = Batch(noise, self._transformer.context(references, texts, frames), frames)
            mel = self._integrate(self._transformer, batch, self.schedule(sampling), sampling.cfg_strength)
        return [mel[index, len(item.reference) : item.frames] for index, item in enumerate(items)]

    def schedule(self, sampling: Sampling) -> Schedule:
        """Of the steps that `sampling` asks for; the latest few are kept."""
        key = (sampling.nfe_steps, sampling.sway)
        with self._lock:
            found = self._schedules.get(key)
            if found is None:
                found = self._schedules[key] = self._make_schedule(time_schedule(*key))
        return found

    def _make_schedule(self, times: Tensor) -> Schedule:
        lengths = torch.tensor([end - start for start, end in itertools.pairwise(times.tolist())])
        with torch.inference_mode():
            modulations = self._transformer.modulations(times[:-1])
        return Schedule(on_device(lengths, self._transformer.device), modulations)

    def _noise(self, item: SampleInput) -> Tensor:
        """Standard normal noise, (frames, n_mels)."""
        if item.noise is not None:
            return item.noise
        generator = torch.Generator(device="cpu").manual_seed(item.seed)
        return torch.randn(item.frames, self._transformer.n_mels, generator=generator)
