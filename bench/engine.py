"""The F5 engine beside upstream, on the same random weights, reference and texts, in turns: `python -m bench.engine`.

All streams send a text at once; fewer than four send their next when it is answered, until four texts are spoken. On a
CPU the grid is cut to what ends in half an hour; `--full` measures all of it, and is what a GPU gets anyway.
"""

import argparse
import asyncio
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.random_f5 import write_random_f5
from bench.upstream import REFERENCE_TEXT, Upstream
from serve_app.domain import BUILTIN, Pcm, Sampling, SpeechRequest, Unit, VoiceRef
from serve_app.engine.architecture import sizes
from serve_app.engine.f5 import BUILTIN_VOICES, F5Engine
from serve_app.engine.linear import make_linear
from serve_app.engine.load import F5Weights
from serve_app.models import speaking
from serve_app.planning import limits_for_f5, plan
from serve_app.settings import F5Settings
from serve_app.speech import Speaker
from serve_app.synthesis import SynthesisService
from tests.support.tiny_f5 import ARCHITECTURE, SMALL

SIZES: dict[str, dict[str, Any]] = {"tiny": ARCHITECTURE, "small": SMALL, "v1_base": sizes("v1_base")}
STREAMS, STEPS = (1, 2, 4, 8, 16, 32), (7, 16, 32)
FULL = [(size, steps, streams) for size in SIZES for steps in STEPS for streams in STREAMS]
ON_A_CPU = [
    *(("tiny", 16, streams) for streams in STREAMS),
    *(("small", 16, streams) for streams in (1, 2, 4, 8)),
    ("small", 7, 4),
    ("small", 32, 4),
    ("v1_base", 7, 2),
]
SECONDS = (8, 2, 20, 4, 14, 6, 17, 11)
REFERENCE_FRAMES, BYTES_PER_S = 500, len(REFERENCE_TEXT) / 5.333
WORDS = (
    "the birch canoe slid on smooth planks and a large size in stockings is hard to sell as the day began to end so "
)


@dataclass
class Answer:
    """Seconds until the first unit's audio was there and until the last's, and the seconds of audio."""

    first_s: float
    latency_s: float
    audio_s: float


class Ours:
    """The service's own path from a request to its audio, without Ray and HTTP: plan, batcher, engine, cross-fade."""

    def __init__(self, weights: F5Weights, dtype: Any) -> None:
        self.engine = F5Engine(weights, dtype=dtype)
        self.engine.warm_up()

    async def run(self, texts: Sequence[str], steps: int, streams: int) -> list[Answer]:
        firsts: dict[str, float] = {}
        service = SynthesisService(self.engine, voices=None, model="f5")  # type: ignore[arg-type]  # built-in voice only

        class Noting:
            async def synthesize(self, unit: Unit) -> Pcm:
                audio = await service.synthesize(unit)
                if unit.index == 0:
                    firsts[unit.request_id] = time.perf_counter()
                return audio

        speaker = Speaker({"f5": speaking(F5Settings(), Noting())}, voices=None)  # type: ignore[arg-type]  # as above

        async def speak(index: int, text: str) -> Answer:
            began, voice = time.perf_counter(), VoiceRef("basic_ref_en", BUILTIN)
            request = SpeechRequest(text, "f5", voice, 1.0, index, f"{index}", sampling=Sampling(steps))
            speech = await speaker.speak(request)
            return Answer(firsts[f"{index}"] - began, time.perf_counter() - began, speech.duration_s)

        answers = await _streamed(texts, streams, speak)
        await service.close()
        return answers


class OneByOne:
    """Upstream behind a lock: a stream waits for those before it."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream

    async def run(self, texts: Sequence[str], steps: int, streams: int) -> list[Answer]:
        lock = asyncio.Lock()

        async def speak(index: int, text: str) -> Answer:
            began = time.perf_counter()
            async with lock:
                samples = await asyncio.to_thread(self.upstream.speak, text, steps)
            took = time.perf_counter() - began
            return Answer(took, took, samples / 24_000)

        return await _streamed(texts, streams, speak)


class Pool:
    """Upstream's thread pool with as many texts at once as there are streams; all are answered together."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

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


