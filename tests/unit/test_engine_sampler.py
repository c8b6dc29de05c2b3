"""The sampler computes what upstream's CFM.sample computes, for each item alone, whatever it is batched with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from serve_app.engine.load import F5Model, load_f5
from serve_app.engine.sampler import SampleInput, sample, time_schedule
from tests.support.tiny_f5 import write_tiny_f5

REFERENCE_TEXT = "Some call me nature. "
TEXTS = ("Others call me mother nature.", "I have been a silent spectator, 物种演化, watching.")
SINGLE_PRECISION = 1e-5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> F5Model:
    torch.set_num_threads(1)  # a tiny model is slower on more
    weights = write_tiny_f5(tmp_path_factory.mktemp("f5"))
    return load_f5(weights, torch.device("cpu"), torch.float32, "sdpa")


@pytest.fixture(scope="module")
def upstream(model: F5Model) -> Any:
    """Upstream's sampler over the very same transformer."""
    from f5_tts.model.cfm import CFM

    return CFM(transformer=model.dit, vocab_char_map=model.vocab)


def reference(frames: int, seed: int = 0) -> Tensor:
    """A made-up log mel, (frames, 100)."""
    return torch.randn(frames, 100, generator=torch.Generator().manual_seed(seed)) * 2 - 4


def item(model: F5Model, text: str, frames: int, seed: int = 5, reference_frames: int = 90) -> SampleInput:
    tokens = model.tokenize([REFERENCE_TEXT + text])[0]
    ids = torch.tensor([model.vocab.get(token, 0) for token in tokens])
    return SampleInput(reference(reference_frames), ids, frames, seed)


def speak(model: F5Model, *items: SampleInput, steps: int = 7, cfg_strength: float = 2.0) -> Sequence[Tensor]:
    return sample(model.dit, items, steps=steps, cfg_strength=cfg_strength, sway=-1.0)


def error(found: Tensor, expected: Tensor) -> float:
    """Relative error of the whole, in the Euclidean norm."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("steps", "cfg_strength", "sway", "frames"),
    [
        (7, 2.0, -1.0, 300),
        (16, 2.0, -1.0, 231),
        (32, 2.0, -1.0, 260),
        (9, 2.0, -1.0, 201),
        (7, 2.0, None, 300),
        (9, 0.0, None, 180),
        (32, 0.0, -1.0, 200),
    ],
)
def test_agrees_with_upstream(
    model: F5Model, upstream: Any, text: str, steps: int, cfg_strength: float, sway: float | None, frames: int
) -> None:
    """For the same weights, reference mel, text, length and seed the mel is upstream's."""
    one = item(model, text, frames)
    expected, _ = upstream.sample(
        cond=one.reference[None],
        text=model.tokenize([REFERENCE_TEXT + text]),
        duration=frames,
        lens=torch.tensor([90]),
        steps=steps,
        cfg_strength=cfg_strength,
        sway_sampling_coef=sway,
        seed=5,
    )
    (found,) = sample(model.dit, [one], steps=steps, cfg_strength=cfg_strength, sway=sway)
    assert found.shape == (frames - 90, 100)
    assert error(found, expected[0, 90:]) <= 1e-4


@pytest.mark.parametrize("steps", range(1, 34))
def test_steps_are_those_of_upstream(steps: int) -> None:
    """Every number of steps has upstream's schedule, pruned or even."""
    from f5_tts.model.utils import get_epss_timesteps

    expected = get_epss_timesteps(steps, device="cpu", dtype=torch.float32)
    assert torch.equal(time_schedule(steps, None), expected)


def test_noise_can_be_given(model: F5Model) -> None:
    """Noise that is given takes the place of the seed's."""
    seeded = item(model, TEXTS[0], 250)
    noise = torch.randn(250, 100, generator=torch.Generator().manual_seed(seeded.seed))
    given = SampleInput(seeded.reference, seeded.token_ids, 250, seed=999, noise=noise)
    assert torch.equal(speak(model, given)[0], speak(model, seeded)[0])


