"""How good a recording is: levels, clipping and noise, and what they mean for a clone."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from serve_app.domain import SAMPLE_RATE_HZ, Pcm

__all__ = ["Grade", "Quality", "graded", "measure"]

Grade = Literal["good", "fair", "poor"]

FRAME = SAMPLE_RATE_HZ // 50
SILENCE_DB = -100.0
NOISE_PERCENTILE, SPEECH_PERCENTILE = 10, 90


@dataclass(frozen=True, slots=True)
class Quality:
    """`peak` and `rms`: of full scale, 0 to 1. `dc_offset`: what was taken out of it. `clipped`: share of the file's
    samples at full scale. `noise_floor_db`, `speech_db`: dBFS of the quietest and the loudest tenth of 20 ms frames."""

    peak: float
    rms: float
    dc_offset: float
    clipped: float
    noise_floor_db: float
    speech_db: float

    @property
    def snr_db(self) -> float:
        """Speech above noise, in dB; an estimate, since pauses may hold breath and reverberation."""
        return self.speech_db - self.noise_floor_db


def measure(audio: Pcm, clipped: float) -> tuple[Pcm, Quality]:
    """`audio` (samples,), at least one, without its DC offset, and what was measured of it; `clipped` as in Quality."""
    offset = float(audio.mean(dtype=np.float64))
    centred: Pcm = np.clip(audio - np.float32(offset), -1, 1)
    usable = len(centred) // FRAME * FRAME
    frames = centred[:usable].reshape(-1, FRAME) if usable else centred[None]
    levels = 20 * np.log10(np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1)) + 1e-12)
    floor, speech = np.maximum(np.percentile(levels, [NOISE_PERCENTILE, SPEECH_PERCENTILE]), SILENCE_DB)
    return centred, Quality(
        peak=float(np.abs(centred).max()),
        rms=float(np.sqrt(np.mean(np.square(centred, dtype=np.float64)))),
        dc_offset=offset,
        clipped=clipped,
        noise_floor_db=float(floor),
        speech_db=float(speech),
    )


def graded(quality: Quality, kept_s: float) -> tuple[Grade, list[str]]:
    """A grade for cloning from `kept_s` seconds, and a warning for each thing that keeps it from being good."""
    snr_db, clipped, rms = quality.snr_db, quality.clipped, quality.rms
    found = (  # poor, no better than fair, what to do
        (snr_db < 12, snr_db < 25, f"the noise is {snr_db:.0f} dB below the speech: record in a quieter place"),
        (clipped > 0.01, clipped > 0.0005, f"{clipped:.1%} of the samples are at full scale: record at a lower level"),
        (rms < 0.005, rms < 0.02, f"the level is low (RMS {rms:.3f} of full scale): record nearer to the microphone"),
        (kept_s < 1.5, kept_s < 4, f"{kept_s:.1f} s are kept: 5 to 12 s clone best"),
    )
    warnings = [said for _, fair, said in found if fair]
    return ("poor" if any(poor for poor, _, _ in found) else "fair" if warnings else "good"), warnings
