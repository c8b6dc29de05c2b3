"""The F5 engine: what it says is upstream's speech, and the same bytes whatever is beside it."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from serve_app.domain import Pcm, Sampling, Voice
from serve_app.engine.f5 import F5Engine
from serve_app.engine.hardware import AttentionChoice
from serve_app.engine.load import F5Weights, load_dit, load_vocab
from serve_app.engine.protocol import BatchLimits, speak
from serve_app.engine.sampler import SampleInput, Sampler
from tests.support.f5_units import SEVEN, TEXT, bytes_of, item, voice
from tests.support.tiny_f5 import write_tiny_f5


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> F5Weights:
    return write_tiny_f5(tmp_path_factory.mktemp("f5"))


@pytest.fixture(scope="module")
def engine(weights: F5Weights) -> F5Engine:
    return F5Engine(weights, device="cpu", sampling=SEVEN, threads=1)  # a tiny model is slower on more


def upstream_speech(weights: F5Weights, spoken: Voice, text: str, seed: int) -> tuple[Pcm, int]:
    """Upstream's modules in the order of its evaluation (eval/utils_eval.py), and the frames that they use."""
    from f5_tts.model.cfm import CFM
    from f5_tts.model.utils import convert_char_to_pinyin
    from vocos import Vocos

    vocab = load_vocab(weights)
    dit = load_dit(weights, vocab, torch.device("cpu"), torch.float32)
    cfm = CFM(transformer=dit, vocab_char_map=vocab)
    vocoder = Vocos.from_hparams(str(weights.vocoder / "config.yaml"))
    vocoder.load_state_dict(load_file(weights.vocoder / "model.safetensors"))
    audio = torch.from_numpy(spoken.audio)[None]
    rms = torch.sqrt(torch.mean(torch.square(audio)))
    mel = cfm.mel_spec(audio * 0.1 / rms if rms < 0.1 else audio).permute(0, 2, 1)
    ref_text, ref_frames = spoken.text + " ", mel.shape[1]
    duration = ref_frames + int(ref_frames / len(ref_text.encode()) * len(text.encode()))
    tokens = convert_char_to_pinyin([ref_text + text])
    made, _ = cfm.sample(mel, tokens, duration, steps=7, cfg_strength=2.0, sway_sampling_coef=-1, seed=seed)
    wave = vocoder.eval().decode(made[:, ref_frames:].permute(0, 2, 1))[0]
    return (wave * rms / 0.1 if rms < 0.1 else wave).numpy(), duration


@pytest.mark.parametrize("level", [0.2, 0.02], ids=["loud", "quiet"])
def test_speaks_as_upstream_does(weights: F5Weights, engine: F5Engine, level: float) -> None:
    """Reference level, mel, tokens, duration, sampling, vocoder and output level together are upstream's."""
    spoken = voice(level=level)
    expected, frames = upstream_speech(weights, spoken, TEXT, seed=1)
    (found,) = speak(engine, item(voice=spoken))
    assert engine.frames(item(voice=spoken)) == frames
    assert (found.dtype, found.shape) == (np.dtype(np.float32), expected.shape)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-4
    assert np.sqrt(np.mean(found**2)) == pytest.approx(0.05 * min(level / 0.1, 1.0), rel=0.1)


def test_differs_from_upstreams_own_count_by_the_frame_that_leaks(weights: F5Weights, engine: F5Engine) -> None:
    """Given the waveform, upstream counts the reference one frame short, and so begins its speech with the reference's
    last frame; from there on its mel is ours."""
    from f5_tts.model.cfm import CFM

    vocab, spoken = load_vocab(weights), voice()
    cfm = CFM(transformer=load_dit(weights, vocab, torch.device("cpu"), torch.float32), vocab_char_map=vocab)
    audio, text, counted = torch.from_numpy(spoken.audio)[None], "One two three. " + TEXT, len(spoken.audio) // 256
    mel, _ = cfm.sample(audio, cfm_tokens(text), 400, steps=7, cfg_strength=2.0, sway_sampling_coef=-1, seed=1)
    theirs = mel[0, counted:]
    reference = cfm.mel_spec(audio)[0].T
    ids = torch.tensor([vocab.get(token, 0) for token in cfm_tokens(text)[0]])
    (ours,) = Sampler(engine._model.transformer).sample([SampleInput(reference, ids, 400, 1)], SEVEN)
    assert torch.equal(theirs[0], reference[-1])
    assert theirs[1:].shape == ours.shape
    assert float((ours - theirs[1:]).norm() / theirs[1:].norm()) <= 1e-4


