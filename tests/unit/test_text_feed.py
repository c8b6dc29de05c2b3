"""A text that comes in pieces: where it is cut, when, and that nothing but the text decides it."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serve_app.splitting import FIRST_MIN_BYTES, sentences
from serve_app.text import normalise
from serve_app.text_feed import TextFeed
from tests.unit.test_splitting import SENTENCES


def fed(*pieces: str, first_bytes: int = FIRST_MIN_BYTES) -> list[list[str]]:
    """What each piece gives, and the flush behind them."""
    feed = TextFeed(first_bytes)
    return [*(feed.add(piece) for piece in pieces), [feed.flush()]]


def joined(lists: list[list[str]]) -> list[str]:
    return [sentence for each in lists for sentence in each]


@pytest.mark.parametrize(("text", "expected"), SENTENCES, ids=[text[:20] for text, _ in SENTENCES])
def test_the_sentences_are_those_of_the_whole_text(text: str, expected: list[str]):
    """Character by character; only that the first may be cut after a clause."""
    pieces, whole = joined(fed(*text, first_bytes=0)), sentences(normalise(text))
    assert [" ".join(each.split()) for each in pieces] == [" ".join(each.split()) for each in whole] == expected


MARKS = [
    ".",
    ",",
    "!?",
    "…",
    "。",
    "：",
    " ",
    "\n",
    "\r\n",
    "\u2029",
    '"',
    ")",
    "[",
    "]",
    "[pause:0.5]",
    "[voice:a. b]",
]
WORDS = [
    "Dr",
    "a",
    "B",
    "e.g",
    "3",
    "14",
    "No",
    "word",
    "你好",
    "न",
    "\u0301",
    "👍🏽",
    "👩‍👩‍👧",
    "\ud83d",
    "\ude00",
    "_",
    "----",
]
TEXTS = st.lists(st.sampled_from([*MARKS, *MARKS, *WORDS]) | st.text(max_size=3), max_size=40).map("".join)


@given(TEXTS, st.data())
@example("A. B", None)
def test_however_a_text_is_cut_it_gives_the_same(text: str, data):
    """The same sentences from any pieces, and joined they are the text, with the halves of characters put together."""
    cuts = range(len(text) + 1) if data is None else data.draw(st.lists(st.integers(0, len(text)), max_size=20))
    ends = sorted({0, *cuts, len(text)})
    pieces = [text[start:end] for start, end in pairwise(ends)]
    whole = joined(fed(text))
    assert joined(fed(*pieces)) == whole
    assert "".join(whole) == text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@pytest.mark.parametrize(
    ("pieces", "given_by"),
    [
        (["He left.", " ", "Then"], 2),
        (["She met Dr", ". ", "Who", ". ", "Then"], 4),
        (["It costs 3", ".", "14", " now. ", "He paid"], 4),
        (["See No", ". ", "5", " there. ", "Then"], 4),
        (["He said", ' "Go.', '"', " ", "Then"], 4),
        (["Wait.", " ..", ". ", "Then"], 3),
        (["I like it.", " 👩", "‍", "👧 ", "Then"], 4),
        (["Good.", " [pa", "use:0", ".5", "] ", "Then"], 5),
        (["Good. [", "X", "] Then"], 1),
        (["Good. [voice:", "who said this. And that", "\n", "Then"], 3),
        (["你好。", "」", "好"], 2),
        (["Wait. ", "and so on. ", "Then"], 2),
    ],
)
def test_a_sentence_is_given_as_soon_as_it_is_sure(pieces: list[str], given_by: int):
    """By the piece whose letter decides it, and not before."""
    lists = fed(*pieces, first_bytes=0)[:-1]
    assert [bool(each) for each in lists] == [number == given_by for number in range(len(pieces))]


def test_what_is_given_first_ends_with_a_clause():
    """So that it is heard soon; it has FIRST_MIN_BYTES at least, and behind it only sentences count."""
    text = "Well, let us see what there is, and what not, before we go. So, this, that and the other follow. "
    first, second, *rest = joined(fed(text))
    assert (first, second) == ("Well, let us see what there is, ", "and what not, before we go. ")
    assert len(first) >= FIRST_MIN_BYTES
    assert rest == ["So, this, that and the other follow. "]
    assert joined(fed("Yes. ", "It is so, as I said before, you know. ", "And"))[:2] == [
        "Yes. ",
        "It is so, as I said before, ",
    ]


def test_behind_a_flush_the_text_begins_anew():
    """All is given, and the next text has its clause, as the first had."""
    feed = TextFeed()
    assert (feed.add("No. "), feed.flush(), feed.flush()) == ([], "No. ", "")
    assert feed.add("1. Then there is something, ") == []
    assert feed.add("or so it is said, in the books") == ["1. Then there is something, "]
    assert feed.flush() == "or so it is said, in the books"


def test_half_a_character_waits_for_the_other():
    """As two JSON escapes in two messages have it; alone it stays as it is, for whoever plans it to refuse."""
    feed = TextFeed()
    assert feed.add("So. \ud83d") == []
    assert feed.add("\ude00 Then") == ["So. "]
    assert feed.add("\ud83d") == []
    assert feed.flush() == "😀 Then\ud83d"
