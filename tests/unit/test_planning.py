"""Limits, seeds and the units of a request. How a text is divided is tested in test_splitting.py."""

import dataclasses
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app import planning
from serve_app.domain import BUILTIN, SpeechRequest, VoiceRef, VoiceStats
from serve_app.errors import InvalidText, UnusableVoice
from serve_app.planning import (
    PLAN_VERSION,
    PREVIEW_LIMITS,
    UnitLimits,
    estimated_audio_s,
    limits_for_f5,
    plan,
    planned,
    unit_seed,
)

REQUEST = SpeechRequest(
    text="One two three. Four five six.",
    model="f5",
    voice=VoiceRef("anna", "v1", tenant="acme"),
    speed=1.0,
    seed=7,
    request_id="r1",
    tenant="acme",
    job_id="j1",
)


@pytest.mark.parametrize(
    ("duration_s", "text_bytes", "speed", "max_bytes"),
    [
        (5.0, 75, 1.0, 255),  # 15 bytes a second for 17 s
        (5.34, 51, 1.0, 159),  # upstream's own clip: 51 / 5.34 * 16.66 = 159.1
        (12.0, 180, 1.0, 150),
        (5.0, 75, 2.0, 510),
        (5.0, 75, 0.5, 127),  # int() of 127.5
    ],
)
def test_f5_units_are_limited_by_upstreams_rule(
    duration_s: float, text_bytes: int, speed: float, max_bytes: int
) -> None:
    """max_bytes is int(bytes / s * (22 - s) * speed), and a byte lasts as long as one of the reference."""
    limits = limits_for_f5(VoiceStats(duration_s, text_bytes), speed)
    assert limits.max_bytes == max_bytes
    assert limits.frames_per_byte == pytest.approx(duration_s * 93.75 / text_bytes)


@pytest.mark.parametrize(
    ("stats", "speed", "message"),
    [
        (VoiceStats(5.0, 0), 1.0, "0 bytes of reference text"),
        (VoiceStats(0.0, 40), 1.0, "0.0 s of reference audio"),
        (VoiceStats(12.01, 180), 1.0, "f5 takes 12 s at most"),
        (VoiceStats(12.0, 12), 1.0, "leaves 10 bytes for a unit of text, and 16 are needed"),
        (VoiceStats(12.0, 72), 0.25, "at speed 0.25 that leaves 15 bytes"),
    ],
)
def test_a_voice_without_a_usable_reference_is_refused(stats: VoiceStats, speed: float, message: str) -> None:
    """The message says what is wrong with the voice and what to upload."""
    with pytest.raises(UnusableVoice, match=message) as error:
        limits_for_f5(stats, speed)
    assert "upload" in error.value.message


def test_preview_units_stay_near_twenty_seconds() -> None:
    """The preview speaks 15 bytes a second, 93.75 frames a second."""
    assert UnitLimits(max_bytes=300, frames_per_byte=6.25) == PREVIEW_LIMITS


def test_unit_seeds_are_the_stated_hash() -> None:
    """Seeds are fixed for ever: sha256 of "seed:index", 31 bits, the first unit's included."""
    assert [unit_seed(7, index) for index in range(3)] == [1979670999, 1470156519, 227451765]
    assert unit_seed(8, 0) == 1064802783


