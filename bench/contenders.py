"""Who is measured by `engine.py`: ours, and upstream in the two ways that its users run it; each in its own process.

So that memory is each one's own, and so is what a maths library and the allocator of a process do with it.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from bench.upstream import Upstream
from serve_app.domain import BUILTIN, Sampling, SpeechRequest, SpokenUnit, Unit, VoiceRef
from serve_app.engine.f5 import F5Engine
from serve_app.engine.load import F5Weights
from serve_app.models import speaking
from serve_app.settings import F5Settings
from serve_app.speech import Speaker
from serve_app.synthesis import SynthesisService

__all__ = ["Answer", "Apart", "Measured", "one_by_one", "ours", "pool"]

WARM_UP = "This is not measured."


@dataclass
class Answer:
    """Seconds until the first unit's audio was there and until the last's, and the seconds of audio."""

    first_s: float
    latency_s: float
    audio_s: float


@dataclass
class Measured:
    """Answers to all texts, how long they took together, and the most memory that the process has held so far."""

    answers: list[Answer]
    took_s: float
    peak_bytes: int


class Contender(Protocol):
    async def run(self, texts: Sequence[str], steps: int, streams: int) -> list[Answer]:
        """Speak `texts` with so many streams at once."""
        ...


class Ours:
    """The service's own path from a request to its audio, without Ray and HTTP: plan, batcher, engine, cross-fade."""

    def __init__(self, weights: F5Weights, dtype: Any) -> None:
        self._thread = ThreadPoolExecutor(1)  # as in a replica, all that computes is in one thread
        self._engine = self._thread.submit(F5Engine, weights, dtype=dtype).result()
        self._thread.submit(self._engine.warm_up).result()

    async def run(self, texts: Sequence[str], steps: int, streams: int) -> list[Answer]:
        firsts: dict[int, float] = {}
        voices: Any = None  # never asked: the voice is built in
        service = SynthesisService(self._engine, voices, "f5", executor=self._thread)

        class Noting:
            async def synthesize(self, unit: Unit) -> SpokenUnit:
                spoken = await service.synthesize(unit)
                if unit.index == 0:
                    firsts[int(unit.request_id)] = time.perf_counter()
                return spoken

        speaker = Speaker({"f5": speaking(F5Settings(), Noting())}, voices)

        async def speak(index: int, text: str) -> Answer:
            began, voice = time.perf_counter(), VoiceRef("basic_ref_en", BUILTIN)
            request = SpeechRequest(text, "f5", voice, 1.0, index, str(index), sampling=Sampling(steps))
            speech = await speaker.speak(request)
            return Answer(firsts[index] - began, time.perf_counter() - began, speech.duration_s)

        answers = await _streamed(texts, streams, speak)
        await service.close()
        return answers


class OneByOne:
    """Upstream behind a lock: a stream waits for those before it."""

    def __init__(self, weights: F5Weights) -> None:
        self._upstream = Upstream(weights, _device())

    async def run(self, texts: Sequence[str], steps: int, streams: int) -> list[Answer]:
        lock = asyncio.Lock()

        async def speak(index: int, text: str) -> Answer:
            began = time.perf_counter()
            async with lock:
                samples = await asyncio.to_thread(self._upstream.speak, text, steps)
            took = time.perf_counter() - began
            return Answer(took, took, samples / 24_000)

        return await _streamed(texts, streams, speak)


class Pool:
    """Upstream's thread pool with as many texts at once as there are streams; all are answered together."""

    def __init__(self, weights: F5Weights) -> None:
        self._upstream = Upstream(weights, _device())

    async def run(self, texts: Sequence[str], steps: int, streams: int) -> list[Answer]:
        answers = []
        for start in range(0, len(texts), streams):
            group, began = texts[start : start + streams], time.perf_counter()
            samples = self._upstream.speak_in_pool(group, steps)
            took = time.perf_counter() - began
            answers += [Answer(took, took, samples / 24_000 / len(group)) for _ in group]
        return answers


async def _streamed(texts: Sequence[str], streams: int, speak: Callable[[int, str], Awaitable[Answer]]) -> list[Answer]:
    waiting = list(enumerate(texts))
    answers: list[Answer] = []

    async def stream() -> None:
        while waiting:
            answers.append(await speak(*waiting.pop(0)))

    await asyncio.gather(*(stream() for _ in range(streams)))
    return answers


def ours(weights: F5Weights, dtype: str) -> Callable[[], Contender]:
    return partial(Ours, weights, dtype)


def one_by_one(weights: F5Weights) -> Callable[[], Contender]:
    return partial(OneByOne, weights)


def pool(weights: F5Weights) -> Callable[[], Contender]:
    return partial(Pool, weights)


class Apart:
    """A contender in a process of its own, warm: it has spoken once."""

    def __init__(self, make: Callable[[], Contender]) -> None:
        context = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, mp_context=context, initializer=_settle, initargs=(make,))

    def run(self, texts: Sequence[str], steps: int, streams: int) -> Measured:
        return self._process.submit(_measured, texts, steps, streams).result()

    def close(self) -> None:
        self._process.shutdown()


_HERE: list[Contender] = []
"""The one contender of a process."""


def _settle(make: Callable[[], Contender]) -> None:
    _HERE.append(make())
    asyncio.run(_HERE[0].run([WARM_UP], 4, 1))


def _measured(texts: Sequence[str], steps: int, streams: int) -> Measured:
    began = time.perf_counter()
    answers = asyncio.run(_HERE[0].run(texts, steps, streams))
    return Measured(answers, time.perf_counter() - began, _peak_bytes())


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
