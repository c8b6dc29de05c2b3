"""When characters are heard: all of them, in order, inside their unit."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import BUILTIN, SpeechRequest, VoiceRef
from serve_app.planning import UnitLimits, plan
from serve_app.timing import CharacterTimes, Timing, UnitTimes

PIECES = st.sampled_from([*["Hi", "a", "1984", "$", "é", "é", "苹果", "。", "😀", ".", "?"], " ", "\n\n"])
WORDS = ["Hello", "you", "1984", "苹果", "so"]
TEXTS = st.lists(PIECES, min_size=1, max_size=40).map("".join)
UNITS = st.lists(st.text(min_size=1, max_size=12) | TEXTS, min_size=1, max_size=6)


def timed(text: str, units: list[str], unit_s: float = 1.0, overlap_s: float = 0.0) -> list[UnitTimes]:
    """Of units of `unit_s` seconds each, which fade into each other."""
    timing = Timing(text, units)
    starts_s = [index * (unit_s - overlap_s) for index in range(len(units))]
    return [timing.add(start_s, start_s + unit_s) for start_s in starts_s]


def begins(times: CharacterTimes, word: str) -> float:
    return times.starts_s[times.characters.index(word)]


@given(TEXTS | st.text(min_size=1), UNITS, st.floats(0.0, 0.5), st.floats(0.0, 0.9))
def test_every_character_is_there_once_and_in_order(text, units, overlap_s, longer_s):
    """Whatever the units say: no character is lost, none begins before the one before it has ended, and all lie inside
    the audio."""
    times = UnitTimes.joined(timed(text, units, 1.0 + longer_s, overlap_s))
    assert times.sent.characters == text
    assert times.spoken.characters.replace(" ", "") == "".join(units).replace(" ", "")
    audio_s = (len(units) - 1) * (1.0 + longer_s - overlap_s) + 1.0 + longer_s
    for part in (times.sent, times.spoken):
        assert len(part.characters) == len(part.starts_s) == len(part.ends_s)
        edges = [edge for pair in zip(part.starts_s, part.ends_s, strict=True) for edge in pair]
        assert all(before <= after for before, after in pairwise([0.0, *edges, audio_s + 1e-6]))


@given(
    st.lists(st.sampled_from(["Hello", "you,", "1984.", "é", "(a)", "苹果。", "so?!\n\n"]), min_size=1).map(" ".join)
)
def test_the_units_of_a_plan_are_found_in_its_text(text):
    """The words that a unit says are in the part of the text that is told for that unit."""
    request = SpeechRequest(text, "m", VoiceRef("heart", BUILTIN), 1.0, 0, "r", normalize=False)
    units = [unit.text for unit in plan(request, UnitLimits(32, 1.0))]
    for unit, part in zip(units, timed(text, units), strict=True):
        assert [unit.count(word) for word in WORDS] == [part.sent.characters.count(word) for word in WORDS]


def test_a_unit_has_its_own_time():
    """Its characters are spread over it; spaces and stops behind it belong to it."""
    first, second = timed("Hi. \n\n(You.)", ["Hi.", "(You.)"])
    assert (first.sent.characters, second.sent.characters) == ("Hi. \n\n", "(You.)")
    assert (first.sent.starts_s[:3], first.sent.ends_s[-1]) == (pytest.approx((0, 1 / 3, 2 / 3), abs=1e-5), 1.0)
    assert second.sent.starts_s == pytest.approx([1 + at / 6 for at in range(6)], abs=1e-5)
    assert second.spoken.characters == " (You.)"


def test_a_cross_fade_belongs_to_the_unit_before():
    """So that characters of two units never overlap."""
    first, second = timed("Hi. You.", ["Hi.", "You."], overlap_s=0.25)
    assert (first.sent.ends_s[-1], second.sent.starts_s[0], second.sent.ends_s[-1]) == (1.0, 1.0, 1.75)


def test_a_pause_belongs_to_no_word():
    """The space between the units is what is heard in it."""
    timing = Timing("Hi. You.", ["Hi.", "You."])
    first, second = timing.add(0.0, 1.0), timing.add(3.0, 4.0)
    assert (first.sent.ends_s[-1], second.sent.starts_s[0]) == (1.0, 3.0)
    assert (second.spoken.characters[0], second.spoken.starts_s[0], second.spoken.ends_s[0]) == (" ", 1.0, 3.0)


@pytest.mark.parametrize(
    ("text", "units", "parts"),
    [
        (
            "In 1984. 5 people paid $3.50!",
            ["In nineteen eighty four.", "five people paid three dollars fifty cents!"],
            ["In 1984. ", "5 people paid $3.50!"],
        ),
        ("苹果。「香蕉」3个", ["苹果。", "「香蕉」三个"], ["苹果。", "「香蕉」3个"]),
        ("😀 Hi 😀. 😀 Yo", ["Hi.", "Yo"], ["😀 Hi 😀. 😀 ", "Yo"]),
        ("[voice:a] Hi. [pause:0.5] Yo.", ["Hi.", "Yo."], ["[voice:a] Hi. [pause:0.5] ", "Yo."]),
        ("Cafe\u0301s. No.", ["Cafés.", "No."], ["Cafe\u0301s. ", "No."]),
        ("See https://a.example/b?c=d now. Go.", ["See a dot example now.", "Go."], None),
    ],
)
def test_words_that_are_written_out_do_not_shift_the_others(text, units, parts):
    """Numbers in words, signs that are not spoken, other forms of a letter: each unit keeps its own words."""
    told = [part.sent.characters for part in timed(text, units)]
    assert told == (parts or ["See https://a.example/b?c=d now. ", "Go."])


def test_words_of_both_texts_are_heard_at_the_same_time():
    """Behind a number that was written out, as before it."""
    times = UnitTimes.joined(timed("We saw 1984 birds fly", ["We saw nineteen eighty four birds fly"]))
    assert begins(times.sent, "birds") == begins(times.spoken, "birds")
    assert begins(times.sent, "saw") == begins(times.spoken, "saw")


def test_a_long_text_that_never_agrees_is_timed():
    """In steps that grow with its length: with its square it would take minutes."""
    text = " ".join(map(str, range(40_000)))
    units = ["nothing of it " * 20] * 400
    assert UnitTimes.joined(timed(text, units[:1])).sent.characters == text
    assert sum(len(part.sent.characters) for part in timed(text, units)) == len(text)
