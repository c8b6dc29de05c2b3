"""A text in pieces of bounded length: sentences, then clauses, words and characters where they are too long.

    normalised text -> sentences -> (too long) clauses -> words -> phrases -> characters -> packed into pieces

Pure functions on strings, for any script. Where a script sets no spaces between words, BudouX's models say where a word
of Chinese, Japanese or Thai may end; of Lao, Khmer and Burmese only characters are known. What they return decides
audio: see `planning.PLAN_VERSION`.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import accumulate, chain

import budoux

from serve_app.errors import InvalidText
from serve_app.graphemes import inside_characters
from serve_app.numerals import inside_number

__all__ = ["FIRST_BYTES", "FIRST_MIN_BYTES", "ends", "opening", "pack", "sentences", "speakable", "split", "width"]

FIELD = "text (`input` in the OpenAI dialect)"
FIRST_BYTES, FIRST_MIN_BYTES = 100, 24
"""Of the piece that is heard first: 1.5 to 7 s of speech. Less is spoken badly, and more keeps the listener waiting."""


def split(text: str, max_bytes: int) -> list[str]:
    """`text`, which `text.normalise` returned, in pieces of at most `max_bytes` of UTF-8, in order, packed greedily.

    A sentence that is too long is divided at clause marks, then at spaces, then where a phrase of a script without
    spaces may end, then between characters, into as few pieces as that gives, of even length. No character is added,
    moved or lost, except whitespace between pieces; a combining sequence is never divided; each piece has a letter or a
    digit. Raises InvalidText when the text has none, or when a run without one, or one character, fills a piece.
    """
    if not speakable(text):
        raise InvalidText(f"{FIELD} has nothing to speak: send at least one letter or digit")
    return [*pack(sentences(text), max_bytes)]


def sentences(text: str) -> list[str]:
    """The sentences of a normalised text, each with the whitespace behind it; what has no letter or digit stays with a
    neighbour. [] if nothing has."""
    return [text[slice(*span)] for span in _Splitter(text, max_bytes=0).sentences()]


def pack(sentences: Iterable[str], max_bytes: int) -> Iterator[str]:
    """Sentences, as `sentences` gives them, in pieces as `split` makes them. Takes no more of them than it needs."""
    waiting = ""
    for sentence in sentences:
        for part in _Splitter(sentence, max_bytes).parts():
            if waiting and width(waiting + part) > max_bytes:
                yield _line(waiting)
                waiting = ""
            waiting += part
    if waiting:
        yield _line(waiting)


def opening(text: str, max_bytes: int) -> int:
    """How many characters of `text`, a paragraph or its beginning, are the piece that is heard first; 0: as many as
    are of any other piece.

    It ends with a sentence or clause, the soonest that leaves FIRST_MIN_BYTES on both sides, so that a model can speak
    them well; or with a word, where none ends within FIRST_BYTES. What is not longer than that is not divided, and no
    word is.
    """
    if width(text) <= (most := min(FIRST_BYTES, max_bytes)):
        return 0
    splitter = _Splitter(text, most)
    end = next((end for end in splitter.ends() if width(text[:end]) >= FIRST_MIN_BYTES), 0)
    if width(text[:end]) <= most and width(text[end:]) >= FIRST_MIN_BYTES and _both_speakable(text, end):
        return end
    share = width(text) / math.ceil(width(text) / most)
    words = (at for at in splitter.words() if FIRST_MIN_BYTES <= width(text[:at]) <= share)
    return max((at for at in words if _both_speakable(text, at)), default=0)


def _both_speakable(text: str, at: int) -> bool:
    return speakable(text[:at]) and speakable(text[at:])


def speakable(text: str) -> bool:
    """Whether there is anything in it that can be spoken."""
    return any(map(str.isalnum, text))


def width(text: str) -> int:
    """Bytes of UTF-8, less the whitespace at the end."""
    return len(text.rstrip(" \n").encode())


def _line(text: str) -> str:
    return re.sub("\n+", " ", text.rstrip())


def ends(text: str, start: int, end: int, *, clauses: bool) -> list[int]:
    """Where in text[start:end] a sentence ends (`clauses`: a clause), behind its whitespace, in order.

    `text` has the whitespace of a normalised one. What is around text[start:end] is looked at, as far as it decides.
    """
    cuts = (_clause_cuts if clauses else _sentence_cuts)(text, start, end)
    inside = inside_characters(text)
    return [cut for cut in cuts if cut not in inside]


Span = tuple[int, int]
"""Start and end of a piece; it carries the whitespace behind it, so neighbours touch and nothing can be lost."""

Cuts = Callable[[str, int, int], Iterator[int]]
"""Where text[start:end] may be divided: the positions at which a next part would begin, ascending."""


class _Splitter:
    """The pieces of one text. Widths are UTF-8 bytes, less the whitespace at the end."""

    def __init__(self, text: str, max_bytes: int) -> None:
        self._text = text
        self._max_bytes = max_bytes
        self._bytes_before = [0, *accumulate(len(character.encode()) for character in text)]
        self._indivisible = inside_characters(text)

    def sentences(self) -> list[Span]:
        return self._parts((0, len(self._text)), _sentence_cuts)

    def ends(self) -> Iterator[int]:
        """Where sentences and clauses end, in order."""
        for sentence in self.sentences():
            yield from (end for _, end in self._parts(sentence, _clause_cuts))

    def words(self) -> Iterator[int]:
        """Where words end, of all scripts."""
        whole = self._text, 0, len(self._text)
        return (at for at in chain(_word_cuts(*whole), _phrase_cuts(*whole)) if at not in self._indivisible)

    def parts(self) -> list[str]:
        """The text, as one sentence."""
        return [self._text[slice(*span)] for span in self._fit((0, len(self._text)), _FINER_CUTS)]

    def _fit(self, span: Span, levels: tuple[Cuts, ...]) -> list[Span]:
        if self._width(span) <= self._max_bytes:
            return [span]
        if not levels:
            start, end = span
            raise InvalidText(
                f"{FIELD} has {self._width(span)} bytes at position {start} ({self._text[start:end][:12]!r}...) that "
                f"cannot be divided into pieces of {self._max_bytes} bytes with a letter or digit each: shorten it"
            )
        parts = self._parts(span, levels[0])
        return self._pack_evenly([piece for part in parts for piece in self._fit(part, levels[1:])])

    def _parts(self, span: Span, cuts: Cuts) -> list[Span]:
        """`span` divided at `cuts`; what cannot be spoken alone stays with the part before it, or the first behind."""
        start, end = span
        parts: list[Span] = []
        previous, says = start, False
        for cut in chain(cuts(self._text, start, end), (end,)):
            if cut in self._indivisible:
                continue
            says = says or speakable(self._text[previous:cut])
            previous = cut
            if says:
                parts.append((start, cut))
                start, says = cut, False
            elif parts:
                parts[-1] = (parts[-1][0], cut)
                start = cut
        return parts

    def _pack(self, spans: Iterable[Span], max_bytes: int) -> list[Span]:
        packed: list[Span] = []
        for start, end in spans:
            if packed and self._width((packed[-1][0], end)) <= max_bytes:
                packed[-1] = (packed[-1][0], end)
            else:
                packed.append((start, end))
        return packed

    def _pack_evenly(self, spans: list[Span]) -> list[Span]:
        """As few pieces as `_pack` makes, the longest as short as possible, so that no scrap is left at the end."""
        fewest = len(self._pack(spans, self._max_bytes))
        widths = range(max(map(self._width, spans)), self._max_bytes)
        narrowest = bisect_left(widths, True, key=lambda width: len(self._pack(spans, width)) <= fewest)
        return self._pack(spans, widths.start + narrowest)

    def _width(self, span: Span) -> int:
        start, end = span
        while end > start and self._text[end - 1] in " \n":
            end -= 1
        return self._bytes_before[end] - self._bytes_before[start]


_CLOSERS = "[\"'”’»›)\\]}」』】〉》）］｝]*+"
# Stops that need no space behind them: CJK, halfwidth, danda, Arabic, Ethiopic, Armenian, Khmer, Burmese.
_STOPS = "[。｡！？।॥؟۔።፧։។။]"
# The look-behinds keep a long run of marks from being scanned again from each of its characters.
_SENTENCE = re.compile(rf"(?<![.!?…])[.!?…]++{_CLOSERS}[ \n]+|(?:{_STOPS}|．(?!\d))[。｡！？．…]*{_CLOSERS}[ \n]*|\n+")
_CLAUSE = re.compile(
    rf"(?<![.,;:!?…–—])[.,;:!?…–—]++{_CLOSERS}[ \n]+|(?:[、；،؛…—]|(?<!\d)[，：]|[，：](?!\d))+{_CLOSERS}[ \n]*"
)
# Between groups of digits ("1 000 000") is no border of words.
_WORD = re.compile(r"(?<!\d)[ \n]+|[ \n]+(?!\d)")
_SPACE = re.compile(r"[ \n]+")
_NEXT = re.compile(r"[\W_]{0,8}(\w)")

_LAST_WORD = re.compile(r"(?:^|[\s(\[{\"'“‘«])([^\s(\[{\"'“‘«]+)\.\Z")
_DOTTED = re.compile(r"(?:[^\W\d_]{1,3}\.)+[^\W\d_]{1,3}")
_BEFORE_A_NAME = re.compile(
    "(?i:mrs?|ms|mx|dr|prof|st|sra?|dra|hr|gen|col|capt|lt|sgt|cmdr|maj|rev|hon|pres|gov|sen|rep|mt|ft|mme|mlle|"
    "messrs|vs|cf|ca|approx|bzw)"
)
_BEFORE_A_NUMBER = re.compile(
    "(?i:nos?|nr|vols?|pp?|ch|chap|sec|figs?|eq|art|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)"
)


def _sentence_cuts(text: str, start: int, end: int) -> Iterator[int]:
    """Behind a stop and its closing quotes, and at line ends.

    As in rule SB8 of Unicode's UAX #29, a lower-case word goes on with the sentence; so does whatever follows an
    abbreviation. A blank line and the stops of scripts that set no space behind them always end one.
    """
    for mark in _SENTENCE.finditer(text, start, end):
        certain = "\n\n" in mark[0] or mark[0][0] not in ".!?…\n"
        following = _NEXT.match(text, mark.end())
        lower = following is not None and following[1].islower()
        if certain or not (lower or _abbreviated(text, mark)):
            yield mark.end()


def _clause_cuts(text: str, start: int, end: int) -> Iterator[int]:
    return (mark.end() for mark in _CLAUSE.finditer(text, start, end) if not _abbreviated(text, mark))


def _word_cuts(text: str, start: int, end: int) -> Iterator[int]:
    """At spaces that are in no number, be it of digits or of words."""
    spaces = (space for space in _WORD.finditer(text, start, end))
    return (space.end() for space in spaces if not inside_number(text, space.start(), space.end()))


def _space_cuts(text: str, start: int, end: int) -> Iterator[int]:
    return (space.end() for space in _SPACE.finditer(text, start, end))


_UNSPACED = re.compile(
    "(?P<th>[\u0e00-\u0e7f]{2,})|(?P<cjk>[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003134f]{2,})"
)
_KANA = re.compile("[\u3040-\u30ff]")


@cache
def _parser(language: str) -> budoux.Parser:
    return {
        "th": budoux.load_default_thai_parser,
        "ja": budoux.load_default_japanese_parser,
        "zh": budoux.load_default_simplified_chinese_parser,
    }[language]()


def _phrase_cuts(text: str, start: int, end: int) -> Iterator[int]:
    """By BudouX, where the script sets no spaces."""
    language = "ja" if _KANA.search(text, start, end) else "zh"
    for run in _UNSPACED.finditer(text, start, end):
        phrases = _parser("th" if run["th"] else language).parse(run[0])
        yield from (run.start() + length for length in accumulate(map(len, phrases)))


def _character_cuts(_text: str, start: int, end: int) -> Iterator[int]:
    return iter(range(start + 1, end))


_FINER_CUTS: tuple[Cuts, ...] = (_clause_cuts, _word_cuts, _phrase_cuts, _space_cuts, _character_cuts)


def _abbreviated(text: str, mark: re.Match[str]) -> bool:
    """Whether the full stop at `mark` belongs to the word before it: "Dr. Smith", "J. Bach", "e.g. Rome",
    "No. 5", and "1." at the start of a line. Where that cannot be known ("Plan B. Then"), it does."""
    stop = mark.start() + len(mark[0].rstrip())
    last = _LAST_WORD.search(text[max(0, stop - 16) : stop])
    if last is None:
        return False
    word = last[1]
    if word.isdecimal():
        at = stop - 1 - len(word)
        return at == 0 or text[at - 1] == "\n"
    if (len(word) == 1 and word.isupper()) or _DOTTED.fullmatch(word) or _BEFORE_A_NAME.fullmatch(word):
        return True
    following = _NEXT.match(text, mark.end())
    return _BEFORE_A_NUMBER.fullmatch(word) is not None and following is not None and following[1].isdecimal()