def cfm_tokens(text: str) -> list[list[str]]:
    from f5_tts.model.utils import convert_char_to_pinyin

    tokens: list[list[str]] = convert_char_to_pinyin([text])
    return tokens


def test_bfloat16_on_a_cpu_stays_near(weights: F5Weights, engine: F5Engine) -> None:
    """An option for CPUs that have it: the same speech at the same level, 0.1 % of its energy off (here)."""
    half = F5Engine(weights, device="cpu", dtype="bfloat16", sampling=SEVEN)
    for one in (item(seed=1), item("Short.", seed=2), item(voice=voice(), seed=3)):
        (exact,), (near,) = speak(engine, one), speak(half, one)
        assert near.shape == exact.shape
        assert np.linalg.norm(near - exact) / np.linalg.norm(exact) < 0.05  # found 0.034, which squared is 0.1 %
        assert np.sqrt(np.mean(near**2)) == pytest.approx(np.sqrt(np.mean(exact**2)), rel=0.02)


def test_length_follows_frames(engine: F5Engine) -> None:
    """The wave has 256 samples for each frame after the reference, less one for the centred vocoder."""
    spoken = voice(seconds=2.0)
    (pcm,) = speak(engine, item(voice=spoken))
    reference_frames = 48_000 // 256 + 1
    assert engine.frames(item(voice=spoken)) == reference_frames + int(reference_frames / 15 * 31)
    assert len(pcm) == (engine.frames(item(voice=spoken)) - reference_frames - 1) * 256


def test_same_bytes_whatever_is_beside(weights: F5Weights, engine: F5Engine) -> None:
    """On a CPU a unit's bytes depend on text, voice and seed only: not on neighbours, order, cache or engine."""
    items = [item(seed=1), item("Short.", seed=2), item(voice=voice(), seed=1), item("物种演化。", seed=3)]
    together = bytes_of(engine, *items)
    assert bytes_of(engine, *reversed(items)) == together[::-1]
    assert bytes_of(F5Engine(weights, device="cpu", sampling=SEVEN), items[2]) == [together[2]]
    assert bytes_of(engine, item(seed=4)) != [together[0]]
    assert bytes_of(engine, item("I have been a violent spectator.", seed=1)) != [together[0]]


def test_the_parameters_of_a_unit_are_heard(engine: F5Engine) -> None:
    """Each changes the speech; those that a unit does not bring are the engine's; two kinds share no call."""
    own = bytes_of(engine, item())
    assert bytes_of(engine, item(sampling=SEVEN)) == own
    for other in (Sampling(8), Sampling(7, cfg_strength=1.0), Sampling(7, sway=0.0)):
        assert bytes_of(engine, item(sampling=other)) != own
    with pytest.raises(ValueError, match="sort them by their sampling"):
        engine.synthesize([item(sampling=Sampling(8)), item()])


