"""Joining, stretching and pitch. Files are in test_audio_encoding.py and test_audio_decoding.py."""

import itertools
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.audio import (
    CrossFader,
    cross_fade,
    decode,
    median_pitch_hz,
    shift_pitch,
    time_stretch,
)
from serve_app.domain import SAMPLE_RATE_HZ, Pcm
from tests.support.waves import rms, tone


@given(st.lists(st.integers(0, 300), min_size=1, max_size=5), st.integers(0, 200))
def test_cross_fade_length(lengths: list[int], overlap: int) -> None:
    """Each join shortens the sum by the overlap, or by the shorter of the two waves."""
    waves = [np.ones(length, np.float32) for length in lengths]
    joins = sum(min(overlap, a, b) for a, b in itertools.pairwise(lengths))
    assert len(cross_fade(waves, overlap / SAMPLE_RATE_HZ)) == sum(lengths) - joins


@given(st.integers(20, 300), st.integers(20, 300), st.integers(0, 20))
def test_cross_fade_keeps_a_constant(first: int, second: int, overlap: int) -> None:
    """Fade-out and fade-in add up to one at every sample."""
    joined = cross_fade([np.full(n, 0.5, np.float32) for n in (first, second)], overlap / SAMPLE_RATE_HZ)
    assert joined.tolist() == pytest.approx([0.5] * len(joined))


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 40))
def test_cross_fade_as_it_comes(lengths: list[int], overlap: int) -> None:
    """Each wave is known up to its own overlap, and all of it is what laying one over the other gives."""
    dice = np.random.default_rng(sum(lengths))
    waves = [dice.normal(0, 1, length).astype(np.float32) for length in lengths]
    fader = CrossFader(overlap / SAMPLE_RATE_HZ)
    given = [fader.add(wave) for wave in waves]
    overlaps = [min(overlap, a, b) for a, b in itertools.pairwise(lengths)]
    ends = np.cumsum(np.array(lengths) - np.array([0, *overlaps]))
    assert np.cumsum([len(each) for each in given]).tolist() == [
        end - min(overlap, length) for end, length in zip(ends, lengths, strict=True)
    ]
    joined = np.zeros(ends[-1], np.float32)
    for wave, end, before, after in zip(waves, ends, [0, *overlaps], [*overlaps, 0], strict=True):
        envelope = np.ones(len(wave), np.float32)
        for part, ramp in ((slice(before), 1), (slice(len(wave) - after, None), -1)):
            steps = envelope[part].size
            envelope[part] *= ((np.arange(steps) + 0.5) / max(steps, 1)).astype(np.float32)[::ramp]
        joined[end - len(wave) : end] += wave * envelope
    assert np.array_equal(np.concatenate([*given, fader.finish()]), joined)


def test_cross_fade_order() -> None:
    """Waves lie in order, untouched outside the overlap, linear inside it; the inputs are not changed."""
    waves = [np.full(4, 1, np.float32), np.full(4, 2, np.float32)]
    assert cross_fade(waves, 2 / SAMPLE_RATE_HZ).tolist() == [1, 1, 1.25, 1.75, 2, 2]
    assert cross_fade(waves, 0).tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert [wave.tolist() for wave in waves] == [[1] * 4, [2] * 4]


def test_a_pause_is_silence_between_what_does_not_overlap() -> None:
    """Before it nothing fades and behind it nothing; the waves beside it overlap as ever, and it is said where each
    begins."""
    waves = [np.full(4, level, np.float32) for level in (1, 2, 3)]
    pauses_s = [1 / SAMPLE_RATE_HZ, 3 / SAMPLE_RATE_HZ, 0]
    fader = CrossFader(2 / SAMPLE_RATE_HZ)
    given, begins_at = [], []
    for wave, pause_s in zip(waves, pauses_s, strict=True):
        given.append(fader.add(wave, pause_s))
        begins_at.append(fader.begins_at)
    whole = np.concatenate([*given, fader.finish(2 / SAMPLE_RATE_HZ)])
    assert whole.tolist() == [0, 1, 1, 1, 1, 0, 0, 0, 2, 2, 2.25, 2.75, 3, 3, 0, 0]
    assert begins_at == [1, 8, 10]
    assert np.array_equal(whole, cross_fade(waves, 2 / SAMPLE_RATE_HZ, pauses_s, 2 / SAMPLE_RATE_HZ))
    with pytest.raises(ValueError, match="pause_s is -1"):
        fader.add(waves[0], -1)


