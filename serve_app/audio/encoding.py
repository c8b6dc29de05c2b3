"""Waveform -> bytes of an audio file, whole or as it comes.

    Pcm -> int16 -> (other rate) -> WAV header | FFmpeg's codec and container | as they are -> bytes

Every format is made from the same 16-bit samples.
"""

import io
import struct
import wave
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import av
import numpy as np
from av.audio.stream import AudioStream

from serve_app.audio.formats import AudioFormat, Encoding
from serve_app.audio.mp3_info import more_padding, silence_needed
from serve_app.audio.resampling import SCALE, Int16, Resampler
from serve_app.domain import SAMPLE_RATE_HZ, Pcm
from serve_app.errors import UnsupportedFormat

__all__ = ["BYTES_PER_SAMPLE", "WAV_HEADER_BYTES", "Encoder", "encode", "read_wav", "to_int16", "wav_file"]

FULL_SCALE = 32767
BYTES_PER_SAMPLE = 2
WAV_HEADER_BYTES = 44
"""Before the first sample of each WAV that is written here."""
UNKNOWN_BYTES = 0xFFFF_FFFF
"""In a WAV header: the sizes are not known, read to the end."""
MOST_WAV_BYTES = 0xFFFF_FFFF - 37
"""Of samples: more has no place in the header of a whole WAV."""
HEAD_BYTES = 1024
"""Of an mp3: its Info header lies there."""
PIECE_SAMPLES = 60 * SAMPLE_RATE_HZ
"""Long audio is encoded in such pieces, so that it is not there several times over."""


@dataclass(frozen=True, slots=True)
class _Codec:
    """FFmpeg's names. `options`: of the container."""

    container: str
    codec: str
    samples: str = "s16"
    options: Mapping[str, str] = field(default_factory=dict)


CODECS: Mapping[AudioFormat, _Codec] = {
    "mp3": _Codec("mp3", "libmp3lame", "s16p"),
    "opus": _Codec("ogg", "libopus", options={"page_duration": "60000"}),  # us; a file of one page is not cut right
    "aac": _Codec("adts", "aac", "fltp"),
    "flac": _Codec("flac", "flac"),
    "ulaw": _Codec("mulaw", "pcm_mulaw"),
    "alaw": _Codec("alaw", "pcm_alaw"),
}
WITHOUT_CHANCE = {"fflags": "+bitexact"}
"""No random serial numbers, and no encoder's version in the file."""


def encode(audio: Pcm, encoding: Encoding | str) -> bytes:
    """`audio` as one whole file: sizes and duration are in the header where the format has a place for them.

    A format's name stands for its usual rates. FFmpeg decodes as many samples again as went in, from 60 ms on:
    round(n * rate / 24000). But an aac is up to two frames of 1,024 longer: ADTS has no place to say what is padding.
    Raises UnsupportedFormat for a name that is none, ValueError for audio that is empty or not finite.
    """
    file = io.BytesIO()
    encoder = Encoder(Encoding.of(encoding) if isinstance(encoding, str) else encoding, file)
    for start in range(0, max(1, len(audio)), PIECE_SAMPLES):
        encoder.add(audio[start : start + PIECE_SAMPLES])
    encoder.finish()
    return file.getvalue()


class Encoder:
    """One file, byte by byte as its audio comes. Not for several threads at once.

    Streamed, a WAV has the sizes 0xFFFFFFFF, and an mp3 is up to three frames longer when decoded. `whole`: a file at
    its beginning, which can be read, written and sought; all bytes go there, none are given, and the header is right.
    """

    def __init__(self, encoding: Encoding, whole: BinaryIO | None = None) -> None:
        self._resampler = Resampler(encoding.sample_rate_hz)
        self._file: _File = _Coded(encoding, whole) if encoding.format in CODECS else _Plain(encoding, whole)

    def add(self, audio: Pcm) -> bytes:
        """The bytes that are ready. Raises ValueError for audio that is empty or not finite, UnsupportedFormat for more
        than a whole WAV can have (4 GiB)."""
        return self._file.add(self._resampler.add(to_int16(audio)))

    def finish(self) -> bytes:
        """The last bytes: the encoder's own delay included, so that no end is lost."""
        return self._file.add(self._resampler.finish()) + self._file.finish()


def to_int16(audio: Pcm) -> Int16:
    """Little-endian 16-bit samples of `audio`, clipped to [-1, 1], times 32767, rounded to nearest.

    Raises ValueError for audio that is empty, not one-dimensional or not finite.
    """
    if audio.ndim != 1 or audio.size == 0:
        raise ValueError(f"audio has the shape {audio.shape}: it must be (samples,) with at least one sample")
    if not np.isfinite(audio).all():
        raise ValueError("audio holds NaN or infinity: the engine that made it is at fault")
    return np.rint(np.clip(audio, -1.0, 1.0) * FULL_SCALE).astype("<i2")


