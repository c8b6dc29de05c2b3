"""The F5 engine: what it says is upstream's speech, at the level, length and speed that were asked, or an error."""

import hashlib
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from serve_app.domain import BUILTIN, Pcm, Sampling, Unit, Voice, VoiceRef, VoiceStats
from serve_app.engine.f5 import BUILTIN_VOICES, F5Engine, total_frames
from serve_app.engine.hardware import AttentionChoice
from serve_app.engine.load import F5Weights, load_dit, load_vocab
from serve_app.engine.protocol import BatchLimits, EngineInput, speak
from serve_app.engine.references import Reference
from serve_app.engine.sampler import SampleInput, Sampler
from serve_app.errors import EngineError, InvalidText, ModelLoadFailed, OutOfMemory, UnusableVoice
from tests.support.tiny_f5 import write_tiny_f5

BUILTIN_TEXT = "Some call me nature, others call me mother nature."
TEXT = "I have been a silent spectator."
SEVEN = Sampling(nfe_steps=7)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> F5Weights:
    return write_tiny_f5(tmp_path_factory.mktemp("f5"))


@pytest.fixture(scope="module")
def engine(weights: F5Weights) -> F5Engine:
    return F5Engine(weights, device="cpu", sampling=SEVEN, threads=1)  # a tiny model is slower on more


def voice(seconds: float = 2.0, level: float = 0.2, text: str = "One two three.", version: str = "") -> Voice:
    """Noise with an RMS of `level`."""
    noise = np.random.default_rng(0).standard_normal(round(seconds * 24_000)).astype(np.float32)
    audio = noise * np.float32(level / np.sqrt(np.mean(noise**2)))
    return Voice(VoiceRef("ada", version or f"{seconds} {level} {text}"), audio, text)


def item(
    text: str = TEXT,
    voice: Voice | None = None,
    seed: int = 1,
    speed: float = 1.0,
    sampling: Sampling | None = None,
) -> EngineInput:
    """A unit for `voice`, or for the built-in one."""
    ref = VoiceRef("basic_ref_en", BUILTIN) if voice is None else voice.ref
    return EngineInput(Unit(0, text, ref, speed, seed, frames=0, request_id="r", sampling=sampling), voice)


def bytes_of(engine: F5Engine, *items: EngineInput) -> list[bytes]:
    return [pcm.tobytes() for pcm in speak(engine, *items)]


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


@pytest.mark.parametrize(
    ("text_bytes", "speed", "expected"),
    [
        (100, 1.0, 500 + 1000),
        (100, 2.0, 500 + 500),
        (100, 0.5, 500 + 2000),
        (10, 1.0, 500 + 100),
        (9, 1.0, 500 + 300),  # upstream's speed 0.3 under ten bytes
        (9, 2.0, 500 + 150),
        (33, 3.0, 500 + 110),
    ],
)
def test_total_frames(text_bytes: int, speed: float, expected: int) -> None:
    """Speech is as long as the reference in proportion to bytes, over the speed; short texts get more time."""
    assert total_frames(500, 50, text_bytes, speed) == expected


@pytest.mark.parametrize(
    ("reference_text", "text", "joined"),
    [
        ("One two.", " Go on then. ", "One two. Go on then."),
        (" One two. \n", "Go on then.", "One two. Go on then."),
        ("One two", "Go on then.", "One two. Go on then."),
        ("One two!", "Go on then.", "One two! Go on then."),
        ("一二三。", "四五六。", "一二三。四五六。"),
    ],
)
def test_reference_text_is_a_sentence(engine: F5Engine, reference_text: str, text: str, joined: str) -> None:
    """A full stop is added where no sentence ends, and a space after an ASCII one."""
    expected = engine._model.tokenize([joined])[0]
    found = engine._plan(item(text, voice(text=reference_text))).token_ids
    assert found == [engine._model.vocab.get(token, 0) for token in expected]


ENDS = st.sampled_from([". ", "! ", "? ", "。", "！", "？", "…"])
PARTS = st.lists(
    st.sampled_from(["word", "Hello", "物种演化", "你好", ",", " ", "'tis", "“so”", "12", "—", "é", "ß", "。", "a"]),
    max_size=8,
).map("".join)


@given(reference=PARTS, end=ENDS, text=PARTS)
def test_a_reference_is_tokenised_once(engine: F5Engine, reference: str, end: str, text: str) -> None:
    """Token ids of the reference text, kept, and of what follows it are those of both as one text."""
    reference, text, tokenize, vocab = (
        reference + end,
        text.strip() or "so",
        engine._model.tokenize,
        engine._model.vocab,
    )

    def ids(joined: str) -> list[int]:
        return [vocab.get(token, 0) for token in tokenize([joined])[0]]

    kept = Reference(reference, ids(reference), frames=1, gain=1.0, size_bytes=1, _make_mel=None)
    assert kept.followed_by(text, tokenize, vocab) == ids(reference + text)


def test_builtin_voice_is_what_its_stats_say(engine: F5Engine) -> None:
    """The stats that planning uses of a built-in voice are those of its file, which is mono at 24 kHz."""
    import soundfile

    info = soundfile.info(str(files("f5_tts").joinpath("infer/examples/basic/basic_ref_en.wav")))
    assert (info.channels, info.samplerate, info.subtype) == (1, 24_000, "PCM_16")
    expected = VoiceStats(info.frames / 24_000, len(BUILTIN_TEXT.encode()))
    assert dict(BUILTIN_VOICES) == {"basic_ref_en": expected}
    spoken = engine._builtin["basic_ref_en"]
    assert (spoken.stats, spoken.text, spoken.ref.builtin) == (expected, BUILTIN_TEXT, True)
    assert float(np.abs(spoken.audio).max()) <= 1.0


