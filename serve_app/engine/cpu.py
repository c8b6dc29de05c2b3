"""Runs the F5 model on a CPU: single units, as many side by side as a short measurement says.

A masked batch on a CPU is slower than its units one by one (102 s against 57 s for eight, 19.6 M parameters), so there
is none. What pays is to divide the threads between units: one that computes on a single thread waits for no other. A
unit's bytes depend neither on who else is speaking nor on the number of threads (see `threads.py`).
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

import torch
from torch import Tensor

from serve_app.domain import Pcm, Sampling
from serve_app.engine.protocol import BatchLimits, one_by_one
from serve_app.engine.sampler import Sampler
from serve_app.engine.task import WARM_UP_STEPS, Task, device_errors
from serve_app.engine.threads import exact_threads, worker_pool
from serve_app.engine.transformer import MAX_FRAMES

__all__ = ["CpuExecution"]

WORTH_DIVIDING = 1.1
"""So many times the audio per second the next division of the threads must give to be taken."""


class CpuExecution:
    """Samples with `sampler`, decodes with `decode`: (1, n_mels, frames) to (1, samples).

    Takes torch's threads down to a power of two. `run` is for one thread at a time. `clock` gives seconds.
    """

    def __init__(
        self, sampler: Sampler, decode: Callable[[Tensor], Tensor], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._sampler = sampler
        self._decode = decode
        self._clock = clock
        self._threads = exact_threads(torch.get_num_threads())
        torch.set_num_threads(self._threads)
        self._lanes: ThreadPoolExecutor | None = None
        self._count = 1
        self._gain = 1.0
        self._busy: set[Future[Pcm]] = set()

    @property
    def limits(self) -> BatchLimits:
        """A unit for each lane that is free, of any lengths."""
        free = self._count - sum(not future.done() for future in self._busy)
        return BatchLimits(max(free, 1), self._count * MAX_FRAMES, max_length_ratio=float("inf"))

    @property
    def batching(self) -> str:
        """How units share the CPU, for `/health`."""
        if self._lanes is None:
            return f"one unit at a time on {_of(self._threads)}"
        each = _of(self._threads // self._count)
        return f"{self._count} units at once on {each} each, measured {self._gain:.2f} times one at a time"

    def computed_frames(self, frames: Sequence[int]) -> int:
        """There is no padding."""
        return sum(frames)

    def warm_up(self, task: Task, sampling: Sampling) -> None:
        """Speak `task` once, then measure whether the threads should be divided, and among how many units.

        The schedule of `sampling`, the model's own, is made ready.
        """
        self._sampler.schedule(sampling)
        self._spoken([task], replace(sampling, nfe_steps=WARM_UP_STEPS))
        if self._threads == 1:
            return
        short = replace(sampling, nfe_steps=1)
        self._spoken([task], short)
        single = best = self._rate(1, task, short)
        lanes = 2
        while lanes <= self._threads:
            before = (self._lanes, self._count)
            self._lanes, self._count = worker_pool(lanes, self._threads // lanes, "lane"), lanes
            self._spoken([task] * lanes, short)  # threads begin cold
            rate = self._rate(lanes, task, short)
            if rate < best * WORTH_DIVIDING:
                self._lanes.shutdown()
                self._lanes, self._count = before
                return
            if before[0] is not None:
                before[0].shutdown()
            best, self._gain, lanes = rate, rate / single, 2 * lanes

    def _rate(self, units: int, task: Task, sampling: Sampling) -> float:
        """Units a second."""
        began = self._clock()
        self._spoken([task] * units, sampling)
        return units / (self._clock() - began)

    def _spoken(self, tasks: Sequence[Task], sampling: Sampling) -> None:
        for future in self.run(tasks, sampling):
            future.result()

    def run(self, tasks: Sequence[Task], sampling: Sampling) -> list[Future[Pcm]]:
        """Speak `tasks`; returns when one more could be spoken. A lone one while nothing else runs has all threads."""
        self._busy = {future for future in self._busy if not future.done()}
        if self._lanes is None or (len(tasks) == 1 and not self._busy):
            return one_by_one(lambda task: self._speak(task, sampling), tasks)
        futures = [self._lanes.submit(self._speak, task, sampling) for task in tasks]
        self._busy |= {*futures}
        if len(self._busy) >= self._count:
            wait(self._busy, return_when=FIRST_COMPLETED)
        return futures

    def _speak(self, task: Task, sampling: Sampling) -> Pcm:
        with device_errors([task.sample.frames], "cpu"):
            (mel,) = self._sampler.sample([task.sample], sampling)
            with torch.inference_mode():
                wave = self._decode(mel.T[None])[0].numpy()
        return task.finished(wave)


def _of(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"
