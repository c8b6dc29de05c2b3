"""On a GPU: precisions, attention paths, graphs and batches agree within stated bounds, and memory does not grow."""

import copy
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from serve_app.domain import BUILTIN, Sampling, Unit, VoiceRef
from serve_app.engine.attention import attention
from serve_app.engine.cuda import CudaExecution, _Decoder
from serve_app.engine.f5 import F5Engine
from serve_app.engine.graphs import Bucket, CudaRecorder, Graphs
from serve_app.engine.hardware import choose_attention
from serve_app.engine.protocol import EngineInput, speak
from serve_app.engine.sampler import SampleInput, Sampler
from serve_app.engine.transformer import Transformer
from tests.support.tiny_f5 import sample_inputs, write_tiny_f5

CUDA = torch.device("cuda", 0)
SIXTEEN = Sampling(nfe_steps=16)
BOUNDS = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Relative error of a mel against float32 on the CPU. On random weights, which exaggerate; float32 is TF32-free."""

LENGTHS = (300, 211, 257, 140, 299, 180, 222, 263)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu() - expected.cpu()).norm() / expected.cpu().norm())


def on_gpu(dit: Any, dtype: torch.dtype) -> Any:
    inv_freq = dit.rotary_embed.inv_freq.clone()
    moved = copy.deepcopy(dit).to(CUDA, dtype)
    moved.rotary_embed.inv_freq = inv_freq.to(CUDA)
    moved.time_embed.float()
    return moved


def sampler(dit: Any, dtype: torch.dtype, path: Any = "sdpa") -> Sampler:
    return Sampler(Transformer(on_gpu(dit, dtype), attention(path)))


@pytest.mark.parametrize("dtype", list(BOUNDS), ids=str)
def test_precisions_stay_near_float32_on_the_cpu(dit: Any, dtype: torch.dtype) -> None:
    """The same seed on the GPU is the CPU's mel within the bound of the precision; `make test-gpu` prints the error."""
    exact = Sampler(Transformer(dit, attention("sdpa"))).sample(sample_inputs(220), SIXTEEN)[0]
    found = error(sampler(dit, dtype).sample(sample_inputs(220), SIXTEEN)[0], exact)
    print(f"{torch.cuda.get_device_name()}, {dtype}: relative error {found:.2g}")
    assert found <= BOUNDS[dtype]


@pytest.mark.parametrize(
    ("dtype", "path", "limit"), [(torch.float32, "sdpa", 1e-3), (torch.float16, "flash_attn", 0.02)]
)
def test_agrees_with_upstream_on_the_gpu(dit: Any, dtype: torch.dtype, path: Any, limit: float) -> None:
    """Both attention paths, with upstream's own sampler there in float32."""
    from f5_tts.model.cfm import CFM

    if path == "flash_attn" and (choice := choose_attention("auto", CUDA, dtype)).path != path:
        pytest.skip(choice.reason)

    theirs, (one,) = CFM(transformer=on_gpu(dit, torch.float32)), sample_inputs(220)
    expected, _ = theirs.sample(
        one.reference[None].to(CUDA), one.token_ids[None].to(CUDA), 220, steps=16, cfg_strength=2.0,
        sway_sampling_coef=-1.0, seed=one.seed,
    )  # fmt: skip
    torch.manual_seed(one.seed)
    noise = torch.randn(220, 100, device=CUDA)  # upstream draws on the device
    given = SampleInput(one.reference, one.token_ids, 220, one.seed, noise.cpu())
    found = sampler(dit, dtype, path).sample([given], SIXTEEN)[0]
    assert error(found, expected[0, len(one.reference) :]) <= limit


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-4), (torch.float16, 0.02), (torch.bfloat16, 0.1)], ids=str
)
def test_a_batch_changes_only_rounding(dit: Any, dtype: torch.dtype, limit: float) -> None:
    """Alone and among eight of mixed lengths, in every precision that is served."""
    ours = sampler(dit, dtype)
    alone = [ours.sample([one], SIXTEEN)[0] for one in sample_inputs(*LENGTHS)]
    for found, expected in zip(ours.sample(sample_inputs(*LENGTHS), SIXTEEN), alone, strict=True):
        assert error(found, expected) <= limit


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_flash_attn_agrees_with_sdpa(dit: Any, dtype: torch.dtype) -> None:
    """Without padding, in a padded batch, and for one item."""
    pytest.importorskip("flash_attn", reason="flash_attn is not installed beside this torch")
    if (choice := choose_attention("auto", CUDA, dtype)).path != "flash_attn":
        pytest.skip(choice.reason)
    for frames in ((220,), (220, 220), LENGTHS):
        sdpa, flash = (
            sampler(dit, dtype, path).sample(sample_inputs(*frames), SIXTEEN) for path in ("sdpa", "flash_attn")
        )
        for found, expected in zip(flash, sdpa, strict=True):
            assert error(found, expected) <= BOUNDS[dtype]