@pytest.mark.parametrize(
    ("waves", "overlap_s", "named"), [([], 0.1, "waves"), ([tone(300)], -0.1, "overlap_s is -0.1")]
)
def test_cross_fade_refuses(waves: list[Pcm], overlap_s: float, named: str) -> None:
    """No waves and a negative overlap are errors."""
    with pytest.raises(ValueError, match=named):
        cross_fade(waves, overlap_s)


@pytest.mark.parametrize("factor", [0.1, 0.25, 0.5, 0.9, 1.0, 1.1, 2.0, 2.5, 4.0, 10.0])
def test_stretched_length_and_pitch(factor: float) -> None:
    """It is as long as the factor says, at the same pitch and level, and the same each time."""
    audio = tone(150, 72_000, harmonics=8)
    stretched = time_stretch(audio, factor)
    assert len(stretched) == round(len(audio) / factor)
    assert median_pitch_hz(stretched) == pytest.approx(150, rel=0.02)
    assert rms(stretched) == pytest.approx(rms(audio), rel=0.1)
    assert np.array_equal(stretched, time_stretch(audio, factor))


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0, 4.0])
def test_stretching_keeps_the_end(factor: float) -> None:
    """What sounds in the last 0.2 s still sounds at the end."""
    audio = tone(300, 48_000)
    audio[:-4800] = 0.0
    assert rms(time_stretch(audio, factor)[-round(2400 / factor) :]) > 0.1


def test_nothing_to_do() -> None:
    """A factor or ratio of one returns the audio itself, untouched by any filter."""
    audio = tone(150)
    assert time_stretch(audio, 1.0) is audio
    assert shift_pitch(audio, np.full(len(audio), 150.0), 1.0) is audio


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_stretch_refuses(factor: float) -> None:
    """A factor that gives no length is an error."""
    with pytest.raises(ValueError, match="factor is"):
        time_stretch(tone(300), factor)


@pytest.mark.parametrize("frequency_hz", [62, 80, 110, 155, 220, 311, 395])
@pytest.mark.parametrize("harmonics", [1, 8])
def test_pitch_of_a_tone(frequency_hz: int, harmonics: int) -> None:
    """Tones with and without harmonics are found to a half percent."""
    assert median_pitch_hz(tone(frequency_hz, harmonics=harmonics)) == pytest.approx(frequency_hz, rel=0.005)


def test_pitch_is_a_median() -> None:
    """A short stretch at another pitch, and silence around it, do not move it."""
    audio = np.concatenate([np.zeros(12_000, np.float32), tone(120, 24_000), tone(300, 7_200)])
    assert median_pitch_hz(audio) == pytest.approx(120, rel=0.005)


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(0, np.float32),
        np.zeros(24_000, np.float32),
        np.full(24_000, 0.5, np.float32),
        tone(150, 1_200),
        np.random.default_rng(1).normal(0, 0.1, 96_000).astype(np.float32),
    ],
    ids=["empty", "silence", "constant", "50 ms", "noise"],
)
def test_no_pitch(audio: Pcm) -> None:
    """What has no period has no pitch."""
    assert median_pitch_hz(audio) is None


@pytest.mark.parametrize(("name", "pitch_hz"), [("basic_ref_en.wav", 115), ("basic_ref_zh.wav", 246)])
def test_pitch_of_a_speaker(name: str, pitch_hz: float) -> None:
    """Two recorded women; librosa's pYIN gave 115 Hz for the first, whose voice is low."""
    clip = files("f5_tts").joinpath(f"infer/examples/basic/{name}").read_bytes()
    assert median_pitch_hz(decode(clip)) == pytest.approx(pitch_hz, rel=0.02)


@pytest.mark.parametrize("semitones", [-8, -3, 0, 3, 8])
def test_shifted_pitch(semitones: int) -> None:
    """The pitch moves by the interval; length and level stay."""
    audio, ratio = tone(190, 48_000, harmonics=8), 2 ** (semitones / 12)
    shifted = shift_pitch(audio, np.full(len(audio), 190.0), ratio)
    assert median_pitch_hz(shifted) == pytest.approx(190 * ratio, rel=0.01)
    assert len(shifted) == len(audio)
    assert shifted.dtype == np.float32
    assert rms(shifted) == pytest.approx(rms(audio), rel=0.001)


def test_unvoiced_sound_is_not_shifted() -> None:
    """Without a pitch there is nothing to move: the grains go back to where they were."""
    audio = np.random.default_rng(1).normal(0, 0.1, 24_000).astype(np.float32)
    shifted = shift_pitch(audio, np.zeros(24_000), 1.5)
    assert shifted[480:-480] == pytest.approx(audio[480:-480], abs=0.002)
