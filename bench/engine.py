"""The F5 engine beside upstream, on the same random weights, reference and texts, in turns: `python -m bench.engine`.

All streams send a text at once; fewer than four send their next when it is answered, until four texts are spoken (two
of `v1_base` on a CPU). On a CPU the grid is cut to what ends in half an hour; `--full` measures all of it, and is what
a GPU gets anyway.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from bench.contenders import Apart, Measured, one_by_one, ours, pool
from bench.random_f5 import write_random_f5
from bench.upstream import REFERENCE_TEXT
from serve_app.domain import BUILTIN, SpeechRequest, VoiceRef
from serve_app.engine.architecture import sizes
from serve_app.engine.f5 import BUILTIN_VOICES
from serve_app.engine.linear import make_linear
from serve_app.engine.load import F5Weights
from serve_app.planning import limits_for_f5, plan
from tests.support.tiny_f5 import ARCHITECTURE, SMALL

SIZES: dict[str, dict[str, Any]] = {"tiny": ARCHITECTURE, "small": SMALL, "v1_base": sizes("v1_base")}
STREAMS, STEPS = (1, 2, 4, 8, 16, 32), (7, 16, 32)
FULL = [(size, steps, streams) for size in SIZES for steps in STEPS for streams in STREAMS]
ON_A_CPU = [
    *(("tiny", 16, streams) for streams in (1, 4, 32)),
    *(("small", 16, streams) for streams in (1, 2, 4, 8)),
    ("small", 7, 4),
    ("small", 32, 4),
    ("v1_base", 7, 1),
    ("v1_base", 7, 2),
]
SECONDS = (8, 2, 20, 4, 14, 6, 17, 11)
REFERENCE_FRAMES, BYTES_PER_S = 500, len(REFERENCE_TEXT) / 5.333
WORDS = (
    "the birch canoe slid on smooth planks and a large size in stockings is hard to sell as the day began to end so "
)
COLUMNS = "size|NFE|streams|what|audio s/s|RTF|p50 s|p95 s|first unit p50 s|peak GB|% of matmul rate|RTF at that rate"


def text_of(seconds: float) -> str:
    """Sentences that take `seconds` at the pace of the reference."""
    wanted, sentence = round(seconds * BYTES_PER_S), 90
    words = (WORDS * (wanted // len(WORDS) + 1))[:wanted].strip()
    return " ".join(words[start : start + sentence].strip() + "." for start in range(0, len(words), sentence))


def frames_of(text: str) -> list[int]:
    """Mel frames of each unit of `text`, its reference included."""
    request = SpeechRequest(text, "f5", VoiceRef("basic_ref_en", BUILTIN), 1.0, 0, "")
    units = plan(request, limits_for_f5(BUILTIN_VOICES["basic_ref_en"], 1.0))
    return [REFERENCE_FRAMES + unit.frames for unit in units]


def flops(architecture: dict[str, Any], steps: int, frames: Sequence[int]) -> float:
    """Of all matrix products: steps * 2 (CFG) * frames * (depth * (16 dim^2 + 4 frames dim) + what is around them)."""
    dim, depth = architecture["dim"], architecture["depth"]
    around = 2 * dim * (2 * 100 + architecture["text_dim"]) + 2 * (2 * dim * (dim // 16) * 31) + 2 * dim * 100
    return sum(steps * 2 * n * (depth * (16 * dim**2 + 4 * n * dim) + around) for n in frames)


def matmul_rate(dtype: torch.dtype) -> float:
    """The device's own, in FLOP/s: the best of five times ten products of 2048 (GPU: 4096) x 1024 x 4096."""
    cuda = torch.cuda.is_available()
    rows = 4096 if cuda else 2048
    x, weight = (torch.randn(n, 1024, device="cuda" if cuda else "cpu", dtype=dtype) for n in (rows, 4096))
    linear, best = make_linear(weight), 0.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(10):
            linear(x)
        if cuda:
            torch.cuda.synchronize()
        best = max(best, 10 * 2 * rows * 1024 * 4096 / (time.perf_counter() - began))
    return best


