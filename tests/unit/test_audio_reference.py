"""Reference audio with its text in one file."""

import io
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.audio import decode, decode_reference, encode_reference
from serve_app.errors import InvalidAudio

NOISE = np.random.default_rng(0).uniform(-1, 1, 1200).astype(np.float32)


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=200))
def test_text_and_audio_come_back(text: str) -> None:
    """Any text that UTF-8 can write; audio within half a step of 16 bits; the same bytes each time."""
    file = encode_reference(NOISE, text)
    audio, found = decode_reference(file)
    assert found == text
    np.testing.assert_allclose(audio, NOISE, atol=0.51 / 32767)
    assert encode_reference(NOISE, text) == file
    assert encode_reference(audio, found) == file


def test_it_is_a_wav_file_for_everyone() -> None:
    """Other readers find mono, 24 kHz, 16 bit and all samples."""
    file = encode_reference(NOISE, "Hello.")
    with wave.open(io.BytesIO(file)) as reader:
        assert (reader.getnchannels(), reader.getframerate(), reader.getsampwidth()) == (1, 24_000, 2)
        assert reader.getnframes() == 1200
    assert len(decode(file)) == 1200


def test_a_nul_is_refused() -> None:
    """It would end the comment."""
    with pytest.raises(ValueError, match="NUL"):
        encode_reference(NOISE, "a\0b")


@pytest.mark.parametrize("body", [b"", b"no audio", b"RIFF\0\0\0\0WAVE"])
def test_other_bytes_are_refused(body: bytes) -> None:
    """InvalidAudio."""
    with pytest.raises(InvalidAudio, match="are no reference"):
        decode_reference(body)
