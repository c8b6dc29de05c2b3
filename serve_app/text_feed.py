"""A text that is still being written: its sentences, each as soon as nothing that may come can change where it ends.

    piece, piece, ... -> (as far as its last letter or digit) where sentences end -> sentence, sentence, ...

Pure, and the same sentences however a text was cut into pieces. Knows nothing of units, voices or streams.
"""

import re
from itertools import pairwise

from serve_app.splitting import FIRST_MIN_BYTES, ends
from serve_app.text import with_plain_spaces

__all__ = ["TextFeed"]

CONTEXT = 40
"""Characters before a mark that decide whether it ends a sentence, and some more: see `splitting`."""

_LETTER = re.compile(r"[^\W_]")
_TO_LAST_LETTER = re.compile(r".*[^\W_]", re.DOTALL)
# A directive, also one that is still being written; one that is as long is text.
_DIRECTIVE = re.compile(r"\[(?:voice|pause):[^\[\]\n]{0,200}(?:\]|\Z)|\[[a-z]{0,5}\Z")
_NO_LETTER = "\ufffc"
_SURROGATES = re.compile("[\ud800-\udfff]")
_HIGH_SURROGATE = re.compile("[\ud800-\udbff]\\Z")


class TextFeed:
    """Takes a text in pieces and gives it in sentences. All that it gives, joined, is the text.

    A sentence is sure once a letter or digit of the next one is there: with that all is known that decides, whether an
    abbreviation, an initial or a number goes on, which quotes, marks and emoji still belong to it, and that the letter
    does not change the character before it. Directives have no letters here, so one that is still open decides nothing.
    What is given first may be a clause, if it has `first_bytes` (0: it may not).
    """

    def __init__(self, first_bytes: int = FIRST_MIN_BYTES) -> None:
        self._opening_bytes = first_bytes
        self._half = ""  # of a character: a high surrogate
        self._begin()

    def _begin(self) -> None:
        self._text = ""  # what was not given yet, and some of what is before it
        self._start = 0  # of what was not given yet
        self._scan = 0  # the last letter or digit; marks before it are done with
        self._first_bytes = self._opening_bytes  # still to be given before clauses are not looked for any more

    def add(self, piece: str) -> list[str]:
        """What is sure now, in order, each with the whitespace behind it. A piece may end with half a character."""
        piece = self._whole(piece)
        self._text += piece
        if not _LETTER.search(piece):
            return []
        context = max(0, self._scan - CONTEXT)
        near = _DIRECTIVE.sub(lambda found: _NO_LETTER * len(found[0]), with_plain_spaces(self._text[context:]))
        if (to_last := _TO_LAST_LETTER.match(near, self._scan - context)) is None:
            return []
        cuts = self._cuts(near, context, to_last.end())
        self._scan = context + to_last.end() - 1
        given = [self._text[start:end] for start, end in pairwise((self._start, *cuts))]
        self._start = cuts[-1] if cuts else self._start
        self._forget()
        return given

    def flush(self) -> str:
        """All that is left, sure or not; the text begins anew behind it. Half a character stays half."""
        rest = self._text[self._start :] + self._half
        self._half = ""
        self._begin()
        return rest

    def _whole(self, piece: str) -> str:
        piece = self._half + piece
        self._half = ""
        if _SURROGATES.search(piece):
            piece = piece.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
            if half := _HIGH_SURROGATE.search(piece):
                self._half = half[0]
                piece = piece[:-1]
        return piece

    def _cuts(self, near: str, context: int, end: int) -> list[int]:
        """Where the text may be cut, of which `near` is that from `context` on, up to its letter before near[end].

        What cannot be spoken alone stays with what is before it, or the first behind, as in `splitting`.
        """
        begin = self._scan - context
        sentences = {*ends(near, begin, end, clauses=False)}
        clauses = ends(near, begin, end, clauses=True) if self._first_bytes > 0 else []
        found: list[int] = []
        start, says = self._start, False
        for cut in sorted({*sentences, *clauses}):
            given_bytes = len(self._text[start : context + cut].rstrip().encode(errors="surrogatepass"))
            if cut not in sentences and not 0 < self._first_bytes <= given_bytes:
                continue
            says = says or _TO_LAST_LETTER.match(near, begin, cut) is not None
            begin = cut
            if says:
                self._first_bytes -= given_bytes
                found.append(context + cut)
                start, says = found[-1], False
            elif found:
                found[-1] = start = context + cut
        return found

    def _forget(self) -> None:
        """What was given, as far as it decides nothing."""
        done = max(0, min(self._start, self._scan - CONTEXT))
        self._text, self._start, self._scan = self._text[done:], self._start - done, self._scan - done
