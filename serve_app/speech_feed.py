"""A text that is still being written, as units for a `SpeechStream`: sentences are planned as they come.

    text, text, flush, ... -> sentences (`text_feed`) -> plan -> Unit, Unit, Flush, ...

What a text is planned into depends on its pieces and on where they are flushed, never on the time between them. Knows
nothing of replicas, sockets or how long a text may be.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from serve_app.domain import Unit
from serve_app.errors import InvalidText
from serve_app.planning import PARAGRAPH_PAUSE_S
from serve_app.speech_stream import Flush
from serve_app.splitting import FIRST_MIN_BYTES
from serve_app.text import with_plain_spaces
from serve_app.text_feed import TextFeed

__all__ = ["PlanText", "SpeechFeed"]

PlanText = Callable[[str, int], Sequence[Unit]]
"""The units of a text, the first of which has that index; none where nothing in it is spoken. Raises InvalidText; is
called in a thread."""


class SpeechFeed:
    """An iterator over units, for one reader, into which text is put. Raises InvalidText where the text behind what was
    given cannot be planned.

    Sentences that come together are planned together, and short ones wait for the next: less than FIRST_MIN_BYTES are
    spoken badly. Marks and markup with nothing to speak stay with the text that follows, and are dropped where none
    does, unless they are all that there was.
    """

    def __init__(self, plan: PlanText) -> None:
        self._plan = plan
        self._feed = TextFeed()
        self._waiting = ""  # sentences that are too short alone
        self._gap = ""  # white space behind what was planned last
        self._put: asyncio.Queue[str | Flush | None] = asyncio.Queue()
        self._units: deque[Unit | Flush] = deque()  # planned, not given
        self._planned = 0
        self._tail_s = 0.0  # of the last unit
        self._busy = False
        self._closed = False

    @property
    def pending(self) -> bool:
        """Whether there is text that is sure and was not given as units, or a flush."""
        return self._busy or bool(self._units) or not self._put.empty()

    def add(self, text: str) -> None:
        self._put.put_nowait(text)

    def flush(self) -> None:
        """No waiting for what would be sure: all text before this is given, and a Flush behind it."""
        self._put.put_nowait(Flush())

    def close(self) -> None:
        """There is no more text: what is left is given."""
        self._put.put_nowait(None)

    def __aiter__(self) -> "SpeechFeed":
        return self

    async def __anext__(self) -> Unit | Flush:
        while not self._units:
            self._busy = False
            if self._closed:
                raise StopAsyncIteration
            what = await self._put.get()
            self._busy = True
            self._closed = what is None
            units = await asyncio.to_thread(self._units_of, what)
            self._planned += len(units)
            self._units.extend(units)
            if isinstance(what, Flush):
                self._units.append(what)
        return self._units.popleft()

    def _units_of(self, what: str | Flush | None) -> Sequence[Unit]:
        if isinstance(what, str):
            text = self._waiting + "".join(self._feed.add(what))
            ready = len(text.strip().encode(errors="replace")) >= FIRST_MIN_BYTES
        else:
            text = self._waiting + self._feed.flush()
            ready = any(map(str.isalnum, text))
        units = self._plan(text, self._planned) if ready else ()
        if what is None and text.strip() and not (units or self._planned):
            raise InvalidText("text has nothing to speak: send at least one letter or digit")
        self._waiting = "" if units else text
        return self._behind_the_last(text, units) if units else ()

    def _behind_the_last(self, text: str, units: Sequence[Unit]) -> Sequence[Unit]:
        """After a pause where a paragraph ended between this text and the one before it, as within a text."""
        gap = self._gap + text[: len(text) - len(text.lstrip())]
        self._gap = text[len(text.rstrip()) :]
        asked = self._tail_s or units[0].pause_s or text.lstrip().startswith("[")  # the text has its own pause, or none
        self._tail_s = units[-1].tail_s
        if not self._planned or asked or "\n\n" not in with_plain_spaces(gap):
            return units
        return [replace(units[0], pause_s=PARAGRAPH_PAUSE_S / units[0].speed), *units[1:]]
