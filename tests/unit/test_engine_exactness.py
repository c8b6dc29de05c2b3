"""At three sizes, the largest F5TTS_v1_Base's own: a batch, its order and its padding change nothing but rounding.

Upstream's sampler is the measure. Weights are random; see tests/support/tiny_f5.py for why none is zero.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from serve_app.domain import Sampling
from serve_app.engine.architecture import sizes
from serve_app.engine.attention import attention
from serve_app.engine.graphs import Bucket, Graphs, buckets_within
from serve_app.engine.load import import_f5_tts
from serve_app.engine.sampler import SampleInput, Sampler
from serve_app.engine.transformer import Transformer
from tests.support.tiny_f5 import ARCHITECTURE, SMALL, VOCAB_SIZE, random_dit

ROUNDING = 1e-5
LENGTHS = ((20, 15, 60), (12, 20, 31), (30, 6, 48), (16, 10, 70), (24, 5, 38), (10, 26, 66), (35, 17, 55), (3, 3, 32))
"""Of eight items: frames of the reference, tokens of the text, frames in all."""


@dataclass
class Size:
    """A model of one size with its upstream, and how it is sampled here: large ones in fewer steps."""

    transformer: Transformer
    upstream: Any
    sampling: Sampling


@pytest.fixture(scope="module", params=["tiny", "small", pytest.param("v1_base", marks=pytest.mark.long)])
def size(request: pytest.FixtureRequest) -> Iterator[Size]:
    import_f5_tts()
    from f5_tts.model.cfm import CFM

    architecture, std, steps = {
        "tiny": (ARCHITECTURE, 0.2, 7),
        "small": (SMALL, 0.05, 7),
        "v1_base": (sizes("v1_base"), 0.05, 2),
    }[request.param]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dit = random_dit(architecture, std=std)
    yield Size(Transformer(dit, attention("sdpa")), CFM(transformer=dit), Sampling(nfe_steps=steps))
    torch.set_num_threads(threads)


def items() -> list[SampleInput]:
    generator = torch.Generator().manual_seed(0)
    return [
        SampleInput(
            torch.randn(reference, 100, generator=generator) * 2 - 4,
            torch.randint(VOCAB_SIZE, (tokens,), generator=generator),
            frames,
            seed,
        )
        for seed, (reference, tokens, frames) in enumerate(LENGTHS)
    ]


@pytest.fixture(scope="module")
def alone(size: Size) -> list[Tensor]:
    """Each item sampled by itself."""
    sampler = Sampler(size.transformer)
    return [sampler.sample([one], size.sampling)[0] for one in items()]


def worst(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative error of any item."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


class Again:
    """Stands for the recorder of CUDA graphs on a CPU: does the work itself each time it is replayed."""

    def __init__(self) -> None:
        self.replays = 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        def again() -> None:
            self.replays += 1
            work()

        work()
        return again


def test_agrees_with_upstream(size: Size, alone: list[Tensor]) -> None:
    """Each item's mel is that of upstream's sampler, which is given the reference as a mel: no frame of it leaks."""
    for one, found in zip(items()[:4], alone, strict=False):
        mel, _ = size.upstream.sample(
            one.reference[None],
            one.token_ids[None],
            one.frames,
            steps=size.sampling.nfe_steps,
            cfg_strength=size.sampling.cfg_strength,
            sway_sampling_coef=size.sampling.sway,
            seed=one.seed,
        )
        assert worst([found], [mel[0, len(one.reference) :]]) <= ROUNDING


def test_alone_and_in_a_batch_of_eight(size: Size, alone: list[Tensor]) -> None:
    """Eight items of mixed lengths in one batch are what each is alone."""
    assert worst(Sampler(size.transformer).sample(items(), size.sampling), alone) <= ROUNDING


def test_in_any_order(size: Size, alone: list[Tensor]) -> None:
    """The order in the batch changes nothing."""
    order = [5, 0, 7, 2, 6, 1, 4, 3]
    shuffled = Sampler(size.transformer).sample([items()[index] for index in order], size.sampling)
    assert worst(shuffled, [alone[index] for index in order]) <= ROUNDING


@pytest.mark.parametrize("bucket", [Bucket(8, 102), Bucket(11, 80)], ids=str)
def test_in_any_bucket(size: Size, alone: list[Tensor], bucket: Bucket) -> None:
    """Frames and units that a bucket adds are not heard, in its first batch nor after another."""
    recorder = Again()
    graphs = Graphs(size.transformer, recorder, [bucket])
    sampler = Sampler(size.transformer, graphs)
    assert worst(sampler.sample(items(), size.sampling), alone) <= ROUNDING
    assert worst(sampler.sample(items()[1:3], size.sampling), alone[1:3]) <= ROUNDING
    assert recorder.replays == 2 * size.sampling.nfe_steps  # both batches went through the bucket


def test_buckets_are_bounded() -> None:
    """At most 64, whatever the memory; fewer where it is short; the largest first."""
    assert len(buckets_within(10**9)) == 64
    assert buckets_within(1100) == (Bucket(1, 1024), Bucket(2, 512), Bucket(1, 768), Bucket(1, 640), Bucket(1, 512))
    assert buckets_within(500) == ()


def test_what_fits_no_bucket_is_integrated_all_the_same() -> None:
    """Too many units, no guidance, or a large bucket half empty: without a graph; else the smallest bucket is taken."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = Transformer(random_dit(ARCHITECTURE), attention("sdpa"))
    replays: list[Bucket] = []

    class Counting:
        def __init__(self) -> None:
            self.buckets = iter([Bucket(2, 70), Bucket(4, 70)])

        def record(self, work: Callable[[], None]) -> Callable[[], None]:
            bucket = next(self.buckets)
            return lambda: (replays.append(bucket), work())[1]

    graphs = Graphs(transformer, Counting(), [Bucket(2, 70), Bucket(4, 70)])
    sampler, plain = Sampler(transformer, graphs), Sampler(transformer)
    one_step = Sampling(nfe_steps=1)
    for batch, sampling, expected in (
        (items()[:1], one_step, [Bucket(2, 70)]),
        (items()[:3], one_step, [Bucket(4, 70)]),
        (items()[:5], one_step, []),
        (items()[:2], Sampling(nfe_steps=1, cfg_strength=0), []),
    ):
        replays.clear()
        assert worst(sampler.sample(batch, sampling), plain.sample(batch, sampling)) <= ROUNDING
        assert replays == expected
    assert graphs.bucket([50, 60, 70]) == Bucket(4, 70)
    assert graphs.bucket([71]) is None
    larger = Graphs(transformer, Again(), [Bucket(4, 700)])
    assert larger.bucket([690] * 4) == Bucket(4, 700)
    assert larger.bucket([400] * 4) is None  # 2800 frames for 1600
