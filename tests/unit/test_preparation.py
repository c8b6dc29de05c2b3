"""What a recording is worth and where it is cut: the parts of the preparation that need no process."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.preparation.agreement import agree
from serve_app.preparation.pronunciation import Pronouncer
from serve_app.preparation.quality import Quality, graded, measure
from serve_app.preparation.trimming import Cut, choose_cut, unsaid_speech

GOOD = Quality(peak=0.5, rms=0.1, dc_offset=0.0, clipped=0.0, noise_floor_db=-60.0, speech_db=-20.0)


def test_measures() -> None:
    """Peak, RMS, offset and clipping of full scale; a quiet tenth and a loud tenth in dBFS."""
    tone = 0.5 * np.sin(2 * np.pi * 200 * np.arange(24_000) / 24_000)
    audio = np.concatenate([0.0005 * np.sin(2 * np.pi * 200 * np.arange(24_000) / 24_000), tone]) + 0.1
    centred, quality = measure(audio.astype(np.float32), 0.25)
    assert quality.dc_offset == pytest.approx(0.1, abs=1e-3)
    assert abs(float(centred.mean())) < 1e-3
    assert quality.clipped == 0.25
    assert quality.speech_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.2)
    assert quality.noise_floor_db < -40
    assert quality.snr_db == quality.speech_db - quality.noise_floor_db


def test_silence_has_a_level() -> None:
    """-100 dB, not minus infinity; shorter than a frame too."""
    for samples in (1, 100, 24_000):
        _, quality = measure(np.zeros(samples, np.float32), 0.0)
        assert (quality.noise_floor_db, quality.speech_db, quality.rms) == (-100.0, -100.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "kept_s", "grade", "words"),
    [
        ({}, 8.0, "good", []),
        ({}, 3.0, "fair", ["3.0 s are kept"]),
        ({}, 1.0, "poor", ["1.0 s are kept"]),
        ({"noise_floor_db": -40.0}, 8.0, "fair", ["noise is 20 dB below"]),
        ({"noise_floor_db": -30.0}, 8.0, "poor", ["noise is 10 dB below"]),
        ({"clipped": 0.001}, 8.0, "fair", ["0.1% of the samples"]),
        ({"clipped": 0.05, "rms": 0.01}, 8.0, "poor", ["5.0% of the samples", "level is low"]),
    ],
)
def test_grades(changes: dict[str, float], kept_s: float, grade: str, words: list[str]) -> None:
    """The worst thing decides; each has a warning that says what to do."""
    quality = Quality(**{name: changes.get(name, getattr(GOOD, name)) for name in Quality.__slots__})
    found, warnings = graded(quality, kept_s)
    assert found == grade
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))


WORDS = ["One", "two.", "Three", "four", "five.", "Six", "seven."]
SPANS = [(0.0, 2.0), (2.0, 5.0), (5.5, 6.0), (6.4, 8.0), (8.0, 9.0), (9.1, 11.5), (12.1, 14.0)]


def test_a_cut_prefers_the_end_of_a_sentence() -> None:
    """Even where a later silence lies within one; in the middle of a short silence."""
    assert choose_cut(WORDS, SPANS, 12.0) == Cut(5, 9.05)


def test_a_cut_goes_into_a_sentence_where_it_must() -> None:
    """No sentence ends after 4 s: the latest silence of 80 ms."""
    assert choose_cut(
        ["one", "two,", "three", "four"], [(0.0, 1.0), (1.2, 5.0), (5.05, 7.0), (7.5, 13.0)], 12.0
    ) == Cut(3, 7.25)
    assert choose_cut(["a.", "b", "c"], [(0.0, 1.0), (1.5, 8.0), (8.2, 13.0)], 12.0) == Cut(2, 8.1)


def test_no_silence_is_no_cut() -> None:
    """Words that run into each other are not cut apart."""
    assert choose_cut(["a", "b"], [(0.0, 6.0), (6.02, 13.0)], 12.0) is None
    assert choose_cut(["a"], [(0.0, 13.0)], 12.0) is None


def test_tokens_that_are_not_spoken_stay_with_the_word_before() -> None:
    """A dash or an emoji has no span."""
    assert choose_cut(["one", "-", "two"], [(0.0, 6.0), None, (7.0, 13.0)], 12.0) == Cut(2, 6.25)


@given(
    lengths=st.lists(st.tuples(st.floats(0.05, 3), st.floats(0, 1)), min_size=1, max_size=30), max_s=st.floats(0.5, 20)
)
def test_a_cut_lies_in_a_silence_and_within_the_limit(lengths: list[tuple[float, float]], max_s: float) -> None:
    """Whatever the words: all kept words end before it, the next begins after it."""
    spans, at = [], 0.0
    for length, gap in lengths:
        spans.append((at, at + length))
        at += length + gap
    cut = choose_cut(["word"] * len(spans), spans, max_s)
    if cut is not None:
        assert cut.end_s <= max_s
        assert spans[cut.tokens - 1][1] <= cut.end_s <= spans[cut.tokens][0]


def test_speech_that_no_word_covers() -> None:
    """Only stretches over 0.45 s, and only before the cut."""
    spans = [(0.2, 1.0), None, (2.0, 3.0)]
    assert unsaid_speech([(0.0, 1.1)], spans, 10.0) == []
    assert unsaid_speech([(0.0, 3.2)], spans, 10.0) == [(1.0, 2.0)]
    assert unsaid_speech([(0.0, 1.0), (1.2, 1.8), (2.0, 4.0)], spans, 10.0) == [(1.2, 1.8), (3.0, 4.0)]
    assert unsaid_speech([(0.0, 4.0)], spans, 1.2) == []


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("church", "CH ER CH"),
        ("measure", "M EH ZH AH R"),
        ("boy", "B OY"),
        ("$5", "F AY V D AA L AH R Z"),
        ("?!", ""),
    ],
)
def test_pronunciations(word: str, phones: str) -> None:
    """In the CMU dictionary's phones, numbers and signs as they are read."""
    assert " ".join(Pronouncer()(word)) == phones


