"""16-bit samples at another rate, as they come."""

from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from serve_app.domain import SAMPLE_RATE_HZ

__all__ = ["Int16", "Resampler"]

Int16 = NDArray[np.int16]
"""(samples,), mono."""

SCALE = 32768


class Resampler:
    """From 24 kHz to `rate_hz`: of n samples round(n * rate_hz / 24000), at least one, however they are cut.

    FFmpeg's swresample, in floats: in integers it adds noise.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._same = rate_hz == SAMPLE_RATE_HZ
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
        self._taken = 0
        self._given = 0

    def add(self, samples: Int16) -> Int16:
        """What is ready of these and the ones before: swresample keeps some back."""
        if self._same or not samples.size:
            return samples
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis].astype(np.float32) / SCALE, format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE_HZ, self._taken, Fraction(1, SAMPLE_RATE_HZ)
        self._taken += len(samples)
        return self._of(frame)

    def finish(self) -> Int16:
        """The rest."""
        if self._same or not self._taken:
            return np.zeros(0, np.int16)
        before = self._given
        rest = self._of(None)
        wanted = max(1, round(self._taken * self._rate_hz / SAMPLE_RATE_HZ)) - before
        return np.pad(rest[:wanted], (0, max(0, wanted - len(rest))), mode="edge" if len(rest) else "constant")

    def _of(self, frame: av.AudioFrame | None) -> Int16:
        waves = [each.to_ndarray()[0] for each in self._resampler.resample(frame)]
        joined = np.concatenate([np.zeros(0, np.float32), *waves])
        self._given += len(joined)
        samples: Int16 = np.rint(np.clip(joined * SCALE, -SCALE, SCALE - 1)).astype("<i2")
        return samples