@pytest.mark.parametrize("path", ["sdpa", "flash_attn"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_graphs_agree_with_eager(dit: Any, dtype: torch.dtype, path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every bucket, also one larger than the batch, one batch after another, at other strengths and schedules."""
    if path == "flash_attn" and (choice := choose_attention("auto", CUDA, dtype)).path != path:
        pytest.skip(choice.reason)
    transformer = Transformer(on_gpu(dit, dtype), attention(path))
    monkeypatch.setattr("serve_app.engine.graphs.MAX_COST", 100)  # even where it is not worth it
    graphs = Graphs(transformer, CudaRecorder(), [Bucket(8, 512), Bucket(2, 512), Bucket(8, 320), Bucket(1, 320)])
    replayed, eager = Sampler(transformer, graphs), Sampler(transformer)
    for frames in ((220,), LENGTHS[:2], LENGTHS, (500, 140), (140, 500), (500, *LENGTHS[1:]), LENGTHS):
        for sampling in (SIXTEEN, Sampling(7, 3.0, 0.0)):
            found, expected = (one.sample(sample_inputs(*frames), sampling) for one in (replayed, eager))
            assert max(map(error, found, expected)) <= BOUNDS[dtype] / 4


def test_a_thousand_batches_without_growth(tmp_path: Path) -> None:
    """Through the whole engine, graphs and decoding included: what is allocated after 100 batches stays."""
    engine = F5Engine(write_tiny_f5(tmp_path), device="cuda", sampling=Sampling(4))
    engine.warm_up()
    texts = ("Short.", "I have been a silent spectator.", "The birch canoe slid on the smooth planks, and so did I.")

    def batch(index: int) -> None:
        voice = VoiceRef("basic_ref_en", BUILTIN)
        units = [Unit(n, texts[(index + n) % 3], voice, 1.0, index, 0, "r") for n in range(1 + index % 8)]
        for wave in speak(engine, *(EngineInput(unit, None) for unit in units)):
            assert np.isfinite(wave).all()

    def settle() -> None:
        last = engine._execution._decoder._last  # may still hold the mels that it has answered
        assert last is not None
        last.result()
        torch.cuda.synchronize()

    for index in range(100):
        batch(index)
    settle()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for index in range(1000):
        batch(index)
    settle()
    assert torch.cuda.memory_allocated() <= before[0]
    assert torch.cuda.memory_reserved() <= 1.1 * before[1]


def test_a_warm_engine_knows_its_memory(tmp_path: Path) -> None:
    """Limits come from the free memory, graphs are recorded, and padding is what the bucket costs."""
    engine = F5Engine(write_tiny_f5(tmp_path), device="cuda", sampling=Sampling(4))
    assert engine.batch_limits.max_units == 1
    engine.warm_up()
    assert engine.batch_limits.max_units == 16
    assert engine.batch_limits.max_frames >= 2812
    assert engine.computed_frames([500, 600, 700]) == 3 * 768
    assert "in CUDA graphs" in engine.runtime["batching"]


def test_the_next_batch_begins_while_one_is_decoded(tmp_path: Path) -> None:
    """`synthesize` samples a second batch while the vocoder is held with the first; both answers are right."""
    engine = F5Engine(write_tiny_f5(tmp_path), device="cuda", sampling=Sampling(4))
    execution = engine._execution
    assert isinstance(execution, CudaExecution)
    held: Future[None] = Future()
    decode = engine._model.decode

    def slow(mel: Tensor) -> Tensor:
        held.result(timeout=30)
        return decode(mel)

    voice = VoiceRef("basic_ref_en", BUILTIN)
    item = EngineInput(Unit(0, "Hello there.", voice, 1.0, 1, 0, "r"), None)
    (expected,) = speak(engine, item)
    execution._decoder = _Decoder(slow, CUDA)
    (first,) = engine.synthesize([item])
    assert not first.done()
    with ThreadPoolExecutor(1) as engine_thread:
        second = engine_thread.submit(engine.synthesize, [item])  # samples, then waits for the vocoder
        assert not first.done()
        held.set_result(None)
        for answer in (first, second.result(timeout=30)[0]):
            np.testing.assert_allclose(answer.result(timeout=30), expected, atol=1e-3)
