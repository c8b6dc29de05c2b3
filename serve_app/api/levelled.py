"""A stream of speech, made as loud as its listener wants it: one gain for all of it, which its beginning decides."""

import asyncio

from serve_app.audio import Gain, StreamGain
from serve_app.domain import Pcm
from serve_app.speech_stream import SpeechStream, UnitSpan

__all__ = ["LevelledStream"]


class LevelledStream:
    """As the SpeechStream that it is made of, whose samples it has, each some milliseconds later. `gain` is there with
    the first wave."""

    def __init__(self, stream: SpeechStream, lufs: float) -> None:
        self._stream = stream
        self._level = StreamGain(lufs)
        self._over = False

    @property
    def draft(self) -> bool:
        return self._stream.draft

    @property
    def units(self) -> int:
        return self._stream.units

    @property
    def spans(self) -> list[UnitSpan]:
        return self._stream.spans

    @property
    def texts(self) -> tuple[str, ...]:
        return self._stream.texts

    @property
    def gain(self) -> Gain | None:
        return self._level.gain

    def __aiter__(self) -> "LevelledStream":
        return self

    async def __anext__(self) -> Pcm:
        while not self._over:
            wave = await anext(self._stream, None)
            self._over = wave is None
            ready = await asyncio.to_thread(self._levelled, wave)
            if ready.size:
                return ready
        raise StopAsyncIteration

    async def close(self) -> None:
        """End what is still being spoken."""
        await self._stream.close()

    def _levelled(self, wave: Pcm | None) -> Pcm:
        return self._level.finish() if wave is None else self._level.add(wave)