def test_every_phoneme_of_the_reader_is_known() -> None:
    """A phoneme without a phone would be left out of a word in silence."""
    from serve_app.preparation.pronunciation import PHONES

    text = (
        "The quick brown fox jumps over the lazy dog, while measure, vision, church, judge, thing, this, boy, cow, "
        "nature, little, button, butter, hour, fire, Bach, azure, yes, wood, food, father, caught, cot, cut, bird."
    )
    heard = {phoneme for phoneme in Pronouncer()._reader(text) if phoneme.isalpha()} - {*"ˈˌ"}
    assert heard <= {*PHONES}


SAID = "The birch canoe slid on the smooth planks, and then we glued the sheet to the dark blue background."


@pytest.mark.parametrize(
    ("text", "heard", "whole", "agreed"),
    [
        (SAID, SAID.lower().replace(",", ""), True, True),
        (SAID, SAID.replace("birch canoe", "birch can use"), True, True),
        (SAID, SAID[:42], True, False),  # more text than is said
        (SAID[:42], SAID, True, False),  # less
        (SAID[:42], SAID, False, True),  # what was cut off may go on
        (SAID, SAID.replace(" planks, and then we glued the sheet to", ""), True, False),
        (SAID.replace(" planks, and then we glued the sheet to", ""), SAID, False, False),
        (SAID, "It is easy to tell the depth of a well, these days a chicken leg is a rare dish.", True, False),
        (SAID, "", True, False),
        ("", SAID, True, False),
    ],
)
def test_agreement(text: str, heard: str, whole: bool, agreed: bool) -> None:
    """Spelling may differ; four words more or less may not, on either side."""
    assert agree(text, heard, whole=whole) is agreed
