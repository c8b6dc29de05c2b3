"""Bytes of an audio file that a stranger sent -> waveform.

    bytes -> container and codec on the list? -> frames, counted -> mono 24 kHz -> finite, in [-1, 1]

FFmpeg reads from memory, is told which formats it may recognise, and may use no protocol to open anything else: with
its defaults a playlist (hls, dash, concat) opens the files and addresses it names: CVE-2016-1897, CVE-2017-9993.
"""

import io
from collections.abc import Iterator

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer

from serve_app.domain import SAMPLE_RATE_HZ, Pcm
from serve_app.errors import InvalidAudio

__all__ = ["decode", "decode_counting_clipped"]

CONTAINERS = ("wav", "mp3", "flac", "ogg", "aac", "mov", "matroska")
"""FFmpeg's names of demuxers; `mov` reads mp4 and m4a, `matroska` reads webm, `aac` reads ADTS."""
CODECS = ("mp3", "mp3float", "flac", "opus", "libopus", "vorbis", "libvorbis", "aac", "alac")
PCM_PREFIX = "pcm_"
ACCEPTED = "wav, mp3, flac, ogg (opus or vorbis), m4a, aac or webm"

MIN_RATE_HZ, MAX_RATE_HZ, MAX_CHANNELS = 8_000, 192_000, 8
"""A header may state any rate and, in some codecs, 255 channels; the resampler's memory and time grow with both."""
COUNTED = ("flac", "mov,mp4,m4a,3gp,3g2,mj2")
"""Containers whose header counts the samples that follow; of the others FFmpeg estimates the duration."""
NEAR_FULL_SCALE = 5e-5
"""Of the range: 24-bit samples stand in 32 bits, and end a little below."""
MISSING_S = 0.1
"""By how much less may come out: an encoder's priming samples are counted by some and not by others."""


def decode(data: bytes, *, field: str = "audio", max_duration_s: float = 600) -> Pcm:
    """The first audio stream of a file, as the mean of its channels, at 24 kHz: wav, mp3, flac, ogg, m4a, aac or webm.

    Audio that goes above full scale, as float files can, is scaled down as a whole to a peak of 1. A file whose header
    counts more than `max_duration_s` is not decoded; decoding stops as soon as more has come out, whatever the header
    says, so a small file cannot fill the memory.
    Raises InvalidAudio, naming `field`, for anything else, for a file with a broken place, and for flac and m4a that
    end before their headers say. In the other containers a file that was cut between two packets is a shorter file.
    """
    return decode_counting_clipped(data, field=field, max_duration_s=max_duration_s)[0]


def decode_counting_clipped(data: bytes, *, field: str = "audio", max_duration_s: float = 600) -> tuple[Pcm, float]:
    """As `decode`, with the share of the file's own samples that are at full scale: resampling hides them."""
    if not data:
        raise InvalidAudio(f"{field} is empty (0 bytes): send the bytes of a file in {ACCEPTED}")
    clipping = _Clipping()
    try:
        with _open(data) as container:
            stream = _audio_stream(container, field)
            stated_s = _stated_s(container, stream)
            if stated_s > max_duration_s:
                raise _too_long(field, max_duration_s)
            waves = list(_mono(container, stream, field, max_duration_s, clipping))
    except (av.error.FFmpegError, ValueError) as error:
        reason = error.strerror if isinstance(error, av.error.FFmpegError) else error
        raise InvalidAudio(
            f"{field} ({len(data)} bytes, beginning {data[:8]!r}) cannot be read as audio ({reason}): "
            f"send a whole file in {ACCEPTED}"
        ) from error
    audio: Pcm = np.concatenate([np.zeros(0, np.float32), *waves])
    if not audio.size:
        raise InvalidAudio(f"{field} ({len(data)} bytes) holds no audio at all: send a recording with speech in it")
    found_s = len(audio) / SAMPLE_RATE_HZ
    if found_s < stated_s - MISSING_S:
        raise InvalidAudio(f"{field} states {stated_s:.2f} s and ends after {found_s:.2f} s: send the whole file")
    return _in_range(audio, field), clipping.share


