"""Runs the F5 model on a GPU: batches, recorded as CUDA graphs, each decoded beside the sampling of the next.

    tasks -> sampler (the current stream) -> mels -> Vocos, one by one (a stream and a thread of their own) -> waveforms

How many frames a batch may have follows from the memory that is free when the model is loaded. A unit's waveform is the
same in any batch to rounding: tests/gpu measures how near.
"""

import gc
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from traceback import clear_frames

import torch
from torch import Tensor

from serve_app.domain import Pcm, Sampling
from serve_app.engine.graphs import CudaRecorder, Graphs, buckets_within
from serve_app.engine.protocol import BatchLimits
from serve_app.engine.sampler import Sampler
from serve_app.engine.task import WARM_UP_STEPS, Task, device_errors
from serve_app.engine.transformer import MAX_FRAMES, Transformer
from serve_app.errors import ModelLoadFailed, OutOfMemory

__all__ = ["CudaExecution", "frame_budget"]

MAX_UNITS = 16
MAX_BATCH_FRAMES = MAX_UNITS * 2816
"""More at once would make the callers of a batch wait, and the matrices are large enough."""

TRAINED_FRAMES = 2812
"""30 s: the longest unit that the model was trained on, and the least that a GPU must hold."""

USED_SHARE = 0.4
"""Of the free memory, for a batch. Recorded graphs keep as much again; the rest is for decoding and for gaps."""

PROBE_UNITS, PROBE_FRAMES = 2, 1024


def frame_budget(free_bytes: int, bytes_per_frame: float) -> int:
    """Padded frames that a batch may have. Raises ModelLoadFailed where not even one unit of 30 s would fit."""
    budget = int(USED_SHARE * free_bytes / bytes_per_frame)
    if budget < TRAINED_FRAMES:
        raise ModelLoadFailed(
            f"{free_bytes / 1e9:.1f} GB of GPU memory are free after loading, which hold {budget} mel frames of "
            f"{bytes_per_frame / 1e3:.0f} kB, and a unit may have {TRAINED_FRAMES}: give the replica a larger "
            "GPU, or a larger share of it (num_gpus)"
        )
    return min(budget, MAX_BATCH_FRAMES)


class CudaExecution:
    """Samples with `transformer`, decodes with `decode`: (1, n_mels, frames) to (1, samples).

    Until `warm_up` it takes one unit at a time and uses no graphs, nor after it where `record` is false. Of the free
    memory it uses `memory_share`, less `spoken_for_bytes`. `run` is for one thread at a time.
    """

    def __init__(
        self,
        transformer: Transformer,
        decode: Callable[[Tensor], Tensor],
        spoken_for_bytes: int = 0,
        memory_share: float = 1.0,
        record: bool = True,
    ) -> None:
        self._transformer = transformer
        torch.backends.cuda.enable_cudnn_sdp(False)  # newer torch prefers it, and it plans anew for every length
        self._spoken_for_bytes = spoken_for_bytes
        self._memory_share = memory_share
        self._record = record
        self._sampler = Sampler(transformer)
        self._decoder = _Decoder(decode, transformer.device)
        self._graphs: Graphs | None = None
        self._max_frames = MAX_FRAMES
        self._max_units = 1

    @property
    def limits(self) -> BatchLimits:
        return BatchLimits(self._max_units, self._max_frames)

    @property
    def batching(self) -> str:
        """How units share the GPU, for `/health`."""
        graphs = "in CUDA graphs" if self._graphs else "without CUDA graphs"
        return f"up to {self._max_units} units and {self._max_frames} padded frames at once, {graphs}"

    def computed_frames(self, frames: Sequence[int]) -> int:
        """Those of the bucket, or of all items at the length of the longest."""
        bucket = self._graphs.bucket(frames) if self._graphs else None
        return bucket.padded_frames if bucket else len(frames) * max(frames)

    def warm_up(self, task: Task, sampling: Sampling) -> None:
        """Speak `task`, measure what a frame costs, and record the graphs that the free memory allows.

        The schedule of `sampling`, the model's own, is made ready.
        """
        few = replace(sampling, nfe_steps=WARM_UP_STEPS, cfg_strength=Sampling().cfg_strength)  # guided: the dearer
        self._spoken([task], few)
        self._max_frames = frame_budget(*self._measured_memory(task, few))
        self._max_units = MAX_UNITS
        if self._record:
            with torch.cuda.device(self._transformer.device):
                self._graphs = _recorded(self._transformer, self._max_frames)
            self._sampler = Sampler(self._transformer, self._graphs)
        self._sampler.schedule(sampling)
        self._spoken([task], few)

    def _spoken(self, tasks: Sequence[Task], sampling: Sampling) -> None:
        for future in self.run(tasks, sampling):
            future.result()

    def _measured_memory(self, task: Task, sampling: Sampling) -> tuple[int, float]:
        """Bytes that are free, and bytes that a frame of a batch needs."""
        device = self._transformer.device
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        probe = replace(task, sample=replace(task.sample, frames=PROBE_FRAMES))
        self._spoken([probe] * PROBE_UNITS, replace(sampling, nfe_steps=1))
        needed = torch.cuda.max_memory_allocated(device) - before
        torch.cuda.empty_cache()
        free_bytes = int(torch.cuda.mem_get_info(device)[0] * self._memory_share) - self._spoken_for_bytes
        return free_bytes, needed / (PROBE_UNITS * PROBE_FRAMES)

    def run(self, tasks: Sequence[Task], sampling: Sampling) -> list[Future[Pcm]]:
        """Speak `tasks` in one batch. Returns when the GPU is free for the next; decoding may go on beside it.

        Raises OutOfMemory or EngineError for the whole batch.
        """
        try:
            sizes, device = [task.sample.frames for task in tasks], self._transformer.device
            with torch.cuda.device(device), device_errors(sizes, str(device)):
                mels = self._sampler.sample([task.sample for task in tasks], sampling)
                return self._decoder.start(mels, tasks)
        except OutOfMemory:
            torch.cuda.empty_cache()  # what is kept in pieces may be enough as a whole
            raise