def wav_file(samples: Int16) -> bytes:
    """The WAV of 16-bit samples at 24 kHz, as `encode` would write it."""
    body = samples.tobytes()
    return _wav_header(SAMPLE_RATE_HZ, len(body)) + body


def read_wav(data: bytes) -> Pcm:
    """The waveform of a WAV that `encode` wrote; encoded again it gives the same samples, in every format."""
    with wave.open(io.BytesIO(data)) as reader:
        samples = np.frombuffer(reader.readframes(reader.getnframes()), "<i2")
    return samples.astype(np.float32) / np.float32(FULL_SCALE)


class _Plain:
    """Samples as they are: pcm, and wav with its header."""

    def __init__(self, encoding: Encoding, whole: BinaryIO | None) -> None:
        self._rate_hz = encoding.sample_rate_hz
        self._whole = whole
        self._size_bytes = 0
        self._is_wav = encoding.format == "wav"
        self._header = b"" if not self._is_wav else _wav_header(self._rate_hz, None if whole is None else 0)
        if whole is not None:
            whole.write(self._header)

    def add(self, samples: Int16) -> bytes:
        body = samples.tobytes()
        self._size_bytes += len(body)
        if self._whole is None:
            return self._given(body)
        if self._is_wav and self._size_bytes > MOST_WAV_BYTES:
            raise UnsupportedFormat(
                "response_format 'wav' has no place for so much speech (4 GiB): use flac, or a lower sample_rate"
            )
        self._whole.write(body)
        return b""

    def finish(self) -> bytes:
        if self._whole is None:
            return self._given(b"")
        if self._is_wav:
            self._whole.seek(0)
            self._whole.write(_wav_header(self._rate_hz, self._size_bytes))
        return b""

    def _given(self, body: bytes) -> bytes:
        header, self._header = self._header, b""
        return header + body


class _Coded:
    """What FFmpeg encodes."""

    def __init__(self, encoding: Encoding, whole: BinaryIO | None) -> None:
        self._codec = CODECS[encoding.format]
        self._whole = whole
        self._whole_mp3 = whole is not None and encoding.format == "mp3"
        self._rate_hz = encoding.sample_rate_hz
        self._samples = 0
        self._written = _Written()
        options = {**WITHOUT_CHANCE, **self._codec.options}
        out = cast("BinaryIO", self._written) if whole is None else whole
        self._container = av.open(out, "w", format=self._codec.container, container_options=options)
        stream = self._container.add_stream(
            self._codec.codec, rate=self._rate_hz, layout="mono", format=self._codec.samples
        )
        self._stream = cast("AudioStream", stream)
        if encoding.bit_rate is not None:
            self._stream.bit_rate = encoding.bit_rate

    def add(self, samples: Int16) -> bytes:
        if samples.size:
            self._samples += len(samples)
            floats = self._codec.samples == "fltp"
            values = samples.astype(np.float32) / SCALE if floats else samples
            frame = av.AudioFrame.from_ndarray(values[np.newaxis], format=self._codec.samples, layout="mono")
            frame.sample_rate = self._rate_hz
            self._container.mux(self._stream.encode(frame))
        return self._written.taken()

    def finish(self) -> bytes:
        silence = silence_needed(self._samples, self._rate_hz) if self._whole_mp3 else 0
        self.add(np.zeros(silence, np.int16))
        self._container.mux(self._stream.encode(None))  # the encoder holds the last frames back
        self._container.close()
        if silence and self._whole is not None:
            self._whole.seek(0)
            head = more_padding(self._whole.read(HEAD_BYTES), silence)
            self._whole.seek(0)
            self._whole.write(head)
        return self._written.taken()


_File = _Plain | _Coded


class _Written:
    """What FFmpeg writes where it cannot go back."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _wav_header(rate_hz: int, data_bytes: int | None) -> bytes:
    """44 bytes, mono, 16 bit. None: sizes that are not known."""
    size = UNKNOWN_BYTES if data_bytes is None else data_bytes
    riff = UNKNOWN_BYTES if data_bytes is None else data_bytes + 36
    form = struct.pack("<HHIIHH", 1, 1, rate_hz, rate_hz * BYTES_PER_SAMPLE, BYTES_PER_SAMPLE, 8 * BYTES_PER_SAMPLE)
    return (
        struct.pack("<4sI4s4sI", b"RIFF", riff, b"WAVE", b"fmt ", len(form)) + form + struct.pack("<4sI", b"data", size)
    )