def text_of(seconds: float) -> str:
    """Sentences that take `seconds` at the pace of the reference."""
    wanted, sentence = round(seconds * BYTES_PER_S), 90
    words = (WORDS * (wanted // len(WORDS) + 1))[:wanted].strip()
    return " ".join(words[start : start + sentence].strip() + "." for start in range(0, len(words), sentence))


def frames_of(text: str) -> list[int]:
    """Mel frames of each unit of `text`, its reference included."""
    request = SpeechRequest(text, "f5", VoiceRef("basic_ref_en", BUILTIN), 1.0, 0, "")
    return [
        REFERENCE_FRAMES + unit.frames for unit in plan(request, limits_for_f5(BUILTIN_VOICES["basic_ref_en"], 1.0))
    ]


def flops(architecture: dict[str, Any], steps: int, frames: Sequence[int]) -> float:
    """Of all matrix products: steps * 2 (CFG) * frames * (depth * (16 dim^2 + 4 frames dim) + what is around them)."""
    dim, depth = architecture["dim"], architecture["depth"]
    around = 2 * dim * (2 * 100 + architecture["text_dim"]) + 2 * (2 * dim * (dim // 16) * 31) + 2 * dim * 100
    return sum(steps * 2 * n * (depth * (16 * dim**2 + 4 * n * dim) + around) for n in frames)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The device's own, in FLOP/s: the best of five times ten products of 2048 (GPU: 4096) x 1024 x 4096."""
    rows = 4096 if device.type == "cuda" else 2048
    x, weight = (torch.randn(n, 1024, device=device, dtype=dtype) for n in (rows, 4096))
    linear, best = make_linear(weight), 0.0
    for _ in range(5):
        _synchronise(device)
        began = time.perf_counter()
        for _ in range(10):
            linear(x)
        _synchronise(device)
        best = max(best, 10 * 2 * rows * 1024 * 4096 / (time.perf_counter() - began))
    return best


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _resident_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_reserved()
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _row(
    name: str, point: tuple[str, int, int], device: torch.device, rate: float, contender: Any, loaded_bytes: int
) -> str:
    size, steps, streams = point
    texts = [text_of(SECONDS[index % len(SECONDS)]) for index in range(max(streams, 2 if size == "v1_base" else 4))]
    _reset_peak(device)
    before = _peak_bytes(device)
    began = time.perf_counter()
    answers = asyncio.run(contender.run(texts, steps, streams))
    took = time.perf_counter() - began
    audio_s, latencies = sum(a.audio_s for a in answers), [a.latency_s for a in answers]
    work = flops(SIZES[size], steps, [n for text in texts for n in frames_of(text)])
    p95 = statistics.quantiles(latencies, n=20, method="inclusive")[-1]
    cells = [
        size,
        steps,
        streams,
        name,
        f"{audio_s / took:.2f}",
        f"{took / audio_s:.3f}",
        f"{statistics.median(latencies):.1f}",
        f"{p95:.1f}",
        f"{statistics.median(a.first_s for a in answers):.2f}",
        f"{(loaded_bytes + _peak_bytes(device) - before) / 1e9:.1f}",
        f"{100 * work / took / rate:.0f}",
        f"{work / rate / audio_s:.4f}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" or any(
        f"{name}_bf16" in Path("/proc/cpuinfo").read_text() for name in ("avx512", "amx")
    )


def main(grid: Sequence[tuple[str, int, int]] | None = None) -> str:
    """The table in Markdown; printed as it grows."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    grid = grid or (FULL if device.type == "cuda" else ON_A_CPU)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    rates = {dtype: matmul_rate(device, dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)}
    measured = ", ".join(f"{str(dtype)[6:]} {rate / 1e12:.2f}" for dtype, rate in rates.items())
    lines = [f"{where}, torch {torch.__version__}; matrix products in TFLOP/s, measured: {measured}\n"]
    columns = "size|NFE|streams|what|audio s/s|RTF|p50 s|p95 s|first unit p50 s|GB|% of matmul rate|RTF at that rate"
    lines += ["| " + columns.replace("|", " | ") + " |", "|---" * 12 + "|"]
    for size in dict.fromkeys(size for size, _, _ in grid):
        with tempfile.TemporaryDirectory() as folder:
            contenders = _contenders(write_random_f5(Path(folder) / "weights", SIZES[size]), device)
            theirs = torch.float16 if device.type == "cuda" else torch.float32
            for point in (point for point in grid if point[0] == size):
                for name, (contender, loaded_bytes) in contenders.items():
                    dtype = contender.engine.dtype if isinstance(contender, Ours) else theirs
                    lines.append(_row(name, point, device, rates[dtype], contender, loaded_bytes))
                    print(lines[-1], flush=True)
            del contender, contenders  # a GPU holds one size at a time
    return "\n".join(lines)


def _contenders(weights: F5Weights, device: torch.device) -> dict[str, tuple[Any, int]]:
    """Each with the bytes that it took to load it and to speak one text, which is not measured."""
    contenders: dict[str, tuple[Any, int]] = {}

    def add(name: str, make: Callable[[], Any]) -> Any:
        before = _resident_bytes(device)
        contender = make()
        asyncio.run(contender.run([text_of(2)], 4, 1))
        contenders[name] = contender, max(_resident_bytes(device) - before, 0)
        return contender

    one_by_one = add("upstream, one by one", lambda: OneByOne(Upstream(weights, device)))
    contenders["upstream, thread pool"] = Pool(one_by_one.upstream), contenders["upstream, one by one"][1]
    for dtype in _dtypes(device):
        add(f"ours, {dtype}", partial(Ours, weights, dtype))
    return contenders


def _dtypes(device: torch.device) -> list[str]:
    own = ["float16", "bfloat16"] if device.type == "cuda" else ["float32", "bfloat16"]
    return [dtype for dtype in own if dtype != "bfloat16" or _has_bfloat16(device)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the whole grid on a CPU too: hours")
    parser.add_argument("--size", choices=SIZES, help="only this size")
    asked = parser.parse_args()
    every = FULL if asked.full or torch.cuda.is_available() else ON_A_CPU
    print("\n" + main([point for point in every if asked.size in (None, point[0])]))
