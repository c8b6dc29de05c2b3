"""A voice moved up or down, with its timbre and timing kept, where its pitch is known at every sample.

Time-domain pitch-synchronous overlap-add: E. Moulines and F. Charpentier, "Pitch-synchronous waveform processing
techniques for text-to-speech synthesis using diphones", Speech Communication 9(5-6), 1990.
"""

import numpy as np
from numpy.typing import NDArray

from serve_app.domain import SAMPLE_RATE_HZ, Pcm

__all__ = ["shift_pitch"]

UNVOICED_HZ = 100.0  # grains of unvoiced sound lie 10 ms apart and stay so
LOWEST_HZ = 40.0  # bounds the grains to 50 ms


def shift_pitch(audio: Pcm, f0_hz: NDArray[np.floating], ratio: float) -> Pcm:
    """`audio` with its pitch times `ratio`, at the same length and RMS level.

    `f0_hz` is the fundamental at each sample, (samples,); below 40 is unvoiced. From each period a grain of two
    periods is cut by a Hann window, and the grains are laid out again at the new period, each time the one nearest.
    Between 0.6 and 1.6 it sounds natural; a ratio of 1 returns `audio` itself.
    """
    if ratio == 1.0:
        return audio
    voiced = f0_hz >= LOWEST_HZ
    grains_per_s = np.where(voiced, f0_hz, UNVOICED_HZ)
    centres = np.flatnonzero(np.diff(np.floor(np.cumsum(grains_per_s) / SAMPLE_RATE_HZ))) + 1
    if not centres.size:
        return audio
    periods = SAMPLE_RATE_HZ / grains_per_s[centres]
    steps = np.where(voiced[centres], periods / ratio, periods)
    shifted = _laid_out(audio, centres, np.rint(periods).astype(int), steps)
    return shifted * _level(audio, shifted)


def _laid_out(audio: Pcm, centres: NDArray[np.intp], periods: NDArray[np.int_], steps: NDArray[np.float64]) -> Pcm:
    """Grains of `audio` from the nearest of `centres`, one step after the other from the first centre to the end."""
    margin = int(periods.max()) + 1
    source = np.pad(audio, margin)
    target = np.zeros_like(source)
    boundaries = (centres[1:] + centres[:-1]) / 2
    at = float(centres[0])
    while at < len(audio):
        nearest = int(np.searchsorted(boundaries, at))
        half, start = int(periods[nearest]), round(at) + margin
        grain = source[centres[nearest] + margin - half : centres[nearest] + margin + half + 1]
        target[start - half : start + half + 1] += grain * np.hanning(2 * half + 1)
        at += float(steps[nearest])
    return target[margin:-margin]


def _level(audio: Pcm, shifted: Pcm) -> np.float32:
    """What brings `shifted` to the RMS of `audio`: fewer grains are softer, overlapping ones cancel in part."""
    after = float(np.sqrt(np.mean(np.square(shifted, dtype=np.float64))))
    before = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
    return np.float32(before / after if after > 0 else 1.0)