@pytest.mark.parametrize(
    ("spoken", "reason"),
    [
        (voice(text="  "), "voice 'ada' has no reference text: .* ref_text"),
        (voice(seconds=12.01), r"is 12.01 s: upload 0.5 to 12 s"),
        (voice(seconds=0.4), r"is 0.40 s: upload 0.5 to 12 s"),
        (voice(text="नमस्ते"), "reference text of voice 'ada' has no letter that the model's vocabulary has"),
        (voice(level=0.0), "RMS of 0, which is silence"),
        (voice(level=float("nan")), "RMS of nan, which is silence"),
        (voice(level=0.9), r"[23]\d% of the reference audio of voice 'ada' is at full scale.*lower level"),
    ],
)
def test_unusable_voices_are_refused(engine: F5Engine, spoken: Voice, reason: str) -> None:
    """A voice that the model cannot clone is refused, with what to upload instead."""
    with pytest.raises(UnusableVoice, match=reason):
        engine.frames(item(voice=spoken))


def test_a_bad_item_fails_alone(engine: F5Engine) -> None:
    """Each kind of bad unit has its own error, and the good ones of the call are what they are alone."""
    bad = [
        item(voice=voice(level=0.0)),
        item(voice=voice(level=0.9)),
        item(voice=voice(seconds=12.01)),
        item(voice=voice(seconds=0.4)),
        item(voice=voice(text="")),
        item(""),
        item("?!"),
        item("Say नमस्ते now."),
        item("word " * 900),
    ]
    good = [item(seed=1), item("Short.", seed=2)]
    answers = engine.synthesize([good[0], *bad, good[1]])
    errors = [future.exception() for future in answers[1:-1]]
    assert [type(error) for error in errors] == [UnusableVoice] * 5 + [InvalidText] * 4
    assert [answers[index].result().tobytes() for index in (0, -1)] == bytes_of(engine, *good)


def test_unknown_builtin_voice_is_refused(engine: F5Engine) -> None:
    """A unit that comes without audio must name a voice of this engine."""
    unit = Unit(0, TEXT, VoiceRef("heart", BUILTIN), 1.0, 1, frames=0, request_id="r")
    with pytest.raises(UnusableVoice, match=r"'heart' .* not built into this model: upload it, or use basic_ref_en"):
        speak(engine, EngineInput(unit, None))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" ", "nothing that can be spoken"),
        ("... !", "nothing that can be spoken"),
        ("\N{GRINNING FACE}", "nothing that can be spoken"),
        ("Say नमस्ते now.", "lacks त न .* left unspoken"),
        ("I have १२ apples.", "lacks १ २, .* left unspoken"),
        ("word " * 700, r"needs 8\d\d\d mel frames, 501 of them for its reference, of 8192"),
    ],
)
def test_unspeakable_texts_are_refused(engine: F5Engine, text: str, reason: str) -> None:
    """A text that would be silent, partly silent or too long is refused before any sampling."""
    with pytest.raises(InvalidText, match=reason):
        engine.frames(item(text, voice(seconds=500 * 256 / 24_000, text="x" * 225 + ".")))


def test_symbols_may_be_silent(engine: F5Engine) -> None:
    """An emoji beside words is no error: it is silent in speech too."""
    assert engine.frames(item(TEXT + " \N{GRINNING FACE}")) > engine.frames(item(TEXT))


def test_nan_is_an_error(tmp_path: Path) -> None:
    """Speech that is not a number is never given out, and a model that speaks so does not start."""
    weights = write_tiny_f5(tmp_path)
    tensors = load_file(weights.checkpoint)
    tensors["ema_model.transformer.proj_out.bias"][7] = float("nan")
    save_file(tensors, weights.checkpoint)
    engine = F5Engine(weights, device="cpu", sampling=SEVEN)
    with pytest.raises(EngineError, match=r"NaN or infinity in torch.float32"):
        speak(engine, item())
    with pytest.raises(ModelLoadFailed, match=r"warm-up failed on cpu in torch.float32 with sdpa .*NaN"):
        engine.warm_up()


def test_nan_of_one_unit_is_that_units_error(engine: F5Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of its batch is delivered."""
    decode, good = engine._execution._decode, item("Short.", seed=2)
    expected, calls = bytes_of(engine, good), iter([True, False])
    monkeypatch.setattr(engine._execution, "_decode", lambda mel: decode(mel) * (float("nan") if next(calls) else 1.0))
    bad, fine = engine.synthesize([item(seed=1), good])
    assert isinstance(bad.exception(), EngineError)
    assert [fine.result().tobytes()] == expected


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (torch.OutOfMemoryError("out of memory"), OutOfMemory, r"units of \[\d+\] mel frames do not fit .*cpu"),
        (RuntimeError("no kernel"), EngineError, r"units of \[\d+\] mel frames failed on cpu: no kernel"),
    ],
)
def test_failures_in_torch_say_how_large_the_unit_was(
    engine: F5Engine, monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[Exception], message: str
) -> None:
    """What torch raises becomes an error of ours: short memory can be tried again, others cannot."""

    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(engine._model.transformer, "velocity", fail)
    with pytest.raises(expected, match=message):
        speak(engine, item())


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
