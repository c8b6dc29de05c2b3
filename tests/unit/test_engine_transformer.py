"""Both attention paths, packed weights and half precision compute the same velocity, on any number of threads."""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from serve_app.domain import Sampling
from serve_app.engine import attention as attention_module
from serve_app.engine.attention import Layout, attention
from serve_app.engine.linear import make_linear, pack_linears, packs
from serve_app.engine.sampler import Sampler
from serve_app.engine.transformer import Transformer
from tests.support.stand_in_wheel import FLASH_ATTN_FILES
from tests.support.tiny_f5 import ARCHITECTURE, SMALL, random_dit, sample_inputs

CPU = torch.device("cpu")


def error(found: Tensor, expected: Tensor) -> float:
    """Relative error of the whole, in the Euclidean norm."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def flash_attn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in that computes what flash_attn does, from torch's own attention."""
    module = types.ModuleType("flash_attn")
    exec(FLASH_ATTN_FILES["flash_attn/__init__.py"], vars(module))
    monkeypatch.setitem(sys.modules, "flash_attn", module)


def seeded_dit(architecture: dict[str, Any], std: float = 0.2) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return random_dit(architecture, std=std)


@pytest.mark.usefixtures("flash_attn")
@pytest.mark.parametrize("frames", [(120,), (120, 120), (120, 61, 97)], ids=["one", "equal", "padded"])
@pytest.mark.parametrize("cfg_strength", [0.0, 2.0])
def test_the_attention_paths_agree(frames: tuple[int, ...], cfg_strength: float) -> None:
    """flash_attn's variable lengths and torch's mask give the same mel; its kernels themselves are for tests/gpu."""
    dit, sampling = seeded_dit(ARCHITECTURE), Sampling(7, cfg_strength)
    sdpa, flash = (
        Sampler(Transformer(dit, attention(path))).sample(sample_inputs(*frames), sampling)
        for path in ("sdpa", "flash_attn")
    )
    for found, expected in zip(flash, sdpa, strict=True):
        assert error(found, expected) <= 1e-5


def test_no_number_in_padding_is_heard() -> None:
    """Not even infinity or NaN, which half precision may overflow to there."""
    transformer = Transformer(seeded_dit(ARCHITECTURE), attention("sdpa"))
    velocity, sampler = transformer.velocity, Sampler(transformer)
    expected = sampler.sample(sample_inputs(120, 61, 97), Sampling(7))

    def overflowing(mel: Tensor, context: Tensor, layout: Layout, modulations: Tensor) -> Tensor:
        assert layout.valid is not None
        found = velocity(mel, context, layout, modulations)
        return found.masked_fill(~layout.valid[:, :, None], float("inf"))

    transformer.velocity = overflowing  # type: ignore[method-assign]
    for found, clean in zip(sampler.sample(sample_inputs(120, 61, 97), Sampling(7)), expected, strict=True):
        assert torch.equal(found, clean)


def test_layout() -> None:
    """Boundaries after each item and each padding, a mask of what is no padding, and none where there is none."""
    layout = Layout.of([3, 5, 2], 5, CPU)
    assert layout.boundaries.tolist() == [0, 3, 5, 10, 10, 12, 15]
    assert layout.valid is not None
    assert layout.valid.sum(1).tolist() == [3, 5, 2]
    assert Layout.of([5, 5], 5, CPU).valid is None


