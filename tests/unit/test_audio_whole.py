"""Whole files made of waves as they come."""

import io
import tempfile
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest

from serve_app.audio import FORMATS, KEPT_BYTES, Encoding, WholeFile, decode, encode, read_wav, wav_waves
from serve_app.audio import encoding as encoding_module
from serve_app.audio import whole as whole_module
from serve_app.domain import SAMPLE_RATE_HZ
from serve_app.errors import UnsupportedFormat
from tests.support.loudness import lufs
from tests.support.waves import tone

AUDIO = tone(300, 100_001) * np.linspace(0.1, 1, 100_001, dtype=np.float32)


@pytest.fixture(params=[whole_module.SPOOL_BYTES, 100], ids=["in memory", "on disk"])
def spooling(request, monkeypatch, tmp_path) -> Path:
    """The folder of the temporary files."""
    monkeypatch.setattr(whole_module, "SPOOL_BYTES", request.param)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def filled(encoding: Encoding, **options: object) -> WholeFile:
    file = WholeFile(encoding, **options)
    try:
        for piece in np.array_split(AUDIO, 7):
            file.add(piece)
        file.finish()
    except BaseException:
        file.close()
        raise
    return file


@pytest.mark.parametrize("rate_hz", [None, 48_000])
@pytest.mark.parametrize("name", FORMATS)
def test_the_file_is_the_one_that_is_made_at_once(spooling, name, rate_hz):
    """Byte for byte where no rate is changed, sizes and durations included; its size is told."""
    encoding = Encoding.of(name, rate_hz)
    file = filled(encoding)
    content, expected = b"".join(file.pieces()), encode(AUDIO, encoding)
    assert (file.size_bytes, len(content), file.samples) == (len(content), len(expected), len(AUDIO))
    if rate_hz is None:
        assert content == expected
    assert list(spooling.iterdir()) == []
    file.close()


@pytest.mark.parametrize("name", FORMATS)
def test_one_that_is_given_up_leaves_nothing(spooling, name):
    """Closed in the middle: no file, and no error of the encoder's."""
    file = WholeFile(Encoding.of(name), keep=True)
    file.add(AUDIO)
    file.close()
    assert list(spooling.iterdir()) == []


def test_the_loudness_is_that_of_the_whole(spooling):
    """Measured over all of it before the first sample is encoded: within 0.5 LU in the decoded file."""
    file = filled(Encoding.of("mp3"), lufs=-25.0)
    assert file.gain.lufs == pytest.approx(-25.0)
    assert lufs(decode(b"".join(file.pieces()))) == pytest.approx(-25.0, abs=0.5)
    file.close()


def test_what_is_kept_is_as_it_was_spoken(spooling):
    """Without the gain that this client asked for, to the bit."""
    file = filled(Encoding.of("pcm"), lufs=-30.0, keep=True)
    assert encode(file.kept(), "wav") == encode(AUDIO, "wav")
    assert file.kept() == pytest.approx(AUDIO, abs=1e-4)
    file.close()


def test_no_more_is_kept_than_has_room(spooling, monkeypatch):
    """Nothing rather than a part."""
    monkeypatch.setattr(whole_module, "KEPT_BYTES", 2 * len(AUDIO) - 1)
    for file in (filled(Encoding.of("pcm"), keep=True), filled(Encoding.of("pcm"))):
        assert file.kept() is None
        file.close()


def test_memory_does_not_grow_with_the_speech(monkeypatch, tmp_path):
    """20 minutes with a loudness and to be kept: 58 MB of samples, and less than 24 MiB in memory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    unit = tone(300, 20 * SAMPLE_RATE_HZ)
    tracemalloc.start()
    file = WholeFile(Encoding.of("wav"), lufs=-20.0, keep=True)
    for _ in range(60):
        file.add(unit)
    file.finish()
    size = sum(len(piece) for piece in file.pieces())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == file.size_bytes == 44 + 2 * 60 * len(unit) > KEPT_BYTES
    assert peak < 24 * 1024 * 1024
    file.close()


def test_a_wav_over_four_gib_is_refused(monkeypatch):
    """Its header has no place for such a size: the message says what has."""
    monkeypatch.setattr(encoding_module, "MOST_WAV_BYTES", 2 * len(AUDIO) - 2)
    with pytest.raises(UnsupportedFormat, match="flac"):
        filled(Encoding.of("wav"))
    filled(Encoding.of("flac")).close()
    filled(Encoding.of("pcm")).close()


def test_a_wav_is_read_in_pieces(monkeypatch):
    """Together they are the waveform that `read_wav` gives."""
    monkeypatch.setattr(whole_module, "PIECE_SAMPLES", 1000)
    file = encode(AUDIO, "wav")
    pieces = list(wav_waves(file))
    assert len(pieces) == 101
    assert np.array_equal(np.concatenate(pieces), read_wav(file))


def test_the_header_of_a_spooled_wav_is_right(spooling):
    """As the standard library reads it."""
    file = filled(Encoding.of("wav"))
    with wave.open(io.BytesIO(b"".join(file.pieces()))) as reader:
        assert (reader.getnframes(), reader.getframerate(), reader.getnchannels()) == (len(AUDIO), SAMPLE_RATE_HZ, 1)
    file.close()