def test_seeds_and_units_are_the_same_in_another_process() -> None:
    """Nothing depends on the process: string hashing is randomised, seeds and units are not."""
    code = (
        "from serve_app.domain import *; from serve_app.planning import *\n"
        f"print(plan({REQUEST!r}, {UnitLimits(16, 6.25)!r}))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(plan(REQUEST, UnitLimits(16, 6.25)))


@given(seed=st.integers(0, 2**63), index=st.integers(0, 10_000))
def test_unit_seeds_have_31_bits(seed: int, index: int) -> None:
    """Every generator takes a seed in [0, 2**31)."""
    assert 0 <= unit_seed(seed, index) < 2**31


def test_a_unit_carries_its_request() -> None:
    """Voice, speed and ids are the request's; index, text, seed and frames its own."""
    units = plan(REQUEST, UnitLimits(max_bytes=16, frames_per_byte=6.25))
    assert [(unit.index, unit.text) for unit in units] == [(0, "One two three."), (1, "Four five six.")]
    for unit in units:
        assert (unit.voice, unit.speed, unit.request_id, unit.job_id) == (REQUEST.voice, 1.0, "r1", "j1")
        assert unit.seed == unit_seed(7, unit.index)
        assert unit.frames == 88  # ceil(14 * 6.25)


def test_frames_follow_bytes_and_speed() -> None:
    """frames are ceil(bytes * frames_per_byte / speed), bytes of UTF-8 and not characters."""
    request = dataclasses.replace(REQUEST, text="é" * 10, speed=1.5)
    (unit,) = plan(request, UnitLimits(max_bytes=100, frames_per_byte=6.25))
    assert unit.frames == math.ceil(20 * 6.25 / 1.5) == 84


def test_a_preview_of_a_long_text_is_several_units() -> None:
    """Units are filled with whole sentences up to the limit: 300 bytes hold 16 sentences of 17 and their spaces."""
    request = dataclasses.replace(REQUEST, text="It is raining ok. " * 40, voice=VoiceRef("heart", BUILTIN))
    units = plan(request, PREVIEW_LIMITS)
    assert [unit.text.count(".") for unit in units] == [2, 16, 16, 6]


OPENINGS = [
    # not longer than what is heard first may be: one unit
    ("Well, this is short, but it has a few clauses, and all of them are spoken in one go, as they are.", 1),
    # the first clause that is long enough, and never one that is cut
    ("Hello, my dear friend and neighbour, " + "how are you on this fine day that we have " * 3, 36),
    ("Hi. Yes. All of it is true, " + "and nothing that you were told is not " * 4, 27),
    ("A first sentence of some length. " + "And then another one that goes on for long " * 3, 32),
    ("第一句话说完了。" + "然后我们再说一些别的事情，" * 8, 24),
    # no clause that soon: whole words, evenly
    ("and so we went on and on over all these many hills " * 5, 100),
    # only a scrap would be left
    (
        "This goes on and on and on without a mark for just so long that it is over what may be heard first, ok",
        102 // 2,
    ),
]


@pytest.mark.parametrize(("text", "most"), OPENINGS)
def test_the_first_unit_is_heard_soon(text: str, most: int) -> None:
    """It is a short clause where there is one, at least long enough to be spoken well; the text stays whole."""
    units = plan(dataclasses.replace(REQUEST, text=text), PREVIEW_LIMITS)
    if most == 1:
        assert len(units) == 1
        return
    first = len(units[0].text.encode())
    assert 24 <= first <= most
    assert "".join(unit.text for unit in units).replace(" ", "") == text.replace(" ", "")


def test_what_cannot_be_spoken_is_no_first_unit() -> None:
    """However long it is, it stays with what can."""
    text = "! " * 43 + "hello world this is a long sentence without any marks at all"
    assert "hello" in plan(dataclasses.replace(REQUEST, text=text), PREVIEW_LIMITS)[0].text


def test_a_sentence_that_goes_on_for_ever_is_looked_at_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the text is twice the work: what ends no sentence is not looked at again with each line of it."""
    looked_at: list[int] = []
    find = planning.sentences
    monkeypatch.setattr(planning, "sentences", lambda text: looked_at.append(len(text)) or find(text))
    text = "and then we went on e.g. to the sea,\n" * 500
    plan(dataclasses.replace(REQUEST, text=text), PREVIEW_LIMITS)
    assert sum(looked_at) < 4 * len(text)


def test_a_unit_ends_with_its_paragraph() -> None:
    """A pause follows, shorter for fast speech; a line of marks belongs to the paragraph behind it."""
    request = dataclasses.replace(REQUEST, text="Title\n\nOne.\nTwo.\n\n…\n\nThree.", speed=2.0)
    assert [(unit.text, unit.pause_s) for unit in plan(request, PREVIEW_LIMITS)] == [
        ("Title", 0.0),
        ("One. Two.", 0.25),
        ("… Three.", 0.25),
    ]


def test_a_text_directs_its_voices_and_pauses() -> None:
    """Each voice has its own limits; a pause that is asked for is the pause, a change of voice has a short one."""
    anna, bert = VoiceRef("anna", "v1"), VoiceRef("bert", "v2")
    text = "Mine. [voice:b] His, and more of it. [pause:2] [voice:a] Hers.\n\nHers too. [pause:0] [voice:b] End."
    request = dataclasses.replace(REQUEST, text=f"{text} [pause:3]", voices={"a": anna, "b": bert})
    limits = {REQUEST.voice: UnitLimits(100, 1.0), anna: UnitLimits(100, 1.0), bert: UnitLimits(16, 2.0)}
    units = [*planned(request, limits.__getitem__)]
    assert [(unit.text, unit.voice, unit.pause_s, unit.tail_s) for unit in units] == [
        ("Mine.", REQUEST.voice, 0.0, 0.0),
        ("His,", bert, 0.25, 0.0),
        ("and more of it.", bert, 0.0, 0.0),
        ("Hers.", anna, 2.0, 0.0),
        ("Hers too.", anna, 0.5, 0.0),
        ("End.", bert, 0.0, 3.0),
    ]
    assert [unit.frames for unit in units] == [5, 8, 30, 5, 9, 8]
    assert [unit.index for unit in units] == list(range(6))
    as_written = planned(dataclasses.replace(request, normalize=False), limits.__getitem__)
    assert [*as_written] == units
    assert estimated_audio_s("Mine. [pause:2]", 1.0) == pytest.approx(7 / 15 + 2, abs=0.1)


def test_a_voice_that_was_not_fixed_at_acceptance_is_refused() -> None:
    """What came later than that, in a text that is still being written, cannot be."""
    with pytest.raises(InvalidText, match=r"has \[voice:eve\], and a text that comes in pieces cannot switch voices"):
        plan(dataclasses.replace(REQUEST, text="Hello. [voice:eve] Hi."), PREVIEW_LIMITS)


def test_units_come_as_they_are_asked_for() -> None:
    """What is wrong at the end of a long text keeps nobody from its beginning."""
    units = planned(dataclasses.replace(REQUEST, text="It is fine. " * 40 + "—" * 400 + "x"), lambda _: PREVIEW_LIMITS)
    assert next(units).text == "It is fine. It is fine. It is fine."
    with pytest.raises(InvalidText, match="cannot be divided"):
        list(units)


def test_a_plan_goes_on_where_another_ended() -> None:
    """With its own numbers and seeds, and no short first unit."""
    request = dataclasses.replace(REQUEST, text="It is raining ok. " * 20)
    units = [*planned(request, lambda _: PREVIEW_LIMITS, first_index=5)]
    assert [(unit.index, unit.seed) for unit in units] == [(index, unit_seed(7, index)) for index in (5, 6)]
    assert units[0].text.count(".") == 16


@pytest.mark.parametrize("text", ["", " \n\t ", "...", "?!", "\u200b", "*** --- ***", "\x00"])
def test_a_text_with_nothing_to_speak_names_the_field(text: str) -> None:
    """An empty text, or one of marks only, is refused in the words of the request."""
    with pytest.raises(InvalidText, match=r"text \(`input` in the OpenAI dialect\) has nothing to speak"):
        plan(dataclasses.replace(REQUEST, text=text), PREVIEW_LIMITS)


def test_the_text_is_normalised() -> None:
    """Units hold NFC without controls, with single spaces, so equal texts have equal audio."""
    request = dataclasses.replace(REQUEST, text="  Cafe\u0301 \x07\t is\u00a0open.\r\n")
    assert [unit.text for unit in plan(request, PREVIEW_LIMITS)] == ["Café is open."]


def test_the_plan_has_a_version() -> None:
    """Stored audio is keyed by it: whoever changes the units of a text raises it and this line."""
    assert PLAN_VERSION == 2
    units = plan(dataclasses.replace(REQUEST, text="Dr. No, I said, said no. Yes!\n\nSo be it…"), UnitLimits(16, 1.0))
    assert [(unit.text, unit.pause_s) for unit in units] == [
        ("Dr. No, I said,", 0),
        ("said no. Yes!", 0),
        ("So be it…", 0.5),
    ]
