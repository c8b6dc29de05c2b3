"""Where a long recording is cut, its text with it: after a word, at a silence. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Cut", "Span", "choose_cut", "unsaid_speech"]

Span = tuple[float, float]

SENTENCE_ENDS = (".", "!", "?", "…", '."', '!"', '?"', ".'", ".)", ".”", "!”", "?”")
MIN_KEPT_S = 4.0
"""A sentence that ends sooner is given up for a longer cut within one."""
MIN_GAP_S = 0.08
"""The shortest silence to cut at: the closure of a plosive is as long, but lies within a word."""
TAIL_S = 0.25
TOLERATED_S = 0.45
"""Of speech beside the aligned words: aligners end words early, and a breath or an um is no mistake."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Keep the first `tokens` of the text and the first `end_s` seconds of the audio."""

    tokens: int
    end_s: float


def choose_cut(tokens: Sequence[str], spans: Sequence[Span | None], max_s: float) -> Cut | None:
    """The latest cut within `max_s`: after a sentence if that leaves 4 s at least, else where any silence is.

    `spans` are of `tokens`, None for those that are not spoken, which stay with the token before them. None where no
    silence lies between two words there. The audio is cut in the silence, at most 0.25 s into it.
    """
    found: list[tuple[bool, Cut]] = []
    spoken = [(index, span) for index, span in enumerate(spans) if span is not None]
    for (index, (_, end_s)), (following, (start_s, _)) in pairwise(spoken):
        cut_s = min(end_s + TAIL_S, (end_s + start_s) / 2)
        if start_s - end_s >= MIN_GAP_S and cut_s <= max_s:
            ends = tokens[following - 1].endswith(SENTENCE_ENDS) or tokens[index].endswith(SENTENCE_ENDS)
            found.append((ends and cut_s >= MIN_KEPT_S, Cut(following, cut_s)))
    return max(found, key=lambda each: (each[0], each[1].end_s))[1] if found else None


def unsaid_speech(speech: Sequence[Span], spans: Sequence[Span | None], until_s: float) -> list[Span]:
    """Stretches of `speech` longer than 0.45 s, before `until_s`, that no word of the text covers."""
    words = [span for span in spans if span is not None]
    left: list[Span] = []
    for start_s, end_s in speech:
        at = start_s
        for word_start, word_end in [*words, (float("inf"), float("inf"))]:
            if word_end <= at:
                continue
            if (stop := min(word_start, end_s, until_s)) - at > TOLERATED_S:
                left.append((at, stop))
            at = max(at, word_end)
            if at >= min(end_s, until_s):
                break
    return left
