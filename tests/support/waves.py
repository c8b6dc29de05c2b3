"""Waveforms that tests know all about."""

import numpy as np

from serve_app.domain import SAMPLE_RATE_HZ, Pcm


def tone(frequency_hz: float, samples: int = SAMPLE_RATE_HZ, *, harmonics: int = 1) -> Pcm:
    """A steady tone; of its harmonics each is the weaker the higher it is."""
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    partials = [np.sin(2 * np.pi * frequency_hz * k * time_s) / k for k in range(1, harmonics + 1)]
    return np.asarray(0.3 * np.sum(partials, axis=0), np.float32)


def rms(audio: Pcm) -> float:
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
