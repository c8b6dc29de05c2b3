"""A text in pieces of bounded length: sentences, then clauses, words and characters where they are too long.

    normalised text -> sentences -> (too long) clauses -> words -> characters -> packed into pieces

Pure functions on strings, for any script and without a model of any language. What they return decides audio:
see `planning.PLAN_VERSION`.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, chain, pairwise

from serve_app.errors import InvalidText

__all__ = ["ends", "sentences", "split"]

FIELD = "text (`input` in the OpenAI dialect)"


def split(text: str, max_bytes: int) -> list[str]:
    """`text`, which `text.normalise` returned, in pieces of at most `max_bytes` of UTF-8, in order, packed greedily.

    A sentence that is too long is divided at clause marks, then at spaces, then between characters, into as few
    pieces as that gives, of even length. No character is added, moved or lost, except whitespace between pieces;
    a combining sequence is never divided; each piece has a letter or a digit.
    Raises InvalidText when there is none in the text, or when a run without one, or one character, fills a piece.
    """
    if not _speakable(text):
        raise InvalidText(f"{FIELD} has nothing to speak: send at least one letter or digit")
    return _Splitter(text, max_bytes).pieces()


def sentences(text: str) -> list[str]:
    """The sentences of a normalised text; what has no letter or digit stays with a neighbour. [] if nothing has."""
    splitter = _Splitter(text, max_bytes=0)
    return [splitter.text_of(span) for span in splitter.sentences()]


def ends(text: str, start: int, end: int, *, clauses: bool) -> list[int]:
    """Where in text[start:end] a sentence ends (`clauses`: a clause), behind its whitespace, in order.

    `text` has the whitespace of a normalised one. What is around text[start:end] is looked at, as far as it decides.
    """
    cuts = (_clause_cuts if clauses else _sentence_cuts)(text, start, end)
    inside = _inside_characters(text)
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
        self._indivisible = _inside_characters(text)

    def sentences(self) -> list[Span]:
        return self._parts((0, len(self._text)), _sentence_cuts)

    def pieces(self) -> list[str]:
        fitting = [piece for sentence in self.sentences() for piece in self._fit(sentence, _FINER_CUTS)]
        return [self.text_of(span) for span in self._pack(fitting, self._max_bytes)]

    def text_of(self, span: Span) -> str:
        return re.sub("\n+", " ", self._text[slice(*span)].rstrip())

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
        previous, speakable = start, False
        for cut in chain(cuts(self._text, start, end), (end,)):
            if cut in self._indivisible:
                continue
            speakable = speakable or _speakable(self._text[previous:cut])
            previous = cut
            if speakable:
                parts.append((start, cut))
                start, speakable = cut, False
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


def _speakable(text: str) -> bool:
    return any(map(str.isalnum, text))


_CLOSERS = "[\"'”’»›)\\]}」』】〉》）］｝]*+"
# Stops that need no space behind them: CJK, halfwidth, danda, Arabic, Ethiopic, Armenian, Khmer, Burmese.
_STOPS = "[。｡！？।॥؟۔።፧։។။]"
# The look-behinds keep a long run of marks from being scanned again from each of its characters.
_SENTENCE = re.compile(rf"(?<![.!?…])[.!?…]++{_CLOSERS}[ \n]+|(?:{_STOPS}|．(?!\d))[。｡！？．…]*{_CLOSERS}[ \n]*|\n+")
_CLAUSE = re.compile(rf"(?<![.,;:!?…–—])[.,;:!?…–—]++{_CLOSERS}[ \n]+|[，、；：،؛…—]+{_CLOSERS}[ \n]*")
_WORD = re.compile(r"[ \n]+")
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
    return (space.end() for space in _WORD.finditer(text, start, end))


def _character_cuts(_text: str, start: int, end: int) -> Iterator[int]:
    return iter(range(start + 1, end))


_FINER_CUTS: tuple[Cuts, ...] = (_clause_cuts, _word_cuts, _character_cuts)


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


def _inside_characters(text: str) -> frozenset[int]:
    """Positions at which dividing `text` would tear what a reader sees as one character.

    After the rules of Unicode's UAX #29 for extended grapheme clusters, which the standard library does not have, by
    general category; where in doubt they join. Emoji and flags need no rule: they hold no letter or digit, so
    `_parts` never begins a piece inside a run of them.
    """
    if text.isascii():
        return frozenset()
    pairs = enumerate(pairwise(text), 1)
    return frozenset(at for at, (before, after) in pairs if _extends(after) or _binds(before, after))


# Letters that extend what is before them: Thai and Lao AM, halfwidth kana voicing, Hangul vowels and finals.
_EXTENDER = re.compile("[\u0e33\u0eb3\uff9e\uff9f\u1160-\u11ff\ud7b0-\ud7fb]")
_HANGUL_INITIAL = re.compile("[\u1100-\u115f\ua960-\ua97c](?=[\u1100-\u115f\ua960-\ua97c\uac00-\ud7a3])")
# Letters that are written before the consonant they sound with (Malayalam dot reph and historical scripts).
_PREFIXED = re.compile("[\u0d4e\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011a84-\U00011a89\U00011d46]")
_VIRAMA = 9  # canonical combining class: the sign that joins two consonants
_ZERO_WIDTH_NON_JOINER = "\u200c"


def _extends(character: str) -> bool:
    """Marks, joiners and tags belong to the character before them."""
    return unicodedata.category(character) in {"Mn", "Mc", "Me", "Cf"} or _EXTENDER.match(character) is not None


def _binds(before: str, after: str) -> bool:
    """Joiners, prefixed letters, a virama and Hangul initials hold the character behind them."""
    if unicodedata.category(before) == "Cf":
        return before != _ZERO_WIDTH_NON_JOINER
    if unicodedata.combining(before) == _VIRAMA:
        return after.isalpha()
    return (_HANGUL_INITIAL.match(before + after) or _PREFIXED.match(before)) is not None
