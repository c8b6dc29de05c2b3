"""The sampler computes what upstream's CFM.sample computes, for each item alone, whatever it is batched with."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from serve_app.domain import Sampling
from serve_app.engine.attention import attention
from serve_app.engine.load import import_f5_tts
from serve_app.engine.sampler import SampleInput, Sampler, time_schedule
from serve_app.engine.transformer import Transformer
from tests.support.tiny_f5 import ARCHITECTURE, VOCAB_SIZE, random_dit

SINGLE_PRECISION = 1e-5
SEVEN = Sampling(nfe_steps=7)


def transformer_of(dit: Any) -> Transformer:
    return Transformer(dit, attention("sdpa"))


@pytest.fixture(scope="module")
def dit() -> Any:
    torch.set_num_threads(1)  # a tiny model is slower on more
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return random_dit(ARCHITECTURE)


@pytest.fixture(scope="module")
def sampler(dit: Any) -> Sampler:
    return Sampler(transformer_of(dit))


@pytest.fixture(scope="module")
def upstream(dit: Any) -> Any:
    """Upstream's sampler over the very same transformer."""
    from f5_tts.model.cfm import CFM

    return CFM(transformer=dit)


def reference(frames: int, seed: int = 0) -> Tensor:
    """A made-up log mel, (frames, 100)."""
    return torch.randn(frames, 100, generator=torch.Generator().manual_seed(seed)) * 2 - 4


def text(tokens: int = 50, seed: int = 0) -> Tensor:
    """Made-up token ids, (tokens,)."""
    return torch.randint(VOCAB_SIZE, (tokens,), generator=torch.Generator().manual_seed(seed))


def item(frames: int = 250, seed: int = 5, reference_frames: int = 90, tokens: int = 50) -> SampleInput:
    return SampleInput(reference(reference_frames, seed), text(tokens, seed), frames, seed)


def error(found: Tensor, expected: Tensor) -> float:
    """Relative error of the whole, in the Euclidean norm."""
    return float((found - expected).norm() / expected.norm())


def expected_of(upstream: Any, one: SampleInput, sampling: Sampling) -> Tensor:
    mel, _ = upstream.sample(
        cond=one.reference[None],
        text=one.token_ids[None],
        duration=one.frames,
        steps=sampling.nfe_steps,
        cfg_strength=sampling.cfg_strength,
        sway_sampling_coef=sampling.sway or None,
        seed=one.seed,
    )
    spoken: Tensor = mel[0, len(one.reference) :]
    return spoken


@pytest.mark.parametrize(
    ("sampling", "frames"),
    [
        (Sampling(7, 2.0, -1.0), 300),
        (Sampling(16, 2.0, -1.0), 231),
        (Sampling(32, 2.0, -1.0), 260),
        (Sampling(9, 2.0, -1.0), 201),
        (Sampling(7, 2.0, 0.0), 300),
        (Sampling(5, 3.5, 0.7), 300),
        (Sampling(9, 0.0, 0.0), 180),
        (Sampling(32, 0.0, -1.0), 200),
    ],
)
def test_agrees_with_upstream(sampler: Sampler, upstream: Any, sampling: Sampling, frames: int) -> None:
    """For the same weights, reference mel, text, length and seed the mel is upstream's."""
    one = item(frames)
    (found,) = sampler.sample([one], sampling)
    assert found.shape == (frames - 90, 100)
    assert error(found, expected_of(upstream, one, sampling)) <= 1e-5


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_item_agrees_with_upstream(sampler: Sampler, upstream: Any, data: st.DataObject) -> None:
    """Whatever the lengths, the text, the seed and the parameters."""
    reference_frames = data.draw(st.integers(1, 300))
    tokens = data.draw(st.integers(1, 120))
    frames = max(reference_frames, tokens) + data.draw(st.integers(1, 300))
    sampling = Sampling(
        data.draw(st.integers(1, 12)), data.draw(st.sampled_from([0.0, 0.5, 2.0, 4.0])), data.draw(st.floats(-1, 1.75))
    )
    one = item(frames, data.draw(st.integers(0, 2**31 - 1)), reference_frames, tokens)
    (found,) = sampler.sample([one], sampling)
    assert error(found, expected_of(upstream, one, sampling)) <= 1e-4


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 60), st.integers(1, 300)), min_size=2, max_size=6)
)
def test_any_batch_equals_singles(sampler: Sampler, lengths: list[tuple[int, int, int]]) -> None:
    """Whatever items share a batch."""
    items = [
        item(max(reference_frames, tokens) + speech, seed, reference_frames, tokens)
        for seed, (reference_frames, tokens, speech) in enumerate(lengths)
    ]
    batched = sampler.sample(items, Sampling(nfe_steps=4))
    for found, one in zip(batched, items, strict=True):
        assert error(found, sampler.sample([one], Sampling(nfe_steps=4))[0]) <= SINGLE_PRECISION


