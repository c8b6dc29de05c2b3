"""Samples to files in every format, whole and streamed. Joining and stretching are in test_audio.py."""

import io
import itertools
import wave
from collections.abc import Sequence
from typing import get_args

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serve_app.audio import FORMATS, AudioFormat, Encoder, Encoding, decode, encode
from serve_app.audio.mp3_info import more_padding
from serve_app.audio.resampling import Resampler
from serve_app.domain import SAMPLE_RATE_HZ, Pcm
from serve_app.errors import UnsupportedFormat
from tests.support.waves import rms, tone

WAVES = arrays(np.float32, st.integers(1, 200), elements=st.floats(-3, 3, width=32))
HEADERLESS = {"pcm": "s16le", "ulaw": "mulaw", "alaw": "alaw"}
AAC_FRAME = 1024
EVERY = [Encoding.of(name, rate_hz) for name in FORMATS for rate_hz in FORMATS[name].rates_hz]
NAMES = [f"{each.format} {each.sample_rate_hz}" for each in EVERY]


def decoded(file: bytes, encoding: Encoding) -> tuple[Pcm, int]:
    """Samples and rate as FFmpeg reads them."""
    told = HEADERLESS.get(encoding.format)
    options = {"sample_rate": str(encoding.sample_rate_hz), "ch_layout": "mono"} if told else {}
    with av.open(io.BytesIO(file), format=told, options=options) as container:
        stream = container.streams.audio[0]
        assert stream.channels == 1
        resampler = av.AudioResampler(format="flt", layout="mono")
        frames = [each for frame in container.decode(stream) for each in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray()[0] for frame in frames]), stream.rate


def streamed(pieces: Sequence[Pcm], encoding: Encoding) -> bytes:
    encoder = Encoder(encoding)
    return b"".join([*(encoder.add(piece) for piece in pieces), encoder.finish()])


def too_many(audio: Pcm, encoding: Encoding, rate_hz: int) -> int:
    """Samples of a decoded file beyond those that were encoded; opus is always decoded at 48 kHz."""
    expected = max(1, round(23_456 * encoding.sample_rate_hz / SAMPLE_RATE_HZ))
    return len(audio) - expected * rate_hz // encoding.sample_rate_hz


@given(WAVES)
def test_int16_samples(audio: Pcm) -> None:
    """What is in range is rounded to the nearest 1/32767; what is not is clipped to full scale."""
    samples = np.frombuffer(encode(audio, "pcm"), "<i2")
    expected = [round(min(max(float(value), -1.0), 1.0) * 32767, 3) for value in audio]
    assert samples.tolist() == pytest.approx(expected, abs=0.501)
    assert samples[np.abs(audio) >= 1].tolist() == [32767 * np.sign(x) for x in audio[np.abs(audio) >= 1]]


