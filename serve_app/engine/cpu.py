"""Runs the F5 model on a CPU: single units, as many side by side as a short measurement says.

A masked batch on a CPU is slower than its units one by one (102 s against 57 s for eight, 19.6 M parameters), so there
is none. What pays is to divide the threads between units: one that computes on a single thread waits for no other. A
unit's bytes depend neither on the number of threads nor on who else is speaking.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

import torch
from torch import Tensor

from serve_app.domain import Pcm, Sampling
from serve_app.engine.protocol import BatchLimits, one_by_one
from serve_app.engine.sampler import Sampler
from serve_app.engine.task import WARM_UP_STEPS, Task, device_errors
from serve_app.engine.transformer import MAX_FRAMES

__all__ = ["CpuExecution"]

WORTH_DIVIDING = 1.1
"""So many times the audio per second the next division of the threads must give to be taken."""


class CpuExecution:
    """Samples with `sampler`, decodes with `decode`: (1, n_mels, frames) to (1, samples).

    `run` is for one thread at a time. `clock` gives seconds.
    """

    def __init__(
        self, sampler: Sampler, decode: Callable[[Tensor], Tensor], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._sampler = sampler
        self._decode = decode
        self._clock = clock
        self._threads = torch.get_num_threads()
        self._lanes: ThreadPoolExecutor | None = None
        self._count = 1
        self._gain = 1.0

    @property
    def limits(self) -> BatchLimits:
        """A unit for each lane."""
        return BatchLimits(max_units=self._count, max_frames=self._count * MAX_FRAMES)

    @property
    def batching(self) -> str:
        """How units share the CPU, for `/health`."""
        if self._lanes is None:
            return f"one unit at a time on {self._threads} threads"
        each = self._threads // self._count
        return f"{self._count} units at once on {each} threads each, measured {self._gain:.2f} times one at a time"

    def computed_frames(self, frames: Sequence[int]) -> int:
        """There is no padding."""
        return sum(frames)

    def warm_up(self, task: Task, sampling: Sampling) -> None:
        """Speak `task` once, then measure whether the threads should be divided, and among how many units.

        The schedule of `sampling`, the model's own, is made ready.
        """
        self._sampler.schedule(sampling)
        _raised(self.run([task], replace(sampling, nfe_steps=WARM_UP_STEPS)))
        if self._threads == 1:
            return
        short = replace(sampling, nfe_steps=1)
        _raised(self.run([task], short))
        best = self._rate(1, task, short)
        lanes, single = 2, best
        while lanes <= self._threads:
            before = (self._lanes, self._count)
            self._lanes, self._count = _divided(self._threads, lanes), lanes
            _raised(self.run([task] * lanes, short))  # threads begin cold
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
        _raised(self.run([task] * units, sampling))
        return units / (self._clock() - began)

    def run(self, tasks: Sequence[Task], sampling: Sampling) -> list[Future[Pcm]]:
        """Speak `tasks`; their waveforms or errors."""
        if self._lanes is None or len(tasks) == 1:
            return one_by_one(lambda task: self._speak(task, sampling), tasks)
        self._sampler.schedule(sampling)  # made once, not once in each lane
        futures = [self._lanes.submit(self._speak, task, sampling) for task in tasks]
        wait(futures)
        return futures

    def _speak(self, task: Task, sampling: Sampling) -> Pcm:
        with device_errors([task.sample.frames], "cpu"):
            (mel,) = self._sampler.sample([task.sample], sampling)
            with torch.inference_mode():
                wave = self._decode(mel.T[None])[0].numpy()
        return task.finished(wave)


def _raised(futures: Sequence[Future[Pcm]]) -> None:
    for future in futures:
        future.result()


def _divided(threads: int, lanes: int) -> ThreadPoolExecutor:
    """A pool of `lanes` threads, each of which computes on its part of `threads`.

    torch keeps the number in each thread, but gives the latest one to threads that are new: so all lanes are set
    before the old number is given back.
    """
    pool, together = ThreadPoolExecutor(lanes, thread_name_prefix="lane"), threading.Barrier(lanes)

    def settle() -> None:
        torch.get_num_threads()  # what is set before a thread's first look is forgotten at that look
        torch.set_num_threads(threads // lanes)
        together.wait()

    wait([pool.submit(settle) for _ in range(lanes)])
    torch.set_num_threads(threads)
    return pool
