"""A stream of units that still come: while others are spoken, flushed in between, and when each is due."""

import asyncio

import numpy as np
import pytest

from serve_app.domain import BUILTIN, FRAMES_PER_S, SAMPLE_RATE_HZ, SpeechRequest, VoiceRef
from serve_app.errors import InvalidText, Overloaded
from serve_app.patience import Patience
from serve_app.planning import PARAGRAPH_PAUSE_S, unit_seed
from serve_app.speech_feed import SpeechFeed
from serve_app.speech_stream import SpeechStream
from serve_app.unit_speech import LOOK_AHEAD
from tests.support.speaking import WORDS, Synthesizer, request, settle, speaker
from tests.unit.test_speech_stream import Refusing

REQUEST = SpeechRequest("", "m", VoiceRef("v", BUILTIN), 1.0, 7, "r1")
LONG = "Sentence number one of the text."


class Clock:
    """Stands where it is put."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def fed(synthesizer: Synthesizer, overlap_s: float = 0.0) -> tuple[SpeechFeed, SpeechStream]:
    return await speaker(synthesizer, overlap_s=overlap_s).feed(REQUEST)


def spoken() -> Synthesizer:
    synthesizer = Synthesizer()
    synthesizer.gate.set()
    return synthesizer


async def until_asked(synthesizer: Synthesizer, units: int) -> None:
    """Planning is done in a thread, so that this takes more than a few turns of the loop."""
    async with asyncio.timeout(30):
        await settle(lambda: len(synthesizer.asked) >= units)


async def test_units_come_while_others_are_spoken():
    """Those that come are asked for at once, whether their listener waits for a wave or not."""
    synthesizer = Synthesizer()
    feed, stream = await fed(synthesizer)
    first = asyncio.create_task(anext(stream))
    feed.add(f"{LONG} And")
    await until_asked(synthesizer, 1)
    begun = len(synthesizer.asked)
    feed.add(" then another that is long enough. Or")
    await until_asked(synthesizer, begun + 1)
    assert not first.done()
    synthesizer.gate.set()
    await first
    asked = len(synthesizer.asked)
    feed.add(" one more of them, which nobody waits for. So")
    await until_asked(synthesizer, asked + 1)
    await stream.close()


async def test_indexes_and_seeds_go_on():
    """As if the text had been planned in one."""
    feed, stream = await fed(synthesizer := spoken())
    for word in WORDS[:4]:
        feed.add(f"{word} ")
        feed.flush()
    feed.close()
    assert sum([len(wave) async for wave in stream]) == 4 * SAMPLE_RATE_HZ
    assert [(unit.index, unit.text, unit.seed) for unit in synthesizer.asked] == [
        (index, word, unit_seed(7, index)) for index, word in enumerate(WORDS[:4])
    ]
    assert (stream.units, stream.flushes, feed.pending, stream.pending) == (4, 4, False, False)


@pytest.mark.parametrize("overlap_s", [0.0, 0.25])
async def test_nothing_behind_a_flush_fades_into_what_is_before_it(overlap_s: float):
    """Its wave has the end of the last unit; spans go on."""
    feed, stream = await fed(spoken(), overlap_s)
    feed.add(f"{WORDS[0]} {WORDS[1]}")
    feed.flush()
    waves = []
    while not stream.flushes:
        waves.append(await anext(stream))
    before = np.concatenate(waves)
    assert len(before) == (2 - overlap_s) * SAMPLE_RATE_HZ
    assert (feed.pending, stream.pending) == (False, False)
    feed.add(WORDS[2])
    feed.close()
    behind = np.concatenate([wave async for wave in stream])
    assert behind.tolist() == [2.0] * SAMPLE_RATE_HZ
    assert [(span.start_s, span.end_s) for span in stream.spans] == [
        (0, 1),
        (1 - overlap_s, 2 - overlap_s),
        (2 - overlap_s, 3 - overlap_s),
    ]


async def test_a_paragraph_ends_with_a_pause_as_within_a_text():
    """Wherever the text was cut; a pause that it asks for stands instead."""
    feed, stream = await fed(synthesizer := spoken())
    for piece in (f"{LONG}\n", f"\n{LONG} ", f"{LONG}\n\n[pause:1.5] {LONG}"):
        feed.add(piece)
    feed.flush()
    feed.add(f"\n \n{LONG}")
    feed.close()
    async for _ in stream:
        pass
    pauses_s = [unit.pause_s for unit in synthesizer.asked if unit.pause_s]
    assert pauses_s == [PARAGRAPH_PAUSE_S, 1.5, PARAGRAPH_PAUSE_S]


async def test_short_sentences_wait_for_the_next():
    """They are spoken badly alone; a flush does not wait."""
    feed, stream = await fed(synthesizer := spoken())
    for piece in ("Yes. ", "No. ", "It is. ", "Or"):
        feed.add(piece)
    feed.flush()
    feed.add("Yes. And")
    feed.close()
    async for _ in stream:
        pass
    assert [unit.text for unit in synthesizer.asked] == ["Yes. No. It is. Or", "Yes. And"]


async def test_what_cannot_be_planned_ends_the_speech_behind_what_can():
    """What came before it is heard."""
    feed, stream = await fed(spoken())
    feed.add(f"{LONG} ")
    feed.flush()
    feed.add("a" + "\u0301" * 40)
    feed.close()
    heard: list[int] = []

    async def hear() -> None:
        heard.extend([len(wave) async for wave in stream])

    while not stream.flushes:
        heard.append(len(await anext(stream)))
    with pytest.raises(InvalidText):
        await hear()
    assert sum(heard) == stream.units * SAMPLE_RATE_HZ > 0


async def test_a_text_in_pieces_switches_no_voices():
    """They are looked up when a text is accepted, so that it is refused, however the directive was cut."""
    feed, stream = await fed(spoken())
    for piece in ("[voi", "ce:an", f"na] {LONG}"):
        feed.add(piece)
    feed.close()
    with pytest.raises(InvalidText, match="cannot switch voices"):
        await anext(stream)


async def test_what_is_markup_alone_stays_with_the_text_that_follows():
    """It ends no speech, since there is more to come."""
    feed, stream = await fed(synthesizer := spoken())
    image = "![](http://example.org/picture.png)"
    for piece in (image, f"\n\n{LONG}\n\n", image):
        feed.add(piece)
        feed.flush()
    feed.close()
    async for _ in stream:
        pass
    spoken_text = " ".join(unit.text for unit in synthesizer.asked)
    assert (spoken_text, stream.flushes) == (LONG, 3)


async def test_a_slow_listener_holds_no_more_than_the_look_ahead():
    """However much text waits."""
    feed, stream = await fed(synthesizer := spoken())
    for _ in range(10):
        feed.add(" ".join(WORDS))
    feed.close()
    await anext(stream)
    await until_asked(synthesizer, 1 + LOOK_AHEAD)
    for _ in range(500):
        await asyncio.sleep(0)
    assert len(synthesizer.asked) == 1 + LOOK_AHEAD
    await stream.close()
    assert synthesizer.inside == set()


async def test_a_feed_that_is_left_open_ends_with_its_stream():
    """Whoever leaves while text is waited for leaves no task behind."""
    feed, stream = await fed(synthesizer := spoken())
    feed.add(f"{LONG} And")
    await anext(stream)
    await stream.close()
    assert len(asyncio.all_tasks()) == 1
    assert synthesizer.inside == set()


async def test_each_unit_is_due_when_all_before_it_was_heard():
    """Planned lengths count where nothing was spoken yet, real ones where it was, and what has played is over."""
    clock, synthesizer = Clock(), Synthesizer()
    talker = speaker(synthesizer)
    talker._clock = clock
    stream = await talker.stream(request(20))
    first = asyncio.create_task(anext(stream))
    await settle(lambda: len(synthesizer.asked) == LOOK_AHEAD)
    planned_s = [unit.frames / FRAMES_PER_S for unit in synthesizer.asked]
    due_s = [unit.due_in_s for unit in synthesizer.asked]
    assert due_s == pytest.approx([sum(planned_s[:index]) for index in range(LOOK_AHEAD)])
    assert due_s[0] == 0.0
    clock.now_s += 5  # nothing is heard yet, so nothing has played
    synthesizer.gate.set()
    await first
    await settle(lambda: len(synthesizer.asked) == LOOK_AHEAD + 1)
    assert synthesizer.asked[-1].due_in_s == pytest.approx(LOOK_AHEAD)  # seconds: each spoken unit has one
    clock.now_s += 0.25
    await anext(stream)
    await settle(lambda: len(synthesizer.asked) == LOOK_AHEAD + 2)
    assert synthesizer.asked[-1].due_in_s == pytest.approx(LOOK_AHEAD + 1 - 0.25)
    clock.now_s += 60  # it has run dry: what comes next plays from then on
    await anext(stream)
    await settle(lambda: len(synthesizer.asked) == LOOK_AHEAD + 3)
    assert synthesizer.asked[-1].due_in_s == pytest.approx(LOOK_AHEAD - 1 + 1, abs=1)
    await stream.close()


async def test_what_becomes_a_file_is_never_due():
    """Nobody listens to it yet."""
    synthesizer = Synthesizer()
    synthesizer.gate.set()
    stream = await speaker(synthesizer).stream(request(3), heard=False)
    assert len([wave async for wave in stream]) == 3
    assert [unit.due_in_s for unit in synthesizer.asked] == [None] * 3


async def test_a_unit_that_is_asked_for_again_is_due_sooner():
    """By as much as has played meanwhile."""
    clock, synthesizer = Clock(), Refusing(unit_2=[Overloaded("full")])
    talker = speaker(synthesizer)
    talker._clock = clock
    stream = await talker.stream(request(3))

    async def paused(_: float) -> None:
        await settle(lambda: len(stream.spans) == 2)
        clock.now_s += 0.5

    stream._patience = Patience(paused)
    async for _ in stream:
        pass
    tries = [unit.due_in_s for unit in synthesizer.asked if unit.index == 2]
    assert len(tries) == 2
    assert tries[1] == pytest.approx(2 - 0.5)
