"""How high a voice is: fundamental frequency by YIN.

A. de Cheveigne and H. Kawahara, "YIN, a fundamental frequency estimator for speech and music", J. Acoust. Soc. Am.
111(4), 2002. Equation numbers below are theirs.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from serve_app.domain import SAMPLE_RATE_HZ, Pcm

__all__ = ["median_pitch_hz"]

MIN_HZ, MAX_HZ = 60, 400
MIN_LAG, MAX_LAG = SAMPLE_RATE_HZ // MAX_HZ, SAMPLE_RATE_HZ // MIN_HZ
WINDOW_SAMPLES = 600  # 25 ms, the paper's choice
HOP_SAMPLES = 240  # 10 ms
FRAME_SAMPLES = WINDOW_SAMPLES + MAX_LAG + 1
FFT_SAMPLES = 2048  # two factors of at most FRAME_SAMPLES and WINDOW_SAMPLES do not wrap around
BLOCK_FRAMES = 512  # bounds memory: 12 MB at a time, however long the audio

THRESHOLD = 0.15  # on the normalised difference, below which a frame is periodic: voiced
GATE_DB = 30.0  # frames so far below the loudest are not counted: reverberation and hum
SILENCE = 1e-5  # -100 dB of full scale, standard deviation: a constant is silence too
MIN_VOICED_FRAMES = 10  # 0.1 s


def median_pitch_hz(audio: Pcm) -> float | None:
    """Median fundamental of the voiced frames, 60 to 400 Hz; None where less than 0.1 s is voiced.

    A tone above 400 Hz is heard as one of its subharmonics, the first whose period is in range.
    """
    if len(audio) < FRAME_SAMPLES:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(audio, FRAME_SAMPLES)[::HOP_SAMPLES]
    levels = np.array([frame.std(dtype=np.float64) for frame in frames])
    loud = frames[levels >= max(SILENCE, levels.max() * 10 ** (-GATE_DB / 20))]
    pitches = [pitch for block in _blocks(loud) for pitch in _pitches(block)]
    return float(np.median(pitches)) if len(pitches) >= MIN_VOICED_FRAMES else None


def _blocks(frames: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(frames), BLOCK_FRAMES):
        yield frames[start : start + BLOCK_FRAMES].astype(np.float64)


def _pitches(frames: NDArray[np.float64]) -> Iterator[float]:
    """Fundamental in Hz of each frame of (frames, FRAME_SAMPLES) that is voiced."""
    for difference in _normalised_difference(frames - frames.mean(axis=1, keepdims=True)):
        lag = _period(difference)
        if lag is not None:
            yield SAMPLE_RATE_HZ / lag


def _normalised_difference(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """d' of eq. 8 for lags 0..MAX_LAG + 1: (frames, lags), 0 where a frame repeats itself exactly.

    d(lag) = sum (x[j] - x[j + lag])^2 over the window (eq. 6), from energies and one correlation by FFT (eq. 7).
    """
    lags = MAX_LAG + 1
    head = np.fft.rfft(frames[:, :WINDOW_SAMPLES], FFT_SAMPLES)
    products = np.fft.irfft(np.fft.rfft(frames, FFT_SAMPLES) * head.conj(), FFT_SAMPLES)
    correlation = products[:, : lags + 1]
    energy_before = np.pad(np.cumsum(np.square(frames), axis=1), ((0, 0), (1, 0)))
    energy = energy_before[:, WINDOW_SAMPLES : WINDOW_SAMPLES + lags + 1] - energy_before[:, : lags + 1]
    difference = np.maximum(energy[:, :1] + energy - 2 * correlation, 0.0)
    sums = np.maximum(np.cumsum(difference[:, 1:], axis=1), np.finfo(np.float64).tiny)
    normalised: NDArray[np.float64] = np.ones_like(difference)
    normalised[:, 1:] = difference[:, 1:] * np.arange(1, lags + 1) / sums
    return normalised


def _period(difference: NDArray[np.float64]) -> float | None:
    """Lag in samples of the first dip below THRESHOLD, refined by a parabola (steps 4 and 5); None: unvoiced."""
    below = np.flatnonzero(difference[MIN_LAG : MAX_LAG + 1] < THRESHOLD)
    if not below.size:
        return None
    lag = MIN_LAG + int(below[0])
    while lag < MAX_LAG and difference[lag + 1] < difference[lag]:
        lag += 1
    before, here, after = difference[lag - 1 : lag + 2]
    curvature = before - 2 * here + after
    return lag + (0.5 * (before - after) / curvature if curvature > 0 else 0.0)