def _recorded(transformer: Transformer, max_frames: int) -> Graphs:
    gc.freeze()  # torch collects garbage before each recording
    try:
        return Graphs(transformer, CudaRecorder(), buckets_within(max_frames))
    finally:
        gc.unfreeze()


class _Decoder:
    """Turns mels into waveforms on a stream of its own, one batch beside the sampling of the next and no more."""

    def __init__(self, decode: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._decode = decode
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vocoder")
        self._last: Future[None] | None = None

    def start(self, mels: Sequence[Tensor], tasks: Sequence[Task]) -> list[Future[Pcm]]:
        """Waits for the sampling that was enqueued on the current stream, and for the batch before to be decoded."""
        sampled = torch.cuda.Event(blocking=True)  # waiting takes no CPU
        sampled.record()
        futures: list[Future[Pcm]] = [Future() for _ in tasks]
        before, self._last = self._last, self._thread.submit(self._run, sampled, mels, tasks, futures)
        sampled.synchronize()
        if before is not None:
            wait([before])
        return futures

    def _run(
        self, sampled: torch.cuda.Event, mels: Sequence[Tensor], tasks: Sequence[Task], futures: list[Future[Pcm]]
    ) -> None:
        try:
            with torch.cuda.device(self._device), torch.cuda.stream(self._stream), torch.inference_mode():
                self._stream.wait_event(sampled)
                for mel, task, future in zip(mels, tasks, futures, strict=True):
                    self._answer(mel, task, future)
        except Exception as error:  # of the device itself: nobody may wait for ever
            for future in futures:
                if not future.done():
                    future.set_exception(error)

    def _answer(self, mel: Tensor, task: Task, future: Future[Pcm]) -> None:
        try:
            with device_errors([task.sample.frames], str(self._device)):
                try:
                    wave = self._decoded(mel)
                except torch.OutOfMemoryError as error:
                    clear_frames(error.__traceback__)  # which would keep what did not fit
                    torch.cuda.empty_cache()
                    wave = self._decoded(mel)
            future.set_result(task.finished(wave))
        except Exception as error:  # belongs to this task alone
            future.set_exception(error)

    def _decoded(self, mel: Tensor) -> Pcm:
        mel.record_stream(self._stream)  # made on another: its memory must not be used again before this is done
        wave = self._decode(mel.T[None])[0]
        host = torch.empty(wave.shape, dtype=wave.dtype, pin_memory=True)
        host.copy_(wave, non_blocking=True)
        self._stream.synchronize()
        copied: Pcm = host.numpy().copy()  # pinned memory is scarce
        return copied
