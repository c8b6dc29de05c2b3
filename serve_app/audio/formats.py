"""Which audio files are served: names, rates, bit rates, MIME types. Encodes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, cast

from serve_app.domain import SAMPLE_RATE_HZ
from serve_app.errors import UnsupportedFormat

__all__ = ["FORMATS", "AudioFormat", "Encoding", "Format"]

AudioFormat = Literal["wav", "mp3", "pcm", "opus", "aac", "flac", "ulaw", "alaw"]

ANY_RATE = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
LOWEST, HIGHEST = 8_000, 192_000  # bits a second


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file. `rate_hz` is its rate where none is asked for, `bit_rate` as much (None: it has none to choose).

    `rated_type`: of what has no header, the MIME type that tells another rate than `rate_hz`.
    """

    content_type: str
    rates_hz: Sequence[int] = ANY_RATE
    rate_hz: int = SAMPLE_RATE_HZ
    bit_rate: int | None = None
    rated_type: str | None = None


FORMATS: Mapping[AudioFormat, Format] = MappingProxyType(
    {
        "wav": Format("audio/wav"),
        "mp3": Format("audio/mpeg", bit_rate=128_000),
        "pcm": Format("audio/pcm", rated_type="audio/pcm"),
        "opus": Format("audio/ogg", (8_000, 12_000, 16_000, 24_000, 48_000), bit_rate=64_000),
        "aac": Format("audio/aac", bit_rate=128_000),
        "flac": Format("audio/flac"),
        "ulaw": Format("audio/basic", rate_hz=8_000, rated_type="audio/PCMU"),
        "alaw": Format("audio/PCMA", rate_hz=8_000, rated_type="audio/PCMA"),
    }
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """A file as a client wants it: mono, `sample_rate_hz`, and bits a second where its format has a choice of them."""

    format: AudioFormat
    sample_rate_hz: int
    bit_rate: int | None

    @classmethod
    def of(cls, format: str, sample_rate_hz: int | None = None, bit_rate: int | None = None) -> "Encoding":
        """What is not given is the format's own. At low rates the usual bit rate is lower: no codec uses more there.

        Raises UnsupportedFormat, naming the field of a request, for a format, rate or bit rate that is not served.
        """
        if format not in FORMATS:
            raise UnsupportedFormat(f"response_format {format[:80]!r} is not served: use one of {', '.join(FORMATS)}")
        name = cast("AudioFormat", format)
        kind = FORMATS[name]
        rate_hz = kind.rate_hz if sample_rate_hz is None else sample_rate_hz
        if rate_hz not in kind.rates_hz:
            served = ", ".join(map(str, kind.rates_hz))
            raise UnsupportedFormat(f"sample_rate {str(rate_hz)[:40]} is not served for {format}: use one of {served}")
        if kind.bit_rate is None:
            if bit_rate is not None:
                raise UnsupportedFormat(
                    f"bit_rate {str(bit_rate)[:40]} is not for {format}, which has none to choose: leave it"
                )
            return cls(name, rate_hz, None)
        most = _most(name, rate_hz)
        if bit_rate is not None and not LOWEST <= bit_rate <= most:
            raise UnsupportedFormat(
                f"bit_rate {str(bit_rate)[:40]} is not served for {format} at {rate_hz} Hz: use {LOWEST} to {most}"
            )
        return cls(name, rate_hz, bit_rate or min(kind.bit_rate, most))

    @property
    def content_type(self) -> str:
        kind = FORMATS[self.format]
        if kind.rated_type is None or self.sample_rate_hz == kind.rate_hz:
            return kind.content_type
        return f"{kind.rated_type};rate={self.sample_rate_hz}"


def _most(format: AudioFormat, rate_hz: int) -> int:
    """Bits a second. MPEG-2.5 layer III ends at 64 kbit/s, MPEG-2 at 160; AAC at 6,144 bits a frame of 1,024 samples;
    Opus gains nothing beyond four bits a sample."""
    if format == "mp3":
        return 64_000 if rate_hz <= 12_000 else 160_000 if rate_hz <= 24_000 else HIGHEST
    return min(HIGHEST, (6 if format == "aac" else 4) * rate_hz)