def _rates() -> dict[torch.dtype, float]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        return {dtype: apart.submit(matmul_rate, dtype).result() for dtype in (*_precisions().values(),)}


def _precisions() -> dict[str, torch.dtype]:
    """By contender. Upstream's is its own choice; bfloat16 on a CPU only where it has the instructions."""
    if torch.cuda.is_available():
        half = torch.float16
        return {"upstream, one by one": half, "upstream, thread pool": half, "ours, float16": half} | {
            "ours, bfloat16": torch.bfloat16
        }
    single, found = torch.float32, Path("/proc/cpuinfo").read_text()
    names = {"upstream, one by one": single, "upstream, thread pool": single, "ours, float32": single}
    return names | ({"ours, bfloat16": torch.bfloat16} if "avx512_bf16" in found or "amx_bf16" in found else {})


def _contender(name: str, weights: F5Weights) -> Apart:
    if name.startswith("ours"):
        return Apart(ours(weights, name.removeprefix("ours, ")))
    return Apart(one_by_one(weights) if name == "upstream, one by one" else pool(weights))


def _row(name: str, point: tuple[str, int, int], rate: float, texts: Sequence[str], measured: Measured) -> str:
    size, steps, streams = point
    audio_s, latencies = sum(a.audio_s for a in measured.answers), [a.latency_s for a in measured.answers]
    work = flops(SIZES[size], steps, [n for text in texts for n in frames_of(text)])
    cells = [
        size,
        steps,
        streams,
        name,
        f"{audio_s / measured.took_s:.2f}",
        f"{measured.took_s / audio_s:.3f}",
        f"{statistics.median(latencies):.1f}",
        f"{statistics.quantiles(latencies, n=20, method='inclusive')[-1]:.1f}",
        f"{statistics.median(a.first_s for a in measured.answers):.2f}",
        f"{measured.peak_bytes / 1e9:.1f}",
        f"{100 * work / measured.took_s / rate:.0f}",
        f"{work / rate / audio_s:.4f}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def main(grid: Sequence[tuple[str, int, int]] | None = None) -> str:
    """The table in Markdown; its rows are printed as they are measured."""
    cuda = torch.cuda.is_available()
    grid = grid or (FULL if cuda else ON_A_CPU)
    where = torch.cuda.get_device_name() if cuda else f"{os.cpu_count()} CPU cores"
    rates = _rates()
    told = ", ".join(f"{str(dtype)[6:]} {rate / 1e12:.2f}" for dtype, rate in rates.items())
    lines = [f"{where}, torch {torch.__version__}; matrix products in TFLOP/s, measured: {told}\n"]
    lines += ["| " + COLUMNS.replace("|", " | ") + " |", "|---" * 12 + "|"]
    for size in dict.fromkeys(size for size, _, _ in grid):
        with tempfile.TemporaryDirectory() as folder:
            weights = write_random_f5(Path(folder) / "weights", SIZES[size])
            contenders = {name: _contender(name, weights) for name in _precisions()}
            for point in (point for point in grid if point[0] == size):
                count = max(point[2], 2 if size == "v1_base" and not cuda else 4)
                texts = [text_of(SECONDS[index % len(SECONDS)]) for index in range(count)]
                for name, contender in contenders.items():
                    measured = contender.run(texts, *point[1:])
                    lines.append(_row(name, point, rates[_precisions()[name]], texts, measured))
                    print(lines[-1], flush=True)
            for contender in contenders.values():
                contender.close()
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the whole grid on a CPU too: hours")
    parser.add_argument("--size", choices=SIZES, help="only this size")
    asked = parser.parse_args()
    every = FULL if asked.full or torch.cuda.is_available() else ON_A_CPU
    print("\n" + main([point for point in every if asked.size in (None, point[0])]))
