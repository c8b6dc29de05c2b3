"""ElevenLabs' text to speech: four forms of one request, and its list of models. Voices are in `elevenlabs_voices`.

Only translates: what speaks, streams and encodes is what every dialect has. `xi-api-key` is taken and not checked.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from serve_app import logs
from serve_app.api.elevenlabs_forms import SpeechQuery, TextToSpeechBody, encoding_of, model_form, timed_form
from serve_app.api.errors import request_id_of
from serve_app.api.levelled import LevelledStream
from serve_app.api.services import services_of, tenant_of
from serve_app.api.speaking import speech_headers
from serve_app.api.streaming import JsonLines, StreamForm, streamed
from serve_app.api.voices import parsed_language
from serve_app.api.whole import WholeAnswer, discard, file_pieces, filled, whole
from serve_app.audio import WholeFile
from serve_app.domain import SpeechRequest
from serve_app.speech_stream import SpeechStream, UnitSpan
from serve_app.timing import Timing, UnitTimes

__all__ = ["listed_models", "router"]

router = APIRouter(tags=["ElevenLabs"])

Asked = Annotated[SpeechQuery, Query()]

TIMING = {"X-Timing-Method": "estimated"}
"""Where a unit lies is exact; where a character lies in its unit is not measured."""


@router.post("/v1/text-to-speech/{voice_id}", response_class=Response)
async def speech(request: Request, voice_id: str, body: TextToSpeechBody, query: Asked) -> Response:
    """Speak a text; the answer is the audio file."""
    encoding = encoding_of(query.output_format)
    accepted = await _accepted(request, "speech", voice_id, body)
    reuse = body.seed is not None and query.enable_logging
    return await whole(request, accepted, encoding, _headers(request, body, query), reuse=reuse)


@router.post("/v1/text-to-speech/{voice_id}/stream", response_class=Response)
async def speech_stream(request: Request, voice_id: str, body: TextToSpeechBody, query: Asked) -> Response:
    """The same file while it is spoken."""
    return await _streamed(request, "speech.stream", voice_id, body, query, "audio")


@router.post("/v1/text-to-speech/{voice_id}/with-timestamps")
async def timed_speech(request: Request, voice_id: str, body: TextToSpeechBody, query: Asked) -> Response:
    """The file in base64, and when each character is heard: of the text as it was sent, and as it is spoken."""
    encoding = encoding_of(query.output_format)
    accepted = await _accepted(request, "speech.timed", voice_id, body)
    file = WholeFile(encoding)
    try:
        stream = await filled(services_of(request), accepted, file, texts=True)
        await asyncio.to_thread(file.finish)
        timing = await asyncio.to_thread(Timing, body.text, stream.texts)
        times = await asyncio.to_thread(_times, timing, stream.spans)
    except BaseException:
        discard(file)
        raise
    logs.event("answered", audio_s=round(file.duration_s, 3))
    headers = speech_headers(accepted, draft=stream.draft) | _headers(request, body, query)
    headers |= TIMING | {"X-Audio-Seconds": f"{file.duration_s:.3f}"}
    return WholeAnswer(file, _timed_body(file, times), "application/json", headers)


@router.post("/v1/text-to-speech/{voice_id}/stream/with-timestamps", response_class=Response)
async def timed_stream(request: Request, voice_id: str, body: TextToSpeechBody, query: Asked) -> Response:
    """One JSON object a line, as it is spoken: a piece of the file in base64, and the characters of the units that have
    begun in it, in seconds from the beginning of the whole; null where none has."""
    return await _streamed(request, "speech.stream.timed", voice_id, body, query, _lines_of(body.text))


def listed_models(request: Request) -> list[dict[str, Any]]:
    """Models and their aliases, in a bare list."""
    logs.event("received", dialect="elevenlabs", endpoint="models")
    services = services_of(request)
    names = {model.name: model for model in services.catalog.models} | dict(sorted(services.catalog.aliases.items()))
    return [model_form(name, model, services.limits.max_text_chars) for name, model in names.items()]


async def _accepted(request: Request, endpoint: str, voice_id: str, body: TextToSpeechBody) -> SpeechRequest:
    logs.event("received", dialect="elevenlabs", endpoint=endpoint)
    logs.shape("payload", body.model_dump())
    body.check_served()
    return await services_of(request).acceptance.accept(
        text=body.text,
        text_field="text",
        model=body.model_id,
        voice=voice_id,
        voice_field="voice_id",
        parameters=body.parameters,
        tenant=tenant_of(request),
        request_id=request_id_of(request),
        language=parsed_language(body.language_code or "", "language_code"),
        normalize=body.normalize,
    )


async def _streamed(
    request: Request,
    endpoint: str,
    voice_id: str,
    body: TextToSpeechBody,
    query: SpeechQuery,
    form: StreamForm | JsonLines,
) -> Response:
    encoding = encoding_of(query.output_format)
    accepted = await _accepted(request, endpoint, voice_id, body)
    headers = _headers(request, body, query) | ({} if form == "audio" else TIMING)
    return await streamed(request, accepted, encoding, form, headers)


def _headers(request: Request, body: TextToSpeechBody, query: SpeechQuery) -> dict[str, str]:
    """ElevenLabs' own, and what was not followed."""
    characters = str(len(body.text))
    ignored = body.ignored + ["optimize_streaming_latency"] * (query.optimize_streaming_latency is not None)
    own = {"request-id": request_id_of(request), "character-cost": characters, "x-character-count": characters}
    return own | ({"X-Ignored-Fields": ", ".join(ignored)} if ignored else {})


async def _timed_body(file: WholeFile, times: UnitTimes | None) -> AsyncIterator[bytes]:
    """JSON, of which the file is not there as a whole."""
    yield b'{"audio_base64": "'
    rest = b""
    async for piece in file_pieces(file):
        rest += piece
        whole = len(rest) - len(rest) % 3
        yield base64.b64encode(rest[:whole])
        rest = rest[whole:]
    yield base64.b64encode(rest) + b'", '
    form = timed_form(b"", times)
    del form["audio_base64"]
    yield json.dumps(form)[1:].encode()


def _times(timing: Timing, spans: Sequence[UnitSpan]) -> UnitTimes | None:
    """Of the next units; None for none."""
    parts = [timing.add(span.start_s, span.end_s) for span in spans]
    return UnitTimes.joined(parts) if parts else None


def _lines_of(text: str) -> JsonLines:
    async def lines(pieces: AsyncIterator[bytes], stream: SpeechStream | LevelledStream) -> AsyncIterator[str]:
        """What `pieces` raise has the server cut the connection before the body's end."""
        timing = await asyncio.to_thread(Timing, text, stream.texts)
        told = 0
        async for piece in pieces:
            new, told = stream.spans[told:], len(stream.spans)
            yield f"{json.dumps(timed_form(piece, _times(timing, new)))}\n"
        if new := stream.spans[told:]:  # the encoder had nothing more to give for them
            yield f"{json.dumps(timed_form(b'', _times(timing, new)))}\n"

    return lines
