"""Whole audio files in answers, over the whole service in one process. Streams are in test_api_streaming.py."""

import io
import wave

import pytest

from serve_app.audio import Encoding, decode
from tests.support.service import LocalService

SPEECH = "/v1/audio/speech"


@pytest.fixture
def service() -> LocalService:
    return LocalService()


@pytest.mark.parametrize("response_format", ["wav", "mp3", "opus", "aac", "flac"])
async def test_speech_is_audio_in_the_format_asked_for(service, response_format):
    """It decodes to the speech, with its own content type."""
    answer = await service.client.post(SPEECH, json={"input": "Hello there.", "response_format": response_format})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == Encoding.of(response_format).content_type
    expected_s = float(answer.headers["x-audio-seconds"])
    assert len(decode(answer.content)) / 24_000 == pytest.approx(expected_s, abs=0.09)


@pytest.mark.parametrize(
    ("response_format", "sample_rate", "bytes_per_s", "content_type"),
    [
        ("pcm", 24_000, 48_000, "audio/pcm"),
        ("pcm", 8_000, 16_000, "audio/pcm;rate=8000"),
        ("ulaw", None, 8_000, "audio/basic"),
        ("alaw", 16_000, 16_000, "audio/PCMA;rate=16000"),
    ],
)
async def test_headerless_speech_is_as_long_as_it_says(
    service, response_format, sample_rate, bytes_per_s, content_type
):
    """At the rate that was asked for, which the content type tells."""
    body = {"input": "Hello there.", "response_format": response_format, "sample_rate": sample_rate}
    answer = await service.client.post(SPEECH, json=body)
    assert answer.headers["content-type"] == content_type
    assert len(answer.content) / bytes_per_s == pytest.approx(float(answer.headers["x-audio-seconds"]), abs=0.001)


async def test_mp3_is_the_default_format(service):
    """As OpenAI's API says."""
    answer = await service.client.post(SPEECH, json={"input": "Hello there."})
    assert answer.headers["content-type"] == "audio/mpeg"


async def test_a_wav_has_right_sizes_in_its_header(service):
    """Players read the length from the header."""
    answer = await service.client.post(SPEECH, json={"input": "Hello there.", "response_format": "wav"})
    with wave.open(io.BytesIO(answer.content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        assert file.getnframes() / 24_000 == pytest.approx(float(answer.headers["x-audio-seconds"]), abs=0.001)