@pytest.mark.parametrize("encoding", EVERY, ids=NAMES)
def test_every_format_and_rate_is_as_long_as_what_went_in(encoding: Encoding) -> None:
    """To the sample, but for aac, which has no place for its padding; and it is the same tone at the same level."""
    file = encode(tone(300, 23_456), encoding)
    audio, rate_hz = decoded(file, encoding)
    assert 0 <= too_many(audio, encoding, rate_hz) <= (2 * AAC_FRAME if encoding.format == "aac" else 0)
    assert rate_hz == (48_000 if encoding.format == "opus" else encoding.sample_rate_hz)
    middle = audio[len(audio) // 4 : 3 * len(audio) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * rate_hz / len(middle) == pytest.approx(300, abs=2 * rate_hz / len(middle))
    assert rms(middle) == pytest.approx(rms(tone(300)), rel=0.05)


@pytest.mark.parametrize("encoding", EVERY, ids=NAMES)
def test_a_stream_is_as_long_as_what_went_in(encoding: Encoding) -> None:
    """To the sample, but for aac and mp3, which has no header then: three frames at most."""
    file = streamed(np.array_split(tone(300, 23_456), 7), encoding)
    audio, rate_hz = decoded(file, encoding)
    mp3_frame = 1152 if encoding.sample_rate_hz >= 32_000 else 576
    most = {"aac": 2 * AAC_FRAME, "mp3": 3 * mp3_frame}.get(encoding.format, 0)
    assert 0 <= too_many(audio, encoding, rate_hz) <= most


@pytest.mark.parametrize("encoding", EVERY, ids=NAMES)
def test_no_end_is_lost(encoding: Encoding) -> None:
    """A tone in the last 100 ms is heard there, whole or streamed, and nowhere else."""
    audio = tone(440, 48_000)
    audio[:-2400] = 0.0
    for mp3, file in ((0, encode(audio, encoding)), (3 * 1152, streamed(np.array_split(audio, 5), encoding))):
        found, rate_hz = decoded(file, encoding)
        spare = {"aac": 2 * AAC_FRAME, "mp3": mp3}.get(encoding.format, 0)
        assert rms(found[-rate_hz // 10 - spare :]) * np.sqrt(1 + spare * 10 / rate_hz) > 0.8 * rms(audio[-2400:])
        assert rms(found[: -rate_hz // 5 - spare]) < 0.005


@pytest.mark.parametrize("encoding", EVERY, ids=NAMES)
def test_how_a_stream_is_cut_decides_nothing(encoding: Encoding) -> None:
    """Pieces of any length give the file that one piece gives: there is one header, and nothing between."""
    audio = tone(300, 23_456)
    whole = streamed([audio], encoding)
    assert streamed(np.array_split(audio, 41), encoding) == whole
    assert streamed([audio[:1], audio[1:]], encoding) == whole


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_come_as_the_audio_comes(name: AudioFormat) -> None:
    """After each second of audio all but a little of it is out, so that a listener hears it."""
    encoder = Encoder(Encoding.of(name))
    second = np.random.default_rng(1).normal(0, 0.1, SAMPLE_RATE_HZ).astype(np.float32)
    sizes = [len(encoder.add(second)) for _ in range(4)]
    assert min(sizes[1:]) > 0.8 * max(sizes[1:])
    assert len(encoder.finish()) < sizes[1] / 4


@pytest.mark.parametrize("name", ["wav", "pcm", "flac"])
def test_lossless_formats_hold_the_same_samples(name: AudioFormat) -> None:
    """At 24 kHz, whole and streamed: those of pcm."""
    audio = tone(300, 23_456)
    expected = np.frombuffer(encode(audio, "pcm"), "<i2") / 32768
    for file in (encode(audio, name), streamed(np.array_split(audio, 5), Encoding.of(name))):
        assert np.array_equal(decoded(file, Encoding.of(name))[0], expected.astype(np.float32))


@pytest.mark.parametrize("rate_hz", [8_000, 24_000, 44_100])
@pytest.mark.parametrize("samples", [1, 999, 24_000])
def test_wav_header(samples: int, rate_hz: int) -> None:
    """Sizes, rate and width in the header are those of the file."""
    encoding = Encoding.of("wav", rate_hz)
    file = encode(tone(300, samples), encoding)
    assert int.from_bytes(file[4:8], "little") == len(file) - 8
    with wave.open(io.BytesIO(file)) as reader:
        assert reader.getparams()[:4] == (1, 2, rate_hz, max(1, round(samples * rate_hz / 24_000)))
        assert reader.readframes(samples * 2) == encode(tone(300, samples), Encoding.of("pcm", rate_hz))


def test_a_streamed_wav_says_that_its_size_is_not_known() -> None:
    """0xFFFFFFFF in both places, once, with the first samples; what follows is pcm."""
    encoder = Encoder(Encoding.of("wav"))
    first, second = encoder.add(tone(300, 100)), encoder.add(tone(300, 100))
    assert (first[:4], first[4:8], first[40:44]) == (b"RIFF", b"\xff" * 4, b"\xff" * 4)
    assert first[44:] == second == encode(tone(300, 100), "pcm")
    assert encoder.finish() == b""


@pytest.mark.parametrize("name", ["wav", "mp3", "opus", "flac"])
def test_whole_files_tell_their_duration(name: AudioFormat) -> None:
    """A player shows it before it has read all."""
    with av.open(io.BytesIO(encode(tone(300, 36_000), name))) as container:
        assert container.duration == pytest.approx(1_500_000, abs=20_000)  # opus counts its pre-skip


@pytest.mark.parametrize(("rate_hz", "frame"), [(24_000, 576), (48_000, 1152)])
@pytest.mark.parametrize("padding", [0, 1, 23, 46, 47, 48, 529, 575])
def test_mp3_keeps_every_sample(padding: int, rate_hz: int, frame: int) -> None:
    """However full the last frame is: FFmpeg's LAME alone says nothing of a padding of 1 to 46 samples."""
    samples = 43 * frame - 1105 - padding
    encoding = Encoding.of("mp3", rate_hz)
    audio = tone(300, -(-samples * SAMPLE_RATE_HZ // rate_hz))
    assert len(decoded(encode(audio, encoding), encoding)[0]) == round(len(audio) * rate_hz / SAMPLE_RATE_HZ)


@pytest.mark.parametrize("samples", [101, 575, 576, 24_001])
def test_a_short_mp3_keeps_every_sample(samples: int) -> None:
    """From 5 ms on."""
    assert len(decode(encode(tone(300, samples), "mp3"))) == samples


def test_the_checksum_of_an_info_header_is_ffmpegs() -> None:
    """Where nothing is added nothing changes, the checksum included."""
    for rate_hz in FORMATS["mp3"].rates_hz:
        file = encode(tone(300), Encoding.of("mp3", rate_hz))
        assert more_padding(file, 0) == file
    assert more_padding(file, 1) != file
    with pytest.raises(ValueError, match="no Info header"):
        more_padding(streamed([tone(300)], Encoding.of("mp3")), 1)


def test_the_same_audio_gives_the_same_file() -> None:
    """No format holds a clock or a random number."""
    assert [encode(tone(300), each) for each in EVERY] == [encode(tone(300), each) for each in EVERY]


@settings(max_examples=30)
@given(st.sampled_from([8_000, 11_025, 16_000, 44_100, 48_000]), st.lists(st.integers(1, 3000), min_size=1, max_size=6))
def test_resampled_length(rate_hz: int, lengths: list[int]) -> None:
    """round(n * rate / 24000) samples, and the same ones, however they come."""
    samples = np.random.default_rng(1).integers(-9000, 9000, sum(lengths), np.int16)
    together, apart = Resampler(rate_hz), Resampler(rate_hz)
    ends = list(itertools.accumulate(lengths))
    pieces = [apart.add(samples[end - length : end]) for length, end in zip(lengths, ends, strict=True)]
    found = np.concatenate([*pieces, apart.finish()])
    assert len(found) == max(1, round(len(samples) * rate_hz / SAMPLE_RATE_HZ))
    assert np.array_equal(found, np.concatenate([together.add(samples), together.finish()]))


def test_every_format_is_in_the_table() -> None:
    """The table and the type name the same formats."""
    assert tuple(FORMATS) == get_args(AudioFormat)


@pytest.mark.parametrize(
    ("encoding", "content_type"),
    [
        (Encoding.of("opus"), "audio/ogg"),
        (Encoding.of("aac", 44_100), "audio/aac"),
        (Encoding.of("pcm"), "audio/pcm"),
        (Encoding.of("pcm", 16_000), "audio/pcm;rate=16000"),
        (Encoding.of("ulaw"), "audio/basic"),
        (Encoding.of("ulaw", 16_000), "audio/PCMU;rate=16000"),
        (Encoding.of("alaw"), "audio/PCMA"),
        (Encoding.of("alaw", 24_000), "audio/PCMA;rate=24000"),
    ],
)
def test_content_types(encoding: Encoding, content_type: str) -> None:
    """A file without a header is of no use without its rate."""
    assert encoding.content_type == content_type


@pytest.mark.parametrize(
    ("name", "rate_hz", "bit_rate", "reason"),
    [
        ("aiff", None, None, r"response_format 'aiff' .*wav, mp3, pcm, opus, aac, flac, ulaw, alaw"),
        ("opus", 44_100, None, r"sample_rate 44100 .*opus: use one of 8000, 12000, 16000, 24000, 48000"),
        ("wav", 0, None, r"sample_rate 0 .*wav: use one of 8000"),
        ("wav", 96_000, None, r"sample_rate 96000 .*wav: use one of 8000, .*48000"),
        ("wav", None, 128_000, r"bit_rate 128000 .*wav, which has none"),
        ("mp3", 8_000, 128_000, r"bit_rate 128000 .*mp3 at 8000 Hz: use 8000 to 64000"),
        ("aac", None, 1, r"bit_rate 1 .*aac at 24000 Hz: use 8000 to 144000"),
    ],
)
def test_what_is_not_served(name: str, rate_hz: int | None, bit_rate: int | None, reason: str) -> None:
    """The error names the field, the value and what is served."""
    with pytest.raises(UnsupportedFormat, match=reason):
        Encoding.of(name, rate_hz, bit_rate)


@pytest.mark.parametrize("name", ["mp3", "opus", "aac"])
def test_the_bit_rate_is_as_asked(name: str) -> None:
    """To a fifth, for a second of noise; at a low rate the usual one is as high as the codec takes."""
    noise = np.random.default_rng(1).normal(0, 0.1, 5 * SAMPLE_RATE_HZ).astype(np.float32)
    for bit_rate in (32_000, 64_000):
        assert len(encode(noise, Encoding.of(name, 24_000, bit_rate))) * 8 / 5 == pytest.approx(bit_rate, rel=0.2)
    assert Encoding.of(name, 8_000).bit_rate == {"mp3": 64_000, "opus": 32_000, "aac": 48_000}[name]


@pytest.mark.parametrize(
    ("audio", "reason"),
    [([], r"\(0,\)"), ([[0.1]], r"\(1, 1\)"), ([0.1, float("nan")], "NaN"), ([float("inf")], "infinity")],
)
def test_what_is_no_waveform_is_not_encoded(audio: list[float], reason: str) -> None:
    """Nothing to encode, or no numbers, is an error of the caller."""
    with pytest.raises(ValueError, match=reason):
        encode(np.array(audio, np.float32), "wav")
