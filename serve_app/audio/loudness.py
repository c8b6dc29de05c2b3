"""How loud speech is, and the gain that makes it as loud as is wanted (ITU-R BS.1770, EBU R128).

    waves -> FFmpeg's ebur128 -> integrated loudness, true peak -> one gain for all of it

A gain is constant: nothing is compressed, and no sentence is louder than another because of it. Where a file is whole
its true peaks stay under CEILING_DBTP, if need be by less gain than was asked for. A stream is measured at its
beginning, so what is louder later is held down by a limiter. Knows nothing of requests or HTTP.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import av.filter
import numpy as np

from serve_app.domain import SAMPLE_RATE_HZ, Pcm

__all__ = ["CEILING_DBTP", "MAX_LUFS", "MIN_LUFS", "Gain", "LoudnessMeter", "Measured", "StreamGain", "gain_to"]

MIN_LUFS, MAX_LUFS = -40.0, -8.0
"""What can be asked for. Speech is about -16 to -23; louder than -8 it is not without being distorted."""
CEILING_DBTP = -1.0
GATED_LUFS = -70.0
"""Nothing under it counts; FFmpeg tells it where nothing did: silence, or under 0.4 s."""
STEP_SAMPLES = SAMPLE_RATE_HZ // 10
"""FFmpeg measures at every tenth of a second."""
PEAK_DIGITS = 0.0005
"""FFmpeg tells peaks, of which 1 is full scale, to three digits."""
BEGINNING_S = 1.0
"""Of a stream: so much of it is measured."""
LIMITER = "limit=0.794:level=disabled:latency=1:attack=5:release=50"
"""Samples of a stream stay under -2 dB: what lies between them is under CEILING_DBTP. Attack and release in ms."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`lufs`: integrated loudness, None where there is none (silence, or under 0.4 s). `true_peak`: 1 is full scale."""

    lufs: float | None
    true_peak: float


@dataclass(frozen=True, slots=True)
class Gain:
    """`factor` on every sample. `lufs`: how loud that makes it; None where nothing could be measured, and the factor
    is 1."""

    factor: float
    lufs: float | None


class LoudnessMeter:
    """Measures waves that come one after the other, in memory that does not grow with them."""

    def __init__(self) -> None:
        self._filter = _Filter("ebur128", "metadata=1:peak=true")
        self._lufs: float | None = None
        self._true_peak = 0.0
        self._samples = 0

    def add(self, audio: Pcm) -> None:
        """Blocks for about a thousandth of the audio's own time."""
        self._samples += len(audio)
        self._note(self._filter.add(audio))

    def finish(self) -> Measured:
        """Of all that was added. Loudness is of whole steps, as the standard has it; peaks are of every sample."""
        lufs = self._lufs
        silence = np.zeros(STEP_SAMPLES + -self._samples % STEP_SAMPLES, np.float32)  # so that the last step is told
        self._note([*self._filter.add(silence), *self._filter.finish()])
        return Measured(lufs, self._true_peak)

    def _note(self, frames: Sequence[av.AudioFrame]) -> None:
        for frame in frames:
            told = frame.metadata
            if "lavfi.r128.I" in told:
                lufs = float(told["lavfi.r128.I"])
                self._lufs = lufs if lufs > GATED_LUFS else None
                self._true_peak = max(self._true_peak, float(told["lavfi.r128.true_peak"]))


def gain_to(lufs: float, measured: Measured) -> Gain:
    """The gain that brings what was measured to `lufs`, or as near as CEILING_DBTP allows."""
    if measured.lufs is None:
        return Gain(1.0, None)
    room_db = CEILING_DBTP - _decibels(measured.true_peak + PEAK_DIGITS)
    gain_db = min(lufs - measured.lufs, room_db)
    return Gain(10 ** (gain_db / 20), measured.lufs + gain_db)


class StreamGain:
    """One gain for speech that is not all there yet: measured at its beginning, kept to its end.

    `gain` is None until that was heard. Not for several threads at once.
    """

    def __init__(self, lufs: float) -> None:
        self.gain: Gain | None = None
        self._lufs = lufs
        self._beginning: list[Pcm] = []
        self._limiter = _Filter("alimiter", LIMITER)

    def add(self, audio: Pcm) -> Pcm:
        """What is sure of it and the waves before it: nothing until a second was heard, then all but 5 ms."""
        if self.gain is not None:
            return self._limited(audio)
        self._beginning.append(audio)
        if sum(map(len, self._beginning)) < BEGINNING_S * SAMPLE_RATE_HZ:
            return np.zeros(0, np.float32)
        return self._begun()

    def finish(self) -> Pcm:
        """The rest."""
        begun = self._begun() if self._beginning else np.zeros(0, np.float32)
        return np.concatenate([begun, *_waves(self._limiter.finish())])

    def _begun(self) -> Pcm:
        beginning, self._beginning = np.concatenate(self._beginning), []
        meter = LoudnessMeter()
        meter.add(beginning)
        self.gain = gain_to(self._lufs, meter.finish())
        return self._limited(beginning)

    def _limited(self, audio: Pcm) -> Pcm:
        assert self.gain is not None
        gained = audio * np.float32(self.gain.factor)
        return np.concatenate([np.zeros(0, np.float32), *_waves(self._limiter.add(gained))])


class _Filter:
    """One of FFmpeg's, to which waves are given as they come."""

    def __init__(self, name: str, options: str) -> None:
        self._graph = av.filter.Graph()
        source = self._graph.add_abuffer(
            sample_rate=SAMPLE_RATE_HZ, format="flt", layout="mono", time_base=Fraction(1, SAMPLE_RATE_HZ)
        )
        floats = self._graph.add("aformat", "sample_fmts=flt")
        self._graph.link_nodes(source, self._graph.add(name, options), floats, self._graph.add("abuffersink"))
        self._graph.configure()
        self._given = 0

    def add(self, audio: Pcm) -> list[av.AudioFrame]:
        frames: list[av.AudioFrame] = []
        for start in range(0, len(audio), SAMPLE_RATE_HZ):
            samples = np.ascontiguousarray(audio[np.newaxis, start : start + SAMPLE_RATE_HZ], np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, self._given
            self._given += samples.shape[1]
            self._graph.push(frame)
            frames.extend(self._ready())
        return frames

    def finish(self) -> list[av.AudioFrame]:
        self._graph.push(None)
        return list(self._ready())

    def _ready(self) -> Iterator[av.AudioFrame]:
        while True:
            try:
                yield cast("av.AudioFrame", self._graph.pull())
            except (av.error.BlockingIOError, av.error.EOFError):
                return


def _waves(frames: Sequence[av.AudioFrame]) -> list[Pcm]:
    return [frame.to_ndarray()[0] for frame in frames]


def _decibels(amplitude: float) -> float:
    return 20 * float(np.log10(amplitude))
