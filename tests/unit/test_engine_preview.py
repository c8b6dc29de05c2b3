"""The preview engine, with hibari's real model: what is heard, how long, how high, and what is refused."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hibari import dsp

from serve_app.audio import decode, encode, median_pitch_hz
from serve_app.domain import BUILTIN, SAMPLE_RATE_HZ, Pcm, Unit, Voice, VoiceRef
from serve_app.engine import preview
from serve_app.engine.preview import BUILTIN_VOICES, PreviewEngine
from serve_app.engine.protocol import BatchLimits, Engine, EngineInput
from serve_app.engine.protocol import speak as spoken
from serve_app.errors import InvalidText, ModelLoadFailed, UnusableVoice
from tests.support.sentences import SENTENCES
from tests.support.transcribe import transcribe, word_error_rate

HEART = VoiceRef("heart", BUILTIN)


@cache
def engine() -> PreviewEngine:
    return PreviewEngine()


def item(
    text: str, *, speed: float = 1.0, seed: int = 7, voice: Voice | None = None, ref: VoiceRef = HEART
) -> EngineInput:
    unit = Unit(0, text, voice.ref if voice else ref, speed, seed, frames=1, request_id="r1")
    return EngineInput(unit, voice)


def speak(text: str, *, speed: float = 1.0, seed: int = 7, voice: Voice | None = None) -> Pcm:
    return spoken(engine(), item(text, speed=speed, seed=seed, voice=voice))[0]


def speaker(pitch_hz: float) -> Voice:
    """A reference that has nothing but a pitch: two seconds of a tone with harmonics."""
    time_s = np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    audio = 0.1 * sum(np.sin(2 * np.pi * pitch_hz * k * time_s) / k for k in range(1, 9))
    return Voice(VoiceRef(f"tone-{pitch_hz}", "1"), np.asarray(audio, np.float32), "")


def pitch_hz(voice: Voice | None = None) -> float:
    """Median pitch over five sentences."""
    heard = median_pitch_hz(np.concatenate([speak(text, voice=voice) for text in SENTENCES[:5]]))
    assert heard is not None
    return heard


def test_keeps_the_protocol() -> None:
    """It is an Engine of one unit at a time, with one built-in voice."""
    kept: Engine = engine()
    assert kept.batch_limits == BatchLimits(max_units=1, max_frames=1_000_000)
    assert BUILTIN_VOICES == ("heart",)


def test_the_text_is_heard() -> None:
    """Whisper hears a sentence word for word."""
    heard = transcribe(encode(speak(SENTENCES[1]), "wav"))
    assert word_error_rate([SENTENCES[1]], [heard]) == 0.0


def test_waveform() -> None:
    """Float samples of one dimension that never reach full scale, and silence at both ends, so that joins are soft."""
    audio = speak(" ".join(SENTENCES))
    assert (audio.dtype.name, audio.ndim) == ("float32", 1)
    assert 0.2 < float(np.abs(audio).max()) < 1.0
    assert float(np.abs(audio[:2400]).max()) < 0.001
    assert float(np.abs(audio[-2400:]).max()) < 0.001


def test_too_loud_is_turned_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waveform above full scale is scaled as a whole, so its shape stays."""
    natural = speak("Hello there.")
    synth = dsp.synth
    monkeypatch.setattr(dsp, "synth", lambda *parts: 20 * synth(*parts))
    assert speak("Hello there.") == pytest.approx(natural / float(np.abs(natural).max()), abs=1e-5)


def test_the_seed_decides_the_waveform() -> None:
    """The same seed gives the same bytes, on another instance too; another seed gives others."""
    again = spoken(PreviewEngine(), item("Hello there."))[0]
    assert speak("Hello there.").tobytes() == again.tobytes()
    assert speak("Hello there.", seed=8).tobytes() != again.tobytes()


def test_threads_and_neighbours_change_nothing() -> None:
    """Eight threads at once, or one call for all, give the bytes that one after the other gives."""
    items = [item(text, seed=seed, speed=1.3) for seed, text in enumerate(SENTENCES[:8])]
    alone = [spoken(engine(), one)[0].tobytes() for one in items]
    with ThreadPoolExecutor(8) as pool:
        assert [waves[0].tobytes() for waves in pool.map(lambda one: spoken(engine(), one), items)] == alone
    assert [wave.tobytes() for wave in spoken(engine(), *items)] == alone


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.75, 1.0, 1.15, 1.5, 2.0, 4.0])
def test_speed_is_kept(speed: float) -> None:
    """The length is the natural one divided by the speed, to a sample; the pitch stays."""
    text = "Rice is often served in round bowls. Is that so?"
    audio = speak(text, speed=speed)
    assert len(audio) == pytest.approx(len(speak(text)) / speed, abs=1)
    if speed <= 2:
        assert median_pitch_hz(audio) == pytest.approx(median_pitch_hz(speak(text)), rel=0.1)


@pytest.mark.parametrize("speed", [0.5, 1.5])
def test_other_speeds_are_understood(speed: float) -> None:
    """Slow and fast speech is heard with at most one word in ten wrong."""
    said = SENTENCES[1:5]
    heard = [transcribe(encode(speak(text, speed=speed), "wav")) for text in said]
    assert word_error_rate(said, heard) <= 0.1


