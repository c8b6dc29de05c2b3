"""Speech of a text that is still being written: `/v1/audio/speech/ws`, text in pieces, audio as it is ready.

    start -> started; text, text, flush, ... -> feed -> SpeechStream -> encoder -> unit, audio, flushed, ... -> done

Frames are always read, so that a client that leaves or cancels is noticed whatever it has sent before; what it may send
in all is bounded, by the length of its text and by its flushes. Audio waits for the client to take it. Every session
ends with `done` or `error`, unless the client or the connection is gone.
"""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from serve_app import logs
from serve_app.api.errors import error_fields, request_id_of
from serve_app.api.services import services_of, tenant_of
from serve_app.api.streaming import usage_of
from serve_app.api.websocket_frames import Cancel, Close, Flush, Frame, Start, Text, parsed_frame
from serve_app.audio import Encoder, Encoding
from serve_app.domain import SAMPLE_RATE_HZ, SpeechRequest
from serve_app.errors import IdleTimeout, InvalidRequest, PayloadTooLarge, ServiceError
from serve_app.speech_feed import SpeechFeed
from serve_app.speech_stream import SpeechStream

__all__ = ["router"]

router = APIRouter()

NORMAL, POLICY_VIOLATION, INTERNAL_ERROR = 1000, 1008, 1011
"""Close codes of RFC 6455: as it should be, the client's fault, ours."""
AUDIO_BYTES = 64 * 1024
"""Of audio in one frame: clients refuse large ones, `websockets` of Python those over 1 MiB."""
MAX_FLUSHES = 1000
"""Flushes of one client that are not answered yet."""


@router.websocket("/v1/audio/speech/ws")
async def speech_socket(websocket: WebSocket) -> None:
    """See docs/api.md."""
    logs.event("received", dialect="native", endpoint="speech.ws")
    await websocket.accept()
    await _Session(websocket).run()