@pytest.mark.skipif(not packs(CPU, torch.float32), reason="torch has no oneDNN here")
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 2e-6), (torch.bfloat16, 0.005)])
@pytest.mark.parametrize("sharpness", [1, 4, 16])
@pytest.mark.parametrize("frames", [7, 300, 1500])
def test_attention_head_by_head(dtype: torch.dtype, limit: float, sharpness: int, frames: int) -> None:
    """What a CPU computes head by head is torch's attention, also where the queries are scored in more than one go, and
    where a head attends sharply: scores then are large, and half precision would not do for them."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, frames, 3, 64, generator=generator).to(dtype)
    query *= sharpness
    expected = functional.scaled_dot_product_attention(*(x.float().transpose(1, 2) for x in (query, key, value)))
    found = attention("sdpa")(query, key, value, Layout.of([frames] * 2, frames, CPU))
    assert found.shape == (2, frames, 3, 64)
    assert error(found, expected.transpose(1, 2)) <= limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gelu", [False, True])
def test_packed_weights_compute_the_same(dtype: torch.dtype, gelu: bool) -> None:
    """A linear layer in oneDNN's layout is torch's own, its activation included."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=generator).to(dtype) for size in ((2, 31, 64), (96, 64), (96,)))
    expected = functional.linear(x.float(), weight.float(), bias.float())
    if gelu:
        expected = functional.gelu(expected, approximate="tanh")
    assert error(make_linear(weight, bias, gelu=gelu)(x), expected) <= {torch.float32: 1e-6}.get(dtype, 0.01)


def test_a_cpu_without_instructions_for_bfloat16_still_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's operators refuse it there (an AMD Zen 3, for one), and torch's own do not."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert not packs(CPU, torch.bfloat16)
    assert packs(CPU, torch.float32)
    x, weight = torch.ones(3, 64, dtype=torch.bfloat16), torch.ones(96, 64, dtype=torch.bfloat16)
    assert torch.equal(make_linear(weight)(x), torch.full((3, 96), 64.0, dtype=torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(dtype: torch.dtype) -> None:
    """So the number of threads may be divided between units, and a unit's bytes are the same on any machine load."""
    dit = seeded_dit(SMALL, std=0.05).to(dtype)
    dit.time_embed.float()
    transformer = Transformer(dit, attention("sdpa"))
    mels = []
    for number in (1, 2):
        with threads(number):
            mels.append(Sampler(transformer).sample(sample_inputs(160), Sampling(nfe_steps=4))[0])
    assert torch.equal(*mels)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 0.001), (torch.bfloat16, 0.006)])
def test_half_precision_stays_near(dtype: torch.dtype, limit: float) -> None:
    """In half precision the mel stays as near to the exact one as it only does with times and angles in float32."""
    exact = Sampler(Transformer(seeded_dit(ARCHITECTURE), attention("sdpa")))
    dit = seeded_dit(ARCHITECTURE)
    inv_freq = dit.rotary_embed.inv_freq.clone()
    dit.to(dtype).time_embed.float()
    dit.rotary_embed.inv_freq = inv_freq
    half = Sampler(Transformer(dit, attention("sdpa")))
    (expected,), (found,) = (sampler.sample(sample_inputs(600), Sampling(nfe_steps=32)) for sampler in (exact, half))
    assert found.dtype == torch.float32
    assert error(found, expected) < limit


def test_every_linear_layer_of_a_module_can_be_packed() -> None:
    """As in the vocoder and the text encoder: the same answers, on any number of threads, also for few rows."""
    generator = torch.Generator().manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(384, 96), torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Linear(96, 64))
    )
    x = torch.randn(1, 7, 384, generator=generator)
    with torch.inference_mode():
        expected = module(x)
        pack_linears(module)
        answers = []
        for number in (1, 2):
            with threads(number):
                answers.append(module(x))
    assert error(answers[0], expected) <= 1e-6
    assert torch.equal(*answers)


def test_modulations_change_no_bit_with_threads() -> None:
    """A schedule has few rows, for which MKL's result would depend on the number of threads."""
    transformer, made = Transformer(seeded_dit(SMALL, std=0.05), attention("sdpa")), []
    for number in (1, 2):
        with threads(number):
            made.append(transformer.modulations(torch.linspace(0, 1, 7)))
    assert torch.equal(*made)


def test_long_scores_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory for scores is bounded: no more queries at once than HEAD_QUERIES."""
    sizes = []

    def spying(weight: Tensor) -> Any:
        product = make_linear(weight)
        return lambda x: (sizes.append(len(x)), product(x))[1]

    monkeypatch.setattr(attention_module, "make_linear", spying)
    query = torch.zeros(1, 2500, 1, 64)
    attention("sdpa")(query, query, query, Layout.of([2500], 2500, CPU))
    assert max(sizes) == attention_module.HEAD_QUERIES
