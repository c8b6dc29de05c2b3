"""Speech to whoever listens while it is spoken: as the bytes of a file, or as OpenAI's server-sent events.

    SpeechStream -> first wave -> status and headers -> encoder -> body, piece by piece

What is refused before the first wave is an ordinary error. What breaks afterwards is seen by the client: in the events
as an `error`, in a file by a body that ends before its end; never as a quiet end.
"""

import asyncio
import base64
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal

from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serve_app import logs
from serve_app.api.errors import error_fields
from serve_app.api.levelled import LevelledStream
from serve_app.api.services import services_of
from serve_app.api.speaking import loudness_header, speech_headers
from serve_app.audio import Encoder, Encoding
from serve_app.domain import FRAMES_PER_S, SAMPLE_RATE_HZ, Pcm, SpeechRequest
from serve_app.errors import EngineError, ServiceError
from serve_app.speech_stream import SpeechStream

__all__ = ["LIVE_HEADERS", "JsonLines", "StreamForm", "streamed", "usage_of"]

StreamForm = Literal["audio", "sse"]
JsonLines = Callable[[AsyncIterator[bytes], SpeechStream | LevelledStream], AsyncIterator[str]]
"""What a dialect makes of the pieces of the file and of what is known of the units so far."""

LIVE_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Nobody on the way keeps it, or keeps it back."""


async def streamed(
    request: Request,
    accepted: SpeechRequest,
    encoding: Encoding,
    form: StreamForm | JsonLines,
    headers: Mapping[str, str],
    lufs: float | None = None,
) -> StreamingResponse:
    """The answer, once there is something to hear. `lufs`: how loud it is to be, by its first second. Raises as
    `Speaker.stream` and the stream of its first unit."""
    stream = await _stream(request, accepted, lufs, texts=not isinstance(form, str))
    try:
        file = _File(stream, Encoder(encoding))
        await file.take(await anext(stream))
        logs.event("first_audio", units=stream.units, audio_s=file.audio_s)
        spoken = speech_headers(accepted, draft=stream.draft)
        if isinstance(stream, LevelledStream) and stream.gain is not None:
            spoken |= loudness_header(stream.gain, estimated=True)
        content_type = encoding.content_type
        body: AsyncIterator[Any] = _audio(file)
        if form == "sse":
            content_type, body = "text/event-stream", _events(file, len(accepted.text), request)
        elif form != "audio":
            content_type, body = "application/x-ndjson", form(file.pieces(), stream)
        return _Streamed(file, body, content_type, {**spoken, **LIVE_HEADERS, **headers})
    except BaseException:
        await stream.close()
        raise


async def _stream(
    request: Request, accepted: SpeechRequest, lufs: float | None, *, texts: bool
) -> SpeechStream | LevelledStream:
    stream = await services_of(request).speaker.stream(accepted, texts=texts)
    return stream if lufs is None else LevelledStream(stream, lufs)


class _Streamed(StreamingResponse):
    """Ends what is spoken for it when it ends, however that comes."""

    def __init__(self, file: "_File", body: AsyncIterator[Any], content_type: str, headers: Mapping[str, str]) -> None:
        super().__init__(body, media_type=content_type, headers=headers)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if not self._file.over:
                logs.event("listener_left", audio_s=self._file.audio_s)
            await self._file.stream.close()


class _File:
    """The bytes of a stream's file, each as soon as it is known. `over`: nothing more comes of it."""

    def __init__(self, stream: SpeechStream | LevelledStream, encoder: Encoder) -> None:
        self.stream = stream
        self.samples = 0
        self.over = False
        self._encoder = encoder
        self._ready = b""

    @property
    def audio_s(self) -> float:
        """Seconds that were encoded so far."""
        return round(self.samples / SAMPLE_RATE_HZ, 3)

    async def take(self, wave: Pcm) -> None:
        self.samples += len(wave)
        self._ready = await asyncio.to_thread(self._encoder.add, wave)

    async def pieces(self) -> AsyncIterator[bytes]:
        """From what was taken first on."""
        try:
            while True:
                if self._ready:
                    yield self._ready
                if (wave := await anext(self.stream, None)) is None:
                    break
                await self.take(wave)
            if rest := await asyncio.to_thread(self._encoder.finish):
                yield rest
        except Exception as error:
            self.over = True
            logs.failure("stream_broken_off", error, code=error.code if isinstance(error, ServiceError) else None)
            raise
        self.over = True
        logs.event("answered", audio_s=self.audio_s)


async def _audio(file: _File) -> AsyncIterator[bytes]:
    """What it raises has the server cut the connection before the body's end."""
    async for piece in file.pieces():
        yield piece


async def _events(file: _File, characters: int, request: Request) -> AsyncIterator[str]:
    """OpenAI's `speech.audio.delta` and `speech.audio.done`. Its tokens are ours: characters in, mel frames out."""
    try:
        async for piece in file.pieces():
            yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})
    except Exception as error:
        told = error if isinstance(error, ServiceError) else EngineError("speaking failed: see the service's log")
        yield _event({"type": "error", "error": error_fields(request, told)})
        return
    yield _event({"type": "speech.audio.done", "usage": usage_of(characters, file.samples)})


def usage_of(characters: int, samples: int) -> dict[str, int]:
    """In OpenAI's words."""
    frames = math.ceil(samples / SAMPLE_RATE_HZ * FRAMES_PER_S)
    return {"input_tokens": characters, "output_tokens": frames, "total_tokens": characters + frames}


def _event(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
