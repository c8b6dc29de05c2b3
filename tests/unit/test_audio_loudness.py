"""Loudness that is measured and reached, judged by a computation of the test's own."""

import numpy as np
import pytest

from serve_app.audio import StreamGain, encode, read_wav
from serve_app.audio.loudness import CEILING_DBTP, LoudnessMeter, Measured, gain_to
from serve_app.domain import SAMPLE_RATE_HZ, Pcm
from tests.support.loudness import lufs, true_peak_db
from tests.support.waves import tone


def speech_like(level: float, seconds: float = 12.0, seed: int = 1) -> Pcm:
    """Noise in syllables, with pauses: loud and soft by turns, as speech is."""
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.standard_normal(round(seconds * SAMPLE_RATE_HZ)), np.ones(6) / 6, "same")
    time_s = np.arange(len(noise)) / SAMPLE_RATE_HZ
    syllables = np.clip(np.sin(2 * np.pi * 3 * time_s), 0, 1) * (np.sin(2 * np.pi * 0.2 * time_s) > -0.6)
    return np.asarray(level * noise * syllables, np.float32)


def measured(audio: Pcm, pieces: int = 1) -> Measured:
    meter = LoudnessMeter()
    for piece in np.array_split(audio, pieces):
        meter.add(piece)
    return meter.finish()


SIGNALS = {
    "a tone of 1 kHz": 0.4 * tone(1000, 5 * SAMPLE_RATE_HZ),
    "low": tone(90, 3 * SAMPLE_RATE_HZ),
    "soft speech": speech_like(0.02),
    "loud speech": speech_like(0.5, seed=2),
    "mostly silence": np.concatenate([np.zeros(10 * SAMPLE_RATE_HZ, np.float32), speech_like(0.1, 3.0)]),
}


@pytest.mark.parametrize("audio", SIGNALS.values(), ids=SIGNALS)
def test_what_is_measured_is_the_standards_loudness_and_peak(audio):
    """However the audio comes in pieces: within 0.1 LU, and 0.3 dB of the true peak."""
    whole, in_pieces = measured(audio), measured(audio, 37)
    assert whole == in_pieces
    assert whole.lufs == pytest.approx(lufs(audio), abs=0.1)
    assert 20 * np.log10(whole.true_peak) == pytest.approx(true_peak_db(audio), abs=0.3)


@pytest.mark.parametrize("wanted", [-40.0, -23.0, -16.0])
@pytest.mark.parametrize("name", ["soft speech", "mostly silence", "a tone of 1 kHz"])
def test_the_wanted_loudness_is_reached(name, wanted):
    """Within 0.5 LU, where no peak is in the way; what was reached is told."""
    audio = SIGNALS[name]
    gain = gain_to(wanted, measured(audio))
    reached = lufs(audio * np.float32(gain.factor))
    assert gain.lufs == pytest.approx(reached, abs=0.1)
    if gain.lufs == wanted:
        assert reached == pytest.approx(wanted, abs=0.5)
    else:
        assert gain.lufs < wanted
        assert true_peak_db(audio * np.float32(gain.factor)) == pytest.approx(CEILING_DBTP, abs=0.5)


@pytest.mark.parametrize("audio", SIGNALS.values(), ids=SIGNALS)
def test_no_true_peak_is_over_the_ceiling(audio):
    """Less gain than asked for, also where the peak lies in the last samples, or between two."""
    audio = np.concatenate([audio, [0.6, -0.6, 0.6]]).astype(np.float32)
    gain = gain_to(-8.0, measured(audio))
    assert true_peak_db(audio * np.float32(gain.factor)) <= CEILING_DBTP + 0.3
    assert np.max(np.abs(audio)) * gain.factor <= 10 ** (CEILING_DBTP / 20)
    assert gain.lufs < -8.0


@pytest.mark.parametrize("audio", [np.zeros(SAMPLE_RATE_HZ, np.float32), tone(300, 9_599)], ids=["silence", "0.3999 s"])
def test_what_cannot_be_measured_is_left_as_it_is(audio):
    """Silence, and less than the 0.4 s of one gating block: no gain, and no loudness is told."""
    found = gain_to(-16.0, measured(audio))
    assert (found.factor, found.lufs) == (1.0, None)
    assert measured(tone(300, 9_600)).lufs == pytest.approx(lufs(tone(300, 9_600)), abs=0.1)


def test_a_stream_has_one_gain_from_its_first_second_on():
    """It is not heard before a second of it was measured; then every sample comes, all by the same factor."""
    audio = speech_like(0.03)
    level = StreamGain(-30.0)
    pieces = [level.add(piece) for piece in np.array_split(audio, 30)]
    waves = [*pieces, level.finish()]
    first_s = np.concatenate(np.array_split(audio, 30)[:3])
    assert [piece.size > 0 for piece in pieces] == [False, False] + [True] * 28
    assert level.gain == gain_to(-30.0, measured(first_s))
    assert np.concatenate(waves) == pytest.approx(audio * np.float32(level.gain.factor), abs=1e-6)


def test_what_is_louder_later_in_a_stream_is_held_down():
    """A limiter keeps true peaks under the ceiling; no sample is lost to it."""
    audio = np.concatenate([speech_like(0.02, 2.0), speech_like(0.4, 3.0, seed=5)])
    level = StreamGain(-16.0)
    heard = np.concatenate([*map(level.add, np.array_split(audio, 9)), level.finish()])
    assert len(heard) == len(audio)
    assert np.max(np.abs(audio * level.gain.factor)) > 1.5
    assert true_peak_db(heard) <= CEILING_DBTP + 0.3


@pytest.mark.parametrize("samples", [100, 9_000, 20_000])
def test_a_stream_shorter_than_its_measuring_comes_whole(samples):
    """All of it at its end; unmeasured where it is under 0.4 s."""
    audio = tone(300, samples)
    level = StreamGain(-30.0)
    heard = np.concatenate([level.add(audio), level.finish()])
    assert len(heard) == samples
    assert (level.gain.lufs is None) == (samples < 9_600)
    assert heard == pytest.approx(audio * np.float32(level.gain.factor), abs=1e-6)


def test_equal_speech_has_an_equal_gain_out_of_16_bits():
    """What is found in the store is measured as what is spoken: both as 16 bits."""
    audio = read_wav(encode(SIGNALS["soft speech"], "wav"))
    assert measured(audio) == measured(read_wav(encode(audio, "wav")))