@pytest.mark.parametrize("steps", range(1, 66))
def test_steps_are_those_of_upstream(steps: int) -> None:
    """Every number of steps has upstream's schedule, pruned or even."""
    import_f5_tts()
    from f5_tts.model.utils import get_epss_timesteps

    expected = get_epss_timesteps(steps, device="cpu", dtype=torch.float32)
    assert torch.equal(time_schedule(steps, 0.0), expected)


@pytest.mark.parametrize("sway", [-1.0, -0.5, 1.0, 1.75])
def test_steps_go_forwards(sway: float) -> None:
    """At the ends of the range of sway too, times rise from 0 to 1."""
    times = time_schedule(64, sway)
    assert (float(times[0]), float(times[-1])) == (0.0, pytest.approx(1.0))
    assert bool((times.diff() > 0).all())


def test_noise_can_be_given(sampler: Sampler) -> None:
    """Noise that is given takes the place of the seed's."""
    seeded = item()
    noise = torch.randn(250, 100, generator=torch.Generator().manual_seed(seeded.seed))
    given = replace(seeded, seed=999, noise=noise)
    assert torch.equal(sampler.sample([given], SEVEN)[0], sampler.sample([seeded], SEVEN)[0])


def test_same_seed_same_mel(sampler: Sampler) -> None:
    """A seed fixes the mel to the bit, and another seed makes another."""
    first, again, other = (sampler.sample([replace(item(), seed=seed)], SEVEN)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert error(other, first) > 0.1


def test_global_generator_is_left_alone(sampler: Sampler) -> None:
    """Sampling neither reads nor moves torch's global generator."""
    torch.manual_seed(3)
    first = sampler.sample([item()], SEVEN)[0]
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(sampler.sample([item()], SEVEN)[0], first)


def test_text_and_reference_are_heard(sampler: Sampler) -> None:
    """Another text and another reference change the mel, far more than rounding does."""
    expected = sampler.sample([item()], SEVEN)[0]
    for other in (replace(item(), token_ids=text(seed=1)), replace(item(), reference=reference(90, seed=1))):
        assert error(sampler.sample([other], SEVEN)[0], expected) > 100 * SINGLE_PRECISION


@pytest.mark.parametrize("lengths", [(250, 250, 250), (250, 431, 187)], ids=["equal", "padded"])
@pytest.mark.parametrize("cfg_strength", [0.0, 2.0])
def test_batch_equals_singles(sampler: Sampler, lengths: Sequence[int], cfg_strength: float) -> None:
    """An item sounds the same alone and in a batch, with other texts, references, seeds and lengths beside it."""
    items = [item(frames, seed, 90 + 20 * seed, 30 + seed) for seed, frames in enumerate(lengths)]
    sampling = Sampling(7, cfg_strength)
    batched = sampler.sample(items, sampling)
    singles = [sampler.sample([one], sampling)[0] for one in items]
    assert [mel.shape for mel in batched] == [mel.shape for mel in singles]
    assert max(map(error, batched, singles)) <= SINGLE_PRECISION


def test_an_error_leaves_nothing_behind(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampling that breaks half-way leaves no text that the next one would speak, as upstream's cache does."""
    expected = sampler.sample([item(seed=2)], SEVEN)[0]
    velocity, steps_done = Transformer.velocity, []

    def break_on_third(*args: Any) -> Tensor:
        steps_done.append(1)
        if len(steps_done) == 3:
            raise RuntimeError("the device is lost")
        return velocity(*args)

    with monkeypatch.context() as breaking:
        breaking.setattr(Transformer, "velocity", break_on_third)
        with pytest.raises(RuntimeError, match="the device is lost"):
            sampler.sample([item(seed=1)], SEVEN)
    assert torch.equal(sampler.sample([item(seed=2)], SEVEN)[0], expected)


def test_what_does_not_change_is_computed_once(dit: Any) -> None:
    """Texts are embedded once a batch, with and without, and modulations once a schedule; steps only run the blocks."""
    calls: Counter[str] = Counter()
    fresh = Sampler(transformer_of(dit))
    hooks = [dit.text_embed.register_forward_hook(lambda *_: calls.update(["text"]))]
    hooks += [dit.time_embed.time_embed.register_forward_hook(lambda *_: calls.update(["time"]))]
    for _ in range(2):
        fresh.sample([item(seed=1), item(seed=2)], SEVEN)
    for hook in hooks:
        hook.remove()
    assert calls == {"text": 2 * 2 * 2, "time": 1}


def test_the_device_is_not_waited_for_between_steps(sampler: Sampler) -> None:
    """No step reads a number back, which on a GPU would wait for all work before it."""

    class Reads(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.ops: list[str] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.ops.append(str(func))
            return func(*args, **(kwargs or {}))

    def ops(steps: int) -> Counter[str]:
        with Reads() as reads:
            sampler.sample([item(250), item(180)], Sampling(nfe_steps=steps))
        return Counter(reads.ops)

    sampler.sample([item()], Sampling(nfe_steps=8))
    sampler.sample([item()], Sampling(nfe_steps=9))  # schedules are made
    in_a_step = ops(9) - ops(8)
    assert in_a_step["aten.layer_norm.default"] == 2 * 2 + 1  # it sees the steps
    waiting = ("_local_scalar_dense", "nonzero", "_to_copy", "is_nonzero", "index.Tensor")
    assert [op for op in in_a_step if any(name in op for name in waiting)] == []


def test_a_schedule_is_made_once(sampler: Sampler) -> None:
    """The modulations of a schedule are kept, for the latest eight schedules."""
    first = sampler.schedule(Sampling(nfe_steps=11))
    assert sampler.schedule(Sampling(nfe_steps=11, cfg_strength=1.0)) is first
    assert sampler.schedule(Sampling(nfe_steps=11, sway=0.0)) is not first
    for steps in range(20, 28):
        sampler.schedule(Sampling(nfe_steps=steps))
    assert sampler.schedule(Sampling(nfe_steps=11)) is not first


@pytest.mark.parametrize("frames", [90, 30])
def test_refuses_too_few_frames(frames: int) -> None:
    """Frames that leave nothing to speak in are a mistake of the caller, named with its numbers."""
    with pytest.raises(ValueError, match=f"frames is {frames}, but the reference has 90 frames"):
        item(frames)


@pytest.mark.parametrize("architecture", [{"qk_norm": "rms_norm"}, {"pe_attn_head": 1}, {"text_mask_padding": False}])
def test_every_architecture_agrees_with_upstream(architecture: dict[str, Any]) -> None:
    """Normed queries and keys, rotation of the first head only (upstream's `base`), unmasked text."""
    import_f5_tts()
    from f5_tts.model.cfm import CFM

    other = random_dit(ARCHITECTURE | architecture)
    one = item(300)
    (found,) = Sampler(transformer_of(other)).sample([one], SEVEN)
    assert error(found, expected_of(CFM(transformer=other), one, SEVEN)) <= 1e-5
