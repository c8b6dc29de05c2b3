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

__all__ = ["decode"]

CONTAINERS = ("wav", "mp3", "flac", "ogg", "aac", "mov", "matroska")
"""FFmpeg's names of demuxers; `mov` reads mp4 and m4a, `matroska` reads webm, `aac` reads ADTS."""
CODECS = ("mp3", "mp3float", "flac", "opus", "libopus", "vorbis", "libvorbis", "aac", "alac")
PCM_PREFIX = "pcm_"
ACCEPTED = "wav, mp3, flac, ogg (opus or vorbis), m4a, aac or webm"

MIN_RATE_HZ, MAX_RATE_HZ, MAX_CHANNELS = 8_000, 192_000, 8
"""A header may state any rate and, in some codecs, 255 channels; the resampler's memory and time grow with both."""
COUNTED = ("flac", "mov,mp4,m4a,3gp,3g2,mj2")
"""Containers whose header counts the samples that follow; of the others FFmpeg estimates the duration."""
MISSING_S = 0.1
"""By how much less may come out: an encoder's priming samples are counted by some and not by others."""


def decode(data: bytes, *, field: str = "audio", max_duration_s: float = 600) -> Pcm:
    """The first audio stream of a file, as the mean of its channels, at 24 kHz: wav, mp3, flac, ogg, m4a, aac or webm.

    Audio that goes above full scale, as float files can, is scaled down as a whole to a peak of 1. Decoding stops as
    soon as more than `max_duration_s` has come out, whatever the header says, so a small file cannot fill the memory.
    Raises InvalidAudio, naming `field`, for anything else, for a file with a broken place, and for flac and m4a that
    end before their headers say. In the other containers a file that was cut between two packets is a shorter file.
    """
    if not data:
        raise InvalidAudio(f"{field} is empty (0 bytes): send the bytes of a file in {ACCEPTED}")
    try:
        with _open(data) as container:
            stream = _audio_stream(container, field)
            waves = list(_mono(container, stream, field, max_duration_s))
            stated_s = _stated_s(container, stream)
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
    return _in_range(audio, field)


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


def _mono(container: InputContainer, stream: AudioStream, field: str, max_duration_s: float) -> Iterator[Pcm]:
    """The stream's frames at 24 kHz, channels averaged, the resampler's tail included.

    Raises InvalidAudio past `max_duration_s`.
    """
    resampler = av.AudioResampler(format="flt", rate=SAMPLE_RATE_HZ)
    samples = 0
    for frame in container.decode(stream):
        samples += frame.samples
        if samples > max_duration_s * frame.sample_rate:
            raise InvalidAudio(f"{field} is longer than {max_duration_s:g} s: send a shorter recording")
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
