"""Loudness after ITU-R BS.1770-5 and EBU Tech 3341, and true peaks: numpy alone, in another way than FFmpeg does it."""

import numpy as np

from serve_app.domain import SAMPLE_RATE_HZ, Pcm

SHELF = ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585))
HIGH_PASS = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))
FILTER_RATE_HZ = 48_000
BLOCK, STEP = round(0.4 * SAMPLE_RATE_HZ), round(0.1 * SAMPLE_RATE_HZ)
OVERSAMPLED = 8


def lufs(audio: Pcm) -> float:
    """Integrated loudness: K-weighted by the standard's filters as they are at each frequency, gated twice."""
    weighted = np.fft.irfft(np.fft.rfft(audio.astype(np.float64)) * _gain(len(audio)), len(audio))
    starts = range(0, len(audio) - BLOCK + 1, STEP)
    powers = np.array([np.mean(weighted[at : at + BLOCK] ** 2) for at in starts])
    powers = powers[_of(powers) > -70]
    return float(_of(np.mean(powers[_of(powers) > _of(np.mean(powers)) - 10])))


def true_peak_db(audio: Pcm) -> float:
    """Between the samples, too: dB of full scale."""
    spectrum = np.fft.rfft(audio.astype(np.float64))
    between = np.fft.irfft(spectrum, OVERSAMPLED * len(audio)) * OVERSAMPLED
    return float(20 * np.log10(np.max(np.abs(between))))


def _of(power: np.ndarray | np.floating) -> np.ndarray | np.floating:
    return -0.691 + 10 * np.log10(power)


def _gain(samples: int) -> np.ndarray:
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(samples, 1 / SAMPLE_RATE_HZ) / FILTER_RATE_HZ)
    return np.abs(np.prod([np.polyval(b[::-1], z) / np.polyval(a[::-1], z) for b, a in (SHELF, HIGH_PASS)], axis=0))