def test_same_seed_same_mel(model: F5Model) -> None:
    """A seed fixes the mel to the bit, and another seed makes another."""
    first, again, other = (speak(model, item(model, TEXTS[0], 250, seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert error(other, first) > 0.1


def test_global_generator_is_left_alone(model: F5Model) -> None:
    """Sampling neither reads nor moves torch's global generator."""
    torch.manual_seed(3)
    first = speak(model, item(model, TEXTS[0], 250))[0]
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(speak(model, item(model, TEXTS[0], 250))[0], first)


def test_text_and_reference_are_heard(model: F5Model) -> None:
    """Another text and another reference change the mel, far more than rounding does."""
    plain = item(model, TEXTS[0], 250)
    other_text = item(model, TEXTS[0].upper(), 250)
    other_reference = SampleInput(reference(90, seed=1), plain.token_ids, 250, plain.seed)
    expected = speak(model, plain)[0]
    assert error(speak(model, other_text)[0], expected) > 100 * SINGLE_PRECISION
    assert error(speak(model, other_reference)[0], expected) > 100 * SINGLE_PRECISION


@pytest.mark.parametrize("lengths", [(250, 250, 250), (250, 431, 187)], ids=["equal", "padded"])
@pytest.mark.parametrize("cfg_strength", [0.0, 2.0])
def test_batch_equals_singles(model: F5Model, lengths: tuple[int, ...], cfg_strength: float) -> None:
    """An item sounds the same alone and in a batch, with other texts, references, seeds and lengths beside it."""
    texts = (TEXTS[0], TEXTS[1], "Short.")
    items = [
        item(model, text, frames, seed, reference_frames=90 + 20 * seed)
        for seed, (text, frames) in enumerate(zip(texts, lengths, strict=True))
    ]
    batched = speak(model, *items, cfg_strength=cfg_strength)
    singles = [speak(model, one, cfg_strength=cfg_strength)[0] for one in items]
    assert [mel.shape for mel in batched] == [mel.shape for mel in singles]
    assert max(map(error, batched, singles)) <= SINGLE_PRECISION


def test_text_is_forgotten_after_an_error(model: F5Model) -> None:
    """A sampling that breaks half-way leaves nothing behind that the next one would speak."""
    expected = speak(model, item(model, TEXTS[1], 250))[0]
    dit: Any = model.dit
    steps_done = []

    def break_on_third(*_: object) -> None:
        steps_done.append(1)
        if len(steps_done) == 3:
            raise RuntimeError("the device is lost")

    hook = dit.transformer_blocks[0].register_forward_pre_hook(break_on_third)
    with pytest.raises(RuntimeError, match="the device is lost"):
        speak(model, item(model, TEXTS[0], 250))
    hook.remove()
    assert (dit.text_cond, dit.text_uncond) == (None, None)
    assert torch.equal(speak(model, item(model, TEXTS[1], 250))[0], expected)


@pytest.mark.parametrize("frames", [90, 30])
def test_refuses_too_few_frames(model: F5Model, frames: int) -> None:
    """Frames that leave nothing to speak in are a mistake of the caller, named with its numbers."""
    with pytest.raises(ValueError, match=f"frames is {frames}, but the reference has 90 frames"):
        item(model, TEXTS[0], frames)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 0.001), (torch.bfloat16, 0.006)])
def test_half_precision_stays_near(tmp_path: Path, model: F5Model, dtype: torch.dtype, limit: float) -> None:
    """In half precision the mel stays as near to the exact one as it only does with times in float32."""
    half = load_f5(write_tiny_f5(tmp_path), torch.device("cpu"), dtype, "sdpa")
    expected = speak(model, item(model, TEXTS[0], 600), steps=32)[0]
    found = speak(half, item(half, TEXTS[0], 600), steps=32)[0]
    assert found.dtype == torch.float32
    assert error(found, expected) < limit
