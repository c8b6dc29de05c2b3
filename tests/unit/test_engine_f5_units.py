"""What the F5 engine makes of a unit's text and voice, and what it refuses: each unit's own error, alone."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from serve_app.domain import BUILTIN, Unit, Voice, VoiceRef, VoiceStats
from serve_app.engine.f5 import BUILTIN_VOICES, F5Engine, total_frames
from serve_app.engine.load import F5Weights
from serve_app.engine.protocol import EngineInput, speak
from serve_app.engine.references import Reference
from serve_app.errors import EngineError, InvalidText, ModelLoadFailed, OutOfMemory, UnusableVoice
from tests.support.f5_units import SEVEN, TEXT, bytes_of, item, voice
from tests.support.tiny_f5 import write_tiny_f5

BUILTIN_TEXT = "Some call me nature, others call me mother nature."


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> F5Weights:
    return write_tiny_f5(tmp_path_factory.mktemp("f5"))


@pytest.fixture(scope="module")
def engine(weights: F5Weights) -> F5Engine:
    return F5Engine(weights, device="cpu", sampling=SEVEN, threads=1)  # a tiny model is slower on more


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
