"""Waveform -> bytes of an audio file.

    Pcm -> int16 -> wav | mp3 | pcm

Every format is made from the same 16-bit samples.
"""

import io
import wave
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, cast, get_args

import av
import numpy as np
from numpy.typing import NDArray

from serve_app.domain import SAMPLE_RATE_HZ, Pcm
from serve_app.errors import UnsupportedFormat

__all__ = ["CONTENT_TYPES", "AudioFormat", "encode", "read_wav", "to_int16"]

AudioFormat = Literal["wav", "mp3", "pcm"]

CONTENT_TYPES: Mapping[str, str] = MappingProxyType({"wav": "audio/wav", "mp3": "audio/mpeg", "pcm": "audio/pcm"})
"""The MIME type of each format in AudioFormat."""

MP3_BIT_RATE = 128_000
"""Constant; MPEG-2 layer III, which 24 kHz is, goes up to 160 kbit/s."""
BYTES_PER_SAMPLE = 2
FULL_SCALE = 32767


def encode(audio: Pcm, format: AudioFormat | str) -> bytes:
    """`audio` as a mono 24 kHz file: `wav` (16 bit), `mp3` (128 kbit/s) or `pcm` (little-endian 16 bit, no header).

    An mp3 states its encoder's delay and padding in its Info header, so decoders that read it, as FFmpeg's does, give
    back as many samples as went in (from 2 ms on).
    Raises UnsupportedFormat for another format, ValueError for audio that is empty or not finite.
    """
    if format not in get_args(AudioFormat):
        raise UnsupportedFormat(f"response_format {format!r} is not served: use one of {', '.join(CONTENT_TYPES)}")
    samples = to_int16(audio)
    match cast(AudioFormat, format):
        case "wav":
            return _wav(samples)
        case "mp3":
            return _mp3(samples)
        case "pcm":
            return samples.tobytes()


def to_int16(audio: Pcm) -> NDArray[np.int16]:
    """Little-endian 16-bit samples of `audio`, clipped to [-1, 1], times 32767, rounded to nearest.

    Raises ValueError for audio that is empty, not one-dimensional or not finite.
    """
    if audio.ndim != 1 or audio.size == 0:
        raise ValueError(f"audio has the shape {audio.shape}: it must be (samples,) with at least one sample")
    if not np.isfinite(audio).all():
        raise ValueError("audio holds NaN or infinity: the engine that made it is at fault")
    return np.rint(np.clip(audio, -1.0, 1.0) * FULL_SCALE).astype("<i2")


def read_wav(data: bytes) -> Pcm:
    """The waveform of a WAV that `encode` wrote; encoded again it gives the same samples, in every format."""
    with wave.open(io.BytesIO(data)) as reader:
        samples = np.frombuffer(reader.readframes(reader.getnframes()), "<i2")
    return samples.astype(np.float32) / np.float32(FULL_SCALE)


def _wav(samples: NDArray[np.int16]) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(BYTES_PER_SAMPLE)
        writer.setframerate(SAMPLE_RATE_HZ)
        writer.writeframes(samples.tobytes())
    return file.getvalue()


def _mp3(samples: NDArray[np.int16]) -> bytes:
    file = io.BytesIO()  # seekable, so that the Info header is written when the length is known
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE_HZ, layout="mono", format="s16p")
        stream.bit_rate = MP3_BIT_RATE
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16p", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for item in (frame, None):  # None flushes: the encoder holds the last frames back
            container.mux(stream.encode(item))
    return file.getvalue()
