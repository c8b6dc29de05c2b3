"""When each character of a text is heard, from when its units are.

    text as it was sent + texts of its units -> which part of it each unit says
    where a unit lies in the audio (exact) -> its characters, spread evenly over that (estimated)

Pure: knows nothing of HTTP, audio or engines. What is said of the insides of a unit is no measurement.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray

__all__ = ["CharacterTimes", "Timing", "UnitTimes"]

DIGITS = 6  # of seconds: far below a sample

_WORD = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    "|[0-9]+|(?:(?![0-9])\\w)[\\w\u0300-\u036f]*"
)
"""A character of a script that is written without spaces, a number, or a word with its marks."""
_WORD_BEGINS = re.compile(r"(?<=\s)(?=\S)")


@dataclass(frozen=True, slots=True)
class CharacterTimes:
    """Character i is heard from `starts_s[i]` to `ends_s[i]`, seconds from the beginning of the audio; none begins
    before the one before it has ended."""

    characters: str
    starts_s: tuple[float, ...] = ()
    ends_s: tuple[float, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence["CharacterTimes"]) -> "CharacterTimes":
        """One after the other."""
        return cls(
            "".join(part.characters for part in parts),
            tuple(chain.from_iterable(part.starts_s for part in parts)),
            tuple(chain.from_iterable(part.ends_s for part in parts)),
        )


@dataclass(frozen=True, slots=True)
class UnitTimes:
    """Of one unit: the part of the text that it says as it was `sent`, and as it is `spoken` (written out)."""

    sent: CharacterTimes
    spoken: CharacterTimes

    @classmethod
    def joined(cls, parts: Sequence["UnitTimes"]) -> "UnitTimes":
        """Of several units, in their order."""
        sent, spoken = [part.sent for part in parts], [part.spoken for part in parts]
        return cls(CharacterTimes.joined(sent), CharacterTimes.joined(spoken))


class Timing:
    """Characters of `text`, unit by unit. `units`: their texts, all of them, in order.

    Together the units' parts are `text`, each character once. Where a word was written out in other words (a number),
    its characters share the time of these. Takes time that grows with the length of the texts, not with its square.
    """

    def __init__(self, text: str, units: Sequence[str]) -> None:
        self._text = text
        self._units = units
        spoken = "\n".join(units)
        self._begins = [0, *accumulate(len(unit) + 1 for unit in units)][:-1]  # of each unit in `spoken`
        self._anchors = _anchors(text, spoken)
        self._cuts = [*_cuts(text, len(spoken), self._anchors, self._begins), len(text)]
        self._next = 0
        self._end_s = 0.0

    def add(self, start_s: float, end_s: float) -> UnitTimes:
        """Of the next unit, which lies there in the audio, cross-fades included, and does not end before the one before
        it. The time in which it fades in belongs to that one."""
        index, before_s = self._next, self._end_s
        self._next, self._end_s = index + 1, end_s
        begin_s = max(start_s, before_s)
        said, unit = self._text[self._cuts[index] : self._cuts[index + 1]], self._units[index]
        spoken = _spread(unit, np.arange(len(unit) + 1.0), len(unit), begin_s, self._end_s)
        if index and self._text[: self._cuts[index]][-1:].isspace():  # else the words at the seam would be one
            seam = CharacterTimes(" ", (round(before_s, DIGITS),), (round(begin_s, DIGITS),))
            spoken = CharacterTimes.joined([seam, spoken])
        return UnitTimes(_spread(said, self._places(index), len(unit), begin_s, self._end_s), spoken)

    def _places(self, index: int) -> NDArray[np.float64]:
        """Where the edges of the unit's characters, as they were sent, lie among those that are spoken."""
        first, end = self._cuts[index : index + 2]
        begin, length = self._begins[index], len(self._units[index])
        sent_at, spoken_at = self._anchors
        inside = slice(bisect_left(sent_at, first + 1), bisect_left(sent_at, end))
        known = [first, *sent_at[inside], end]
        places = [0, *(place - begin for place in spoken_at[inside]), length]
        interpolated: NDArray[np.float64] = np.interp(np.arange(first, end + 1), known, places)
        return interpolated


def _spread(characters: str, places: NDArray[np.float64], length: int, begin_s: float, end_s: float) -> CharacterTimes:
    """`places`: of the edges of `characters` among `length`, which are heard evenly from `begin_s` to `end_s`."""
    edges = np.round(begin_s + (end_s - begin_s) / length * places, DIGITS).tolist()
    return CharacterTimes(characters, tuple(edges[:-1]), tuple(edges[1:]))


def _anchors(text: str, spoken: str) -> tuple[list[int], list[int]]:
    """Places in `text` and in `spoken` that are the same: the edges of words that both have, in order."""
    sent_at: list[int] = []
    spoken_at: list[int] = []
    for ours, theirs in _same_words([*_WORD.finditer(text)], [*_WORD.finditer(spoken)]):
        for at, place in zip(ours.span(), theirs.span(), strict=True):
            if not sent_at or (at > sent_at[-1] and place >= spoken_at[-1]):
                sent_at.append(at)
                spoken_at.append(place)
    return sent_at, spoken_at


def _same_words(
    ours: Sequence[re.Match[str]], theirs: Sequence[re.Match[str]]
) -> Iterator[tuple[re.Match[str], re.Match[str]]]:
    """Pairs of equal words, in order. Where the texts differ, it goes on at the pair with the fewest words in between;
    looking for it costs about as many steps as it then leaves behind."""
    their_words = [match[0].casefold() for match in theirs]
    where: dict[str, list[int]] = {}
    for at, word in enumerate(their_words):
        where.setdefault(word, []).append(at)
    mine = there = 0
    while mine < len(ours) and there < len(theirs):
        fewest, found = len(ours) + len(theirs), (len(ours), len(theirs))
        ahead = mine
        while ahead < len(ours) and ahead - mine < fewest:
            places = where.get(ours[ahead][0].casefold(), [])
            if (nearest := bisect_left(places, there)) < len(places):
                between = ahead - mine + places[nearest] - there
                if between < fewest:
                    fewest, found = between, (ahead, places[nearest])
            ahead += 1
        mine, there = found
        if mine < len(ours):
            yield ours[mine], theirs[there]
        mine, there = mine + 1, there + 1


def _cuts(text: str, spoken: int, anchors: tuple[list[int], list[int]], begins: Sequence[int]) -> list[int]:
    """Where each unit begins in `text`: at the beginning of a word if it can, so that spaces and stops belong to the
    unit before. `spoken`: how many characters the units have."""
    words = [match.start() for match in _WORD_BEGINS.finditer(text)]
    sent_at, spoken_at = [0, *anchors[0], len(text)], [0, *anchors[1], spoken]
    cuts = [0]
    for begin in begins[1:]:
        after = bisect_left(spoken_at, begin, hi=len(spoken_at) - 1)
        low, high = max(sent_at[after - 1], cuts[-1]), max(sent_at[after], cuts[-1])
        share = (begin - spoken_at[after - 1]) / max(spoken_at[after] - spoken_at[after - 1], 1)
        wanted = low + (high - low) * min(share, 1.0)
        near = bisect_left(words, wanted)
        there = [word for word in words[max(near - 1, 0) : near + 1] if low <= word <= high]
        cuts.append(min(there, key=lambda word: abs(word - wanted)) if there else round(wanted))
    return cuts