@pytest.mark.parametrize("reference_hz", [130, 150, 190, 220, 290])
def test_the_pitch_of_an_uploaded_voice_is_followed(reference_hz: float) -> None:
    """Median to median, within 3 %."""
    assert pitch_hz(speaker(reference_hz)) == pytest.approx(reference_hz, rel=0.03)


@pytest.mark.parametrize(("reference_hz", "semitones"), [(65, -8), (390, 8)])
def test_the_pitch_moves_eight_semitones_at_most(reference_hz: float, semitones: int) -> None:
    """Further away it stays at the limit."""
    assert pitch_hz(speaker(reference_hz)) == pytest.approx(192 * 2 ** (semitones / 12), rel=0.05)


def test_a_low_voice_is_still_understood() -> None:
    """A recorded speaker of 115 Hz takes the draft down by the limit, and every word is heard."""
    clip = files("f5_tts").joinpath("infer/examples/basic/basic_ref_en.wav").read_bytes()
    audio = speak(SENTENCES[1], voice=Voice(VoiceRef("nature", "1"), decode(clip), ""))
    assert median_pitch_hz(audio) == pytest.approx(121, rel=0.1)
    assert word_error_rate([SENTENCES[1]], [transcribe(encode(audio, "wav"))]) == 0.0


def test_a_reference_is_measured_once_per_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its median pitch is kept by voice reference; a new version is measured again."""
    measured: list[int] = []

    def median(audio: Pcm) -> float:
        measured.append(len(audio))
        return 192.0

    monkeypatch.setattr(preview, "median_pitch_hz", median)
    fresh = PreviewEngine()
    for version in ("1", "1", "2"):
        spoken(fresh, item("Hi.", voice=Voice(VoiceRef("anna", version), np.zeros(480, np.float32), "")))
    assert measured == [480, 480]


def test_a_reference_without_pitch_is_unusable() -> None:
    """The error names the voice and the remedy."""
    silent = Voice(VoiceRef("whisper", "1"), np.zeros(48_000, np.float32), "")
    with pytest.raises(UnusableVoice, match=r"voice 'whisper' has no pitch .*2\.0 s.*: upload a reference with speech"):
        speak("Hello.", voice=silent)


def test_a_built_in_voice_of_another_engine_is_unusable() -> None:
    """The error names it and what can be used."""
    with pytest.raises(UnusableVoice, match=r"voice 'basic_ref_en' is not built into preview: use 'heart'"):
        spoken(engine(), item("Hello.", ref=VoiceRef("basic_ref_en", BUILTIN)))


@pytest.mark.parametrize("text", ["", "   ", "...", "?!", "\N{GRINNING FACE}\N{ROCKET}", "— …"])
def test_nothing_to_speak(text: str) -> None:
    """A text without a word is an error, not silence."""
    with pytest.raises(InvalidText, match=r"^text '.*' has nothing that can be spoken: send words or numbers"):
        speak(text)


def test_other_languages_are_refused() -> None:
    """One sentence in another script refuses the whole text: none of it is skipped."""
    with pytest.raises(InvalidText, match=r"\(Привет\): preview speaks English only"):
        speak("Hello there. Привет!")


@pytest.mark.parametrize("text", ["Hello there.", *SENTENCES[:3], " ".join(SENTENCES)])
def test_frames_are_near_the_length(text: str) -> None:
    """The estimate is within a third of what comes out, and follows the speed."""
    actual = len(speak(text)) / 256
    assert engine().frames(item(text)) == pytest.approx(actual, rel=1 / 3)
    assert engine().frames(item(text, speed=2.0)) == pytest.approx(engine().frames(item(text)) / 2, abs=1)


def test_a_model_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error carries the cause, and nothing is downloaded in its place."""

    def missing(name: str, *, download_missing: bool) -> str:
        assert not download_missing
        raise FileNotFoundError(name)

    monkeypatch.setattr(preview, "voice_path", missing)
    with pytest.raises(ModelLoadFailed, match="FileNotFoundError: heart") as failure:
        PreviewEngine()
    assert isinstance(failure.value.__cause__, FileNotFoundError)


def test_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs the model; what fails there fails the start, with the cause."""
    engine().warm_up()

    def broken(*parts: object) -> Pcm:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(dsp, "synth", broken)
    with pytest.raises(ModelLoadFailed, match="RuntimeError: out of memory") as failure:
        engine().warm_up()
    assert isinstance(failure.value.__cause__, RuntimeError)


def test_nothing_is_reported_to_anyone(tmp_path: Path) -> None:
    """onnxruntime's telemetry would leave a device id in the home."""
    script = (
        "from serve_app.engine.preview import PreviewEngine as P\n"
        "from serve_app.engine.protocol import EngineInput, speak\n"
        "from serve_app.domain import BUILTIN, Unit, VoiceRef\n"
        "speak(P(), EngineInput(Unit(0, 'Hello.', VoiceRef('heart', BUILTIN), 1.0, 0, 0, 'r'), None))"
    )
    environ = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environ |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environ, cwd=Path(__file__).parents[2])
    assert list(tmp_path.rglob("*")) == []


def test_the_version_is_that_of_the_wheel() -> None:
    """The weights are in it, so the version that is installed says which model speaks."""
    assert engine().version == "hibari-tts-0.2.1"  # as pyproject.toml pins it