class _Clipping:
    """Counts samples at full scale."""

    def __init__(self) -> None:
        self._clipped = self._all = 0

    @property
    def share(self) -> float:
        return self._clipped / max(self._all, 1)

    def count(self, frame: av.AudioFrame) -> None:
        """What is at either end of the format's range, or beyond it, as floats can be."""
        if frame.format.is_planar and len(frame.layout.channels) >= MAX_CHANNELS:
            return  # PyAV 18 reads past the end of a frame of 8 separate planes
        samples = frame.to_ndarray()
        low, high = (-1.0, 1.0) if samples.dtype.kind == "f" else _range_of(samples.dtype.name)
        margin = NEAR_FULL_SCALE * (high - low)
        clipped = (samples <= low + margin) | (samples >= high - margin)
        self._clipped += int(np.count_nonzero(clipped))
        self._all += samples.size


def _range_of(integers: str) -> tuple[int, int]:
    """Of FFmpeg's integer formats, by numpy's name."""
    bits = int(integers.removeprefix("u").removeprefix("int"))
    return (0, 2**bits - 1) if integers.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _too_long(field: str, max_duration_s: float) -> InvalidAudio:
    return InvalidAudio(f"{field} is longer than {max_duration_s:g} s: send a shorter recording")


def _open(data: bytes) -> InputContainer:
    return av.open(
        io.BytesIO(data),
        mode="r",
        container_options={"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "none"},
        metadata_errors="replace",  # tags in some old encoding are no reason to refuse the audio
    )


def _audio_stream(container: InputContainer, field: str) -> AudioStream:
    """The first audio stream, if its codec, rate and channels are ones that are accepted."""
    if not container.streams.audio:
        raise InvalidAudio(f"{field} is {container.format.name} without an audio stream: send {ACCEPTED}")
    stream = container.streams.audio[0]
    context = getattr(stream, "codec_context", None)  # None where FFmpeg has no decoder; PyAV's types do not say so
    codec = "an unknown codec" if context is None else context.name
    if context is None or not (codec in CODECS or codec.startswith(PCM_PREFIX)):
        raise InvalidAudio(f"{field} is encoded with {codec}, which is not accepted: send {ACCEPTED}")
    if not MIN_RATE_HZ <= context.sample_rate <= MAX_RATE_HZ:
        raise InvalidAudio(
            f"{field} has a sample rate of {context.sample_rate} Hz: send one between {MIN_RATE_HZ} and {MAX_RATE_HZ}"
        )
    if context.channels > MAX_CHANNELS:
        raise InvalidAudio(f"{field} has {context.channels} channels: send at most {MAX_CHANNELS}")
    return stream


def _mono(
    container: InputContainer, stream: AudioStream, field: str, max_duration_s: float, clipping: _Clipping
) -> Iterator[Pcm]:
    """The stream's frames at 24 kHz, channels averaged, the resampler's tail included.

    Raises InvalidAudio past `max_duration_s`.
    """
    resampler = av.AudioResampler(format="flt", rate=SAMPLE_RATE_HZ)
    samples = 0
    for frame in container.decode(stream):
        samples += frame.samples
        if samples > max_duration_s * frame.sample_rate:
            raise _too_long(field, max_duration_s)
        clipping.count(frame)
        yield from map(_mean_of_channels, resampler.resample(frame))
    if samples:
        yield from map(_mean_of_channels, resampler.resample(None))


def _mean_of_channels(frame: av.AudioFrame) -> Pcm:
    # Interleaved, because PyAV 18 reads past the end of a frame of 8 separate planes.
    mean: Pcm = frame.to_ndarray().reshape(frame.samples, -1).mean(axis=1, dtype=np.float32)
    return mean


def _stated_s(container: InputContainer, stream: AudioStream) -> float:
    """Seconds of audio by the header; 0 where it does not count them."""
    if container.format.name not in COUNTED or stream.duration is None or stream.time_base is None:
        return 0.0
    return float(stream.duration * stream.time_base)


def _in_range(audio: Pcm, field: str) -> Pcm:
    if not np.isfinite(audio).all():
        raise InvalidAudio(f"{field} holds samples that are no numbers (NaN or infinity): export the recording again")
    return audio / max(1.0, float(np.abs(audio).max()))