def test_a_voice_costs_nothing_after_its_first_use(weights: F5Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mel and token ids are made once per version, and the least recently used go when the bytes are out."""
    small = F5Engine(weights, device="cpu", sampling=Sampling(4), reference_cache_bytes=400_000)  # two of two seconds
    mels, mel = [], small._references._mel
    monkeypatch.setattr(small._references, "_mel", lambda audio: (mels.append(1), mel(audio))[1])
    voices = [voice(version=name) for name in "ab"]
    spoken = [bytes_of(small, item(voice=each)) for each in (*voices, *voices)]
    assert (len(mels), spoken[:2]) == (2, spoken[2:])
    assert 300_000 < small._references.size_bytes <= 400_000
    bytes_of(small, item(voice=voice(version="c")))
    bytes_of(small, item(voice=voices[1]))
    assert len(mels) == 3
    bytes_of(small, item(voice=voices[0]))
    assert len(mels) == 4
    bytes_of(small, item(voice=voice(seconds=5.0, version="large")))  # larger than all: spoken, but not kept
    assert small._references.size_bytes <= 400_000


@pytest.mark.parametrize(("threads", "used"), [(2, 2), (3, 2), (4, 4), (8, 8)])
def test_threads_change_no_byte(weights: F5Weights, engine: F5Engine, threads: int, used: int) -> None:
    """From the reference to the vocoder all is the same on any power of two, to which other numbers are taken down."""
    expected = bytes_of(engine, item(seed=1), item(voice=voice(), seed=2))
    try:
        other = F5Engine(weights, device="cpu", sampling=SEVEN, threads=threads)
        assert torch.get_num_threads() == used
        assert bytes_of(other, item(seed=1), item(voice=voice(), seed=2)) == expected
    finally:
        torch.set_num_threads(1)


@settings(max_examples=12, deadline=None)
@given(
    units=st.lists(
        st.tuples(
            st.sampled_from(["So it goes.", "Short.", "物种演化。", "I have been a silent spectator.", "A, b; c!"]),
            st.integers(0, 2**31 - 1),
            st.floats(0.25, 4),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_units_say_what_each_says_alone(engine: F5Engine, units: list[tuple[str, int, float]]) -> None:
    """Whatever texts, seeds and speeds share a call, each has its own bytes and the length of its frames."""
    items = [item(text, seed=seed, speed=speed, sampling=Sampling(4)) for text, seed, speed in units]
    together = speak(engine, *items)
    assert [wave.tobytes() for wave in together] == [bytes_of(engine, one)[0] for one in items]
    reference_frames = 127_987 // 256 + 1
    assert [len(wave) for wave in together] == [(engine.frames(one) - reference_frames - 1) * 256 for one in items]


def test_the_same_bytes_in_another_process(engine: F5Engine, weights: F5Weights) -> None:
    """Text, voice and seed decide the PCM: a new process with another number of threads gives the same."""
    script = """
import hashlib, sys
from pathlib import Path
from serve_app.domain import BUILTIN, Sampling, Unit, VoiceRef
from serve_app.engine.f5 import F5Engine
from serve_app.engine.load import F5Weights
from serve_app.engine.protocol import EngineInput, speak
from tests.support.tiny_f5 import ARCHITECTURE
checkpoint, vocoder = map(Path, sys.argv[1:])
engine = F5Engine(
    F5Weights(checkpoint, vocoder, architecture=ARCHITECTURE), device="cpu", sampling=Sampling(7), threads=2
)
unit = Unit(0, "I have been a silent spectator.", VoiceRef("basic_ref_en", BUILTIN), 1.0, 1, frames=0, request_id="r")
print(hashlib.sha256((speak(engine, EngineInput(unit, None))[0] * 32767).astype("int16").tobytes()).hexdigest())
"""
    command = [sys.executable, "-c", script, str(weights.checkpoint), str(weights.vocoder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    (pcm,) = speak(engine, item(seed=1))
    assert done.stdout.strip() == hashlib.sha256((pcm * 32767).astype("int16").tobytes()).hexdigest()


def test_warm_engine_speaks(engine: F5Engine) -> None:
    """A warm-up passes on good weights; the engine says what it runs on and why it runs SDPA."""
    engine.warm_up()
    assert engine.batch_limits == BatchLimits(1, 8192, max_length_ratio=float("inf"))
    reason = "flash_attn needs a CUDA device and the device is cpu"
    assert engine.attention == AttentionChoice("sdpa", reason)
    assert engine.runtime["batching"] == "one unit at a time on 1 thread"
    assert torch.get_num_threads() == 1


def test_imports_no_more_than_inference_needs(weights: F5Weights) -> None:
    """The module imports without torch; an engine brings torch, but nothing of upstream's training or gui."""
    script = """
import json, sys
from pathlib import Path
import serve_app.engine.f5
before = "torch" in sys.modules
from serve_app.engine.load import F5Weights
from tests.support.tiny_f5 import ARCHITECTURE
checkpoint, vocoder = map(Path, sys.argv[1:])
serve_app.engine.f5.F5Engine(F5Weights(checkpoint, vocoder, architecture=ARCHITECTURE), device="cpu").warm_up()
unwanted = ("wandb", "accelerate", "transformers", "datasets", "ema_pytorch", "gradio", "f5_tts.model.trainer")
print(json.dumps([before, [name for name in unwanted if name in sys.modules]]))
"""
    paths = [str(path) for path in (weights.checkpoint, weights.vocoder)]
    command = [sys.executable, "-c", script, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [False, []]
