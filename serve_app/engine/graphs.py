"""Integrates with CUDA graphs: one recorded step of the ODE for each bucket of batch size and frames.

    batch -> smallest bucket that holds it -> static tensors -> replay, once a step -> mels

A step of a small batch is some four hundred kernels, and launching them takes longer than running them; a replay is one
launch. What differs from step to step (its length, its modulations) and from batch to batch is copied into the tensors
that the graph reads. Whatever fits no bucket, or is sampled without guidance, is integrated without a graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from serve_app.engine.attention import Layout
from serve_app.engine.sampler import NO_GUIDANCE, Batch, Schedule, integrate
from serve_app.engine.transformer import Transformer

__all__ = ["Bucket", "CudaRecorder", "Graphs", "Recorder", "buckets_within"]

UNITS = (1, 2, 3, 4, 6, 8, 12, 16)
FRAMES = (512, 640, 768, 1024, 1280, 1536, 2048, 2816)
"""Up to the 30 s that F5-TTS was trained on; longer units are rare, and long enough to hide their launches."""

LAUNCH_BOUND_FRAMES = 1024
"""Up to so many padded frames a step's launches take longer than its work (an estimate for an H100), and a bucket of
that size is used for whatever it holds."""

MAX_COST = 1.1
"""A larger bucket is used for batches that without it would cost at least 1 / 1.1 as many frames."""


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """The shape of a recorded batch."""

    units: int
    frames: int

    @property
    def padded_frames(self) -> int:
        return self.units * self.frames


def buckets_within(max_frames: int) -> tuple[Bucket, ...]:
    """Every pair of UNITS and FRAMES that `max_frames` padded frames hold: 64 at most, the largest first.

    Largest first, because graphs share their memory, and the first takes what all the others then use.
    """
    pairs = (Bucket(units, frames) for units in UNITS for frames in FRAMES)
    return tuple(sorted((b for b in pairs if b.padded_frames <= max_frames), key=lambda b: -b.padded_frames))


class Recorder(Protocol):
    """Records work on static tensors, to be done again without its launches."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What does `work` again. `work` may be called in the course."""
        ...


class CudaRecorder:
    """CUDA graphs that share one pool of memory: only one may run at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        # One of each for all recordings, because each stream keeps workspaces; none shared with another recorder,
        # because a workspace that was made in a recording goes with that recorder's pool.
        self._side, self._capture = torch.cuda.Stream(), torch.cuda.Stream()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        side = self._side
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries choose kernels and take workspaces in their first calls
            work()
            work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._capture, capture_error_mode="thread_local"):
            work()
        replay: Callable[[], None] = graph.replay
        return replay


class _Recorded:
    """The step of one bucket on views of the shared tensors."""

    def __init__(self, bucket: Bucket, shared: "_Shared", transformer: Transformer, recorder: Recorder) -> None:
        units, frames = bucket.units, bucket.frames
        self.bucket = bucket
        self.mel = shared.mel[: units * frames].view(units, frames, -1)
        self.context = shared.context[: 2 * units * frames].view(2 * units, frames, -1)
        self.valid = shared.valid[: 2 * units * frames].view(2 * units, frames)
        self.boundaries = shared.boundaries[: 4 * units + 1]
        layout = Layout(self.valid, self.boundaries)

        def step() -> None:
            velocity = transformer.velocity(self.mel, self.context, layout, shared.modulations).float()
            conditional, unconditional = velocity.chunk(2)
            guided = conditional + (conditional - unconditional) * shared.cfg_strength
            self.mel.add_(guided * shared.length)

        self.fill(Batch(torch.zeros_like(self.mel), torch.zeros_like(self.context), [frames] * units))
        self.replay = recorder.record(step)

    def fill(self, batch: Batch) -> None:
        """Put `batch` in; what it leaves free is padding, and rows of one frame, for attention to have something."""
        size, frames = batch.mel.shape[:2]
        units = self.bucket.units
        self.mel.zero_()[:size, :frames] = batch.mel
        self.context.zero_()
        for half in range(2):
            self.context[half * units : half * units + size, :frames] = batch.context[half * size : (half + 1) * size]
        of_rows = [*batch.frames, *[1] * (units - size)] * 2
        layout = Layout.of(of_rows, self.bucket.frames, self.mel.device)
        self.boundaries.copy_(layout.boundaries)
        self.valid.fill_(True) if layout.valid is None else self.valid.copy_(layout.valid)


class _Shared:
    """Tensors that all buckets use, as large as the largest of them needs."""

    def __init__(self, largest: int, units: int, transformer: Transformer) -> None:
        device, dtype = transformer.device, transformer.dtype
        modulations, dim = transformer.modulations(torch.zeros(1)).shape[1:]
        self.mel = torch.zeros(largest, transformer.n_mels, device=device)
        self.context = torch.zeros(2 * largest, dim, device=device, dtype=dtype)
        self.valid = torch.ones(2 * largest, dtype=torch.bool, device=device)
        self.boundaries = torch.zeros(4 * units + 1, dtype=torch.int32, device=device)
        self.modulations = torch.zeros(modulations, dim, device=device, dtype=dtype)
        self.length, self.cfg_strength = torch.zeros((), device=device), torch.zeros((), device=device)


class Graphs:
    """An `Integrate` that replays recorded steps where a bucket holds the batch. For one thread at a time."""

    def __init__(self, transformer: Transformer, recorder: Recorder, buckets: Sequence[Bucket]) -> None:
        with torch.inference_mode():
            largest = max(bucket.padded_frames for bucket in buckets)
            self._shared = _Shared(largest, max(bucket.units for bucket in buckets), transformer)
            recorded = [_Recorded(bucket, self._shared, transformer, recorder) for bucket in buckets]
        self._recorded = sorted(recorded, key=lambda each: each.bucket.padded_frames)

    def bucket(self, frames: Sequence[int]) -> Bucket | None:
        """The smallest that holds units of these `frames`; None where none does at little more cost."""
        found = self._find(len(frames), max(frames))
        return found.bucket if found else None

    def __call__(self, transformer: Transformer, batch: Batch, schedule: Schedule, cfg_strength: float) -> Tensor:
        """As `sampler.integrate`."""
        found = self._find(*batch.mel.shape[:2]) if cfg_strength >= NO_GUIDANCE else None
        if found is None:
            return integrate(transformer, batch, schedule, cfg_strength)
        found.fill(batch)
        self._shared.cfg_strength.fill_(cfg_strength)
        for length, modulations in zip(schedule.lengths, schedule.modulations, strict=True):
            self._shared.length.copy_(length)
            self._shared.modulations.copy_(modulations)
            found.replay()
        size, frames = batch.mel.shape[:2]
        return found.mel[:size, :frames].clone()

    def _find(self, units: int, frames: int) -> _Recorded | None:
        fitting = (r for r in self._recorded if r.bucket.units >= units and r.bucket.frames >= frames)
        found = next(fitting, None)
        worth = max(LAUNCH_BOUND_FRAMES, MAX_COST * units * frames)
        return found if found and found.bucket.padded_frames <= worth else None