class _Session:
    """One connection, from its first frame to its end."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._services = services_of(websocket)
        self._stirred_at = time.monotonic()  # when a frame came or went last
        self._sending = False
        self._base64 = False
        self._chars = 0
        self._samples = 0
        self._flushes = 0
        self._flushed = 0
        self._told = 0  # units
        self._closed = False

    async def run(self) -> None:
        try:
            await self._converse()
            await self._websocket.close(NORMAL)
            logs.event("answered", audio_s=self._audio_s)
        except WebSocketDisconnect:
            logs.event("listener_left", audio_s=self._audio_s)
        except Exception as error:
            with suppress(WebSocketDisconnect):
                await self._fail(error)

    async def _converse(self) -> None:
        start = await self._frame(speaking=lambda: False)
        if not isinstance(start, Start):
            raise InvalidRequest(f"type {start.type!r}: the first frame is to be `start`: send that before")
        encoding = Encoding.of(start.response_format, start.sample_rate, start.bit_rate)
        accepted = await self._accepted(start)
        feed, stream = await self._services.speaker.feed(accepted)
        self._base64 = start.audio == "base64"
        await self._tell(
            "started",
            request_id=accepted.request_id,
            model=accepted.model,
            seed=accepted.seed,
            draft=stream.draft,
            content_type=encoding.content_type,
        )
        listening = asyncio.create_task(self._listen(feed, stream))
        speaking = asyncio.create_task(self._speak(stream, Encoder(encoding)))
        try:
            done, _ = await asyncio.wait({listening, speaking}, return_when=asyncio.FIRST_COMPLETED)
            (listening if listening in done else speaking).result()
            cancelled = listening in done
        finally:
            listening.cancel()
            speaking.cancel()
            await asyncio.gather(listening, speaking, return_exceptions=True)
            await stream.close()
        usage = usage_of(self._chars, self._samples)
        await self._tell("done", cancelled=cancelled, audio_s=self._audio_s, usage=usage)

    async def _accepted(self, start: Start) -> SpeechRequest:
        return await self._services.acceptance.accept(
            text=None,
            text_field="text",
            model=start.model,
            voice=start.voice_name,
            voice_field="voice",
            parameters=start.parameters,
            tenant=tenant_of(self._websocket),
            request_id=request_id_of(self._websocket),
            **start.text_options(),
        )

    async def _listen(self, feed: SpeechFeed, stream: SpeechStream) -> None:
        """Take frames, also those that come too late. Ends when the client cancels."""
        while True:
            frame = await self._frame(speaking=lambda: self._closed or self._sending or feed.pending or stream.pending)
            if isinstance(frame, Cancel):
                return
            if self._closed:
                raise InvalidRequest(
                    f"type {frame.type!r}: `close` was sent before: nothing but `cancel` may follow it"
                )
            match frame:
                case Text():
                    self._count(frame.text)
                    if frame.text:
                        feed.add(frame.text)
                case Flush():
                    self._flushes += 1
                    if self._flushes - self._flushed > MAX_FLUSHES:
                        raise InvalidRequest(f"type 'flush': {MAX_FLUSHES} are not answered yet: wait for `flushed`")
                    feed.flush()
                case Close():
                    self._closed = True
                    feed.close()
                case Start():
                    raise InvalidRequest("type 'start': it was sent before: open another connection for another speech")

    async def _frame(self, speaking: Callable[[], bool]) -> Frame:
        """The next frame. Raises IdleTimeout when none has come or gone for a while, and nothing is being spoken."""
        coming = asyncio.create_task(self._websocket.receive())
        idle_timeout_s = self._services.limits.idle_timeout_s
        try:
            while not coming.done():
                left_s = self._stirred_at + idle_timeout_s - time.monotonic()
                if left_s <= 0 and not speaking():
                    raise IdleTimeout(
                        f"nothing was sent for {idle_timeout_s:g} s: send text, `flush` or `close` sooner, or an empty "
                        "text to keep the connection"
                    )
                await asyncio.wait({coming}, timeout=left_s if left_s > 0 else idle_timeout_s)
            message = coming.result()
        finally:
            coming.cancel()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        self._stirred_at = time.monotonic()
        return parsed_frame(message.get("text"))

    def _count(self, text: str) -> None:
        limit = self._services.limits.max_text_chars
        self._chars += len(text)
        if self._chars > limit:
            raise PayloadTooLarge(
                f"text has {self._chars} characters in all frames, at most {limit} are taken: open another connection"
            )

    async def _speak(self, stream: SpeechStream, encoder: Encoder) -> None:
        async for wave in stream:
            self._sending = True
            await self._tell_units(stream)
            if wave.size:
                if not self._samples:
                    logs.event("first_audio", units=stream.units, audio_s=round(len(wave) / SAMPLE_RATE_HZ, 3))
                self._samples += len(wave)
                await self._send_audio(await asyncio.to_thread(encoder.add, wave))
            while self._flushed < stream.flushes:
                self._flushed += 1
                await self._tell("flushed")
            self._sending = False
        self._sending = True
        if self._samples:
            await self._send_audio(await asyncio.to_thread(encoder.finish))

    async def _tell_units(self, stream: SpeechStream) -> None:
        for span in stream.spans[self._told :]:
            self._told += 1
            times = {"start_s": round(span.start_s, 3), "end_s": round(span.end_s, 3)}
            await self._tell("unit", index=span.unit.index, text=span.unit.text, **times)

    async def _send_audio(self, audio: bytes) -> None:
        for begin in range(0, len(audio), AUDIO_BYTES):
            piece = audio[begin : begin + AUDIO_BYTES]
            if self._base64:
                await self._tell("audio", audio=base64.b64encode(piece).decode())
            else:
                await self._send({"bytes": piece})

    async def _tell(self, what: str, **fields: Any) -> None:
        await self._send({"text": json.dumps({"type": what, **fields})})

    async def _send(self, message: Mapping[str, Any]) -> None:
        await self._websocket.send({"type": "websocket.send", **message})
        self._stirred_at = time.monotonic()

    async def _fail(self, error: Exception) -> None:
        if isinstance(error, ServiceError) and error.status < 500:
            logs.event("refused", code=error.code, status=error.status)
            told, code = error, POLICY_VIOLATION
        else:
            told = error if isinstance(error, ServiceError) else _unexpected()
            logs.failure("stream_broken_off", error, code=told.code)
            code = INTERNAL_ERROR
        await self._tell("error", error=error_fields(self._websocket, told))
        await self._websocket.close(code, told.code)

    @property
    def _audio_s(self) -> float:
        return round(self._samples / SAMPLE_RATE_HZ, 3)


def _unexpected() -> ServiceError:
    return ServiceError("unexpected error: quote the request id to the operator")
