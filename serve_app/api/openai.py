"""OpenAI's speech API: `/v1/audio/speech`, `/v1/models`, `/v1/audio/voices`.

Source of the wire forms: OpenAI's API reference (createSpeech, models, voices). `GET /v1/audio/voices` answers
`{"voices": [{"id", "name"}]}`, which is what clients of the self-hosted peers expect.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from pydantic import ConfigDict, Field

from serve_app import logs
from serve_app.api.elevenlabs import listed_models
from serve_app.api.errors import request_id_of, speaks_elevenlabs
from serve_app.api.fields import ParameterFields, VoiceField, name_of
from serve_app.api.services import PartStatus, services_of, tenant_of
from serve_app.api.speaking import Spoken, speech_headers, speech_of
from serve_app.api.streaming import StreamForm, streamed
from serve_app.api.voices import parsed_labels, parsed_language, slowly, voice_answer
from serve_app.audio import Encoding, encode
from serve_app.catalog import Model
from serve_app.errors import PayloadTooLarge
from serve_app.parameters import Defaults
from serve_app.preparation import Fields
from serve_app.voices import Upload

__all__ = ["router"]

router = APIRouter(tags=["OpenAI"])

NOT_YET_DEPLOYED = PartStatus("starting")


class SpeechBody(ParameterFields):
    """Body of createSpeech; of the parameters all but `speed` are ours, and so are `cache`, `sample_rate`, `bit_rate`.

    Unknown fields are refused, so that none is dropped in silence.
    """

    model_config = ConfigDict(extra="forbid")

    input: str
    model: str | None = None
    voice: VoiceField = None
    instructions: str | None = None
    response_format: str = "mp3"
    sample_rate: int | None = Field(None, strict=True, description="Hz; 8000 to 48000")
    bit_rate: int | None = Field(None, strict=True, description="bits a second of mp3, opus and aac")
    stream_format: StreamForm | None = Field(
        None, description="`audio` or `sse`: the file as it is spoken, or events; left out: the whole file at its end"
    )
    cache: bool = True

    @property
    def voice_name(self) -> str | None:
        return name_of(self.voice)


@router.post("/v1/audio/speech", response_class=Response)
async def speech(request: Request, body: SpeechBody) -> Response:
    """Speak a text; the answer is the audio file, or with `stream_format` the audio as it is spoken. Headers name the
    model, the seed and whether it is a draft."""
    logs.event("received", dialect="openai", endpoint="speech")
    logs.shape("payload", body.model_dump())
    services = services_of(request)
    encoding = Encoding.of(body.response_format, body.sample_rate, body.bit_rate)
    accepted = await services.acceptance.accept(
        text=body.input,
        text_field="input",
        model=body.model,
        voice=body.voice_name,
        voice_field="voice",
        parameters=body.parameters,
        tenant=tenant_of(request),
        request_id=request_id_of(request),
    )
    ignored = {"X-Ignored-Fields": "instructions"} if body.instructions else {}
    if body.stream_format is not None:
        return await streamed(request, accepted, encoding, body.stream_format, ignored)
    spoken = await speech_of(request, accepted, reuse=body.cache and body.seed is not None)
    content = await asyncio.to_thread(encode, spoken.speech.audio, encoding)
    logs.event("answered", audio_s=round(spoken.speech.duration_s, 3), size_bytes=len(content))
    headers = _speech_headers(spoken) | ignored
    return Response(content, media_type=encoding.content_type, headers=headers, background=spoken.keep)


def _speech_headers(spoken: Spoken) -> dict[str, str]:
    return {
        **speech_headers(spoken.speech.model, spoken.speech.seed, draft=spoken.speech.draft),
        "X-Audio-Seconds": f"{spoken.speech.duration_s:.3f}",
        "X-Cached": str(spoken.cached).lower(),
    }


@router.get("/v1/models")
async def models(request: Request) -> Any:
    """The deployed models and their aliases, each with its licence and its state. With the header `xi-api-key`: the
    bare list that ElevenLabs' clients read."""
    if speaks_elevenlabs(request):
        return listed_models(request)
    logs.event("received", dialect="openai", endpoint="models")
    services = services_of(request)
    parts = await services.cluster.statuses()
    own = [_model(model.name, model, parts) for model in services.catalog.models]
    aliases = [
        _model(alias, model, parts) | {"alias_of": model.name}
        for alias, model in sorted(services.catalog.aliases.items())
    ]
    return {"object": "list", "data": own + aliases}


@router.get("/v1/models/{name}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """One model, by name or alias."""
    logs.event("received", dialect="openai", endpoint="models")
    services = services_of(request)
    return _model(name, services.catalog.model(name), await services.cluster.statuses())


def _model(name: str, model: Model, parts: Mapping[str, PartStatus]) -> dict[str, Any]:
    status = parts.get(model.name, NOT_YET_DEPLOYED)
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": model.engine,
        "draft": model.draft,
        "license": model.license,
        "languages": list(model.languages),
        "builtin_voices": list(model.builtin_voices),
        "parameters": _parameters(model.defaults),
        "state": status.state,
        "replicas": status.replicas,
        "message": status.message,
    }


def _parameters(defaults: Defaults) -> dict[str, float]:
    """What a request may set, with the model's own values."""
    own = {"speed": defaults.speed, "cross_fade_s": defaults.cross_fade_s}
    return own if defaults.sampling is None else {**asdict(defaults.sampling), **own}


@router.get("/v1/audio/voices")
async def voices(
    request: Request, after: str = "", limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> dict[str, Any]:
    """Built-in voices (on the first page), then the stored ones; `next_after` is null at the end."""
    logs.event("received", dialect="openai", endpoint="voices.list")
    services = services_of(request)
    page = await asyncio.to_thread(services.library.list, tenant_of(request), after=after, limit=limit)
    logs.event("answered_from_store", voices=len(page.items))
    builtin = [
        {"id": name, "name": name, "builtin": True, "models": [model.name]}
        for model in services.catalog.models
        for name in model.builtin_voices
    ]
    stored = [
        {
            "id": voice.name,
            "name": voice.name,
            "builtin": False,
            "size_bytes": voice.size_bytes,
            "last_modified": voice.last_modified.isoformat(),
            "has_text": voice.text_file is not None,
        }
        for voice in page.items
    ]
    return {"voices": ([] if after else builtin) + stored, "next_after": page.next_after}


@router.post("/v1/audio/voices", status_code=201)
async def create_voice(
    request: Request,
    name: Annotated[str, Form()],
    audio_sample: Annotated[UploadFile, File(description="reference audio: wav, mp3, flac, ogg, m4a or webm")],
    ref_text: Annotated[str, Form(description="what is said in audio_sample; F5 cannot clone without it")] = "",
    consent: Annotated[str, Form(description="a note that the speaker agreed; kept with the voice")] = "",
    language: Annotated[str, Form(description="of the recording, as in `en` or `pt-BR`; found out for English")] = "",
    labels: Annotated[str, Form(description='JSON object of texts, kept with the voice: {"accent": "Scottish"}')] = "",
) -> dict[str, Any]:
    """Create or replace a voice: it is cleaned, compared with its text, cut to 12 s with it, and graded."""
    logs.event("received", dialect="openai", endpoint="voices.create")
    services = services_of(request)
    data = await audio_sample.read(services.limits.voice_bytes + 1)
    if len(data) > services.limits.voice_bytes:
        raise PayloadTooLarge(
            f"audio_sample is over {services.limits.voice_bytes} bytes: send a shorter file, 5 to 12 s is best"
        )
    upload = Upload(
        data,
        ref_text,
        language=parsed_language(language, "language"),
        consent=consent,
        labels=parsed_labels(labels, "labels"),
        names=Fields("audio_sample", "ref_text"),
    )
    voice = await slowly(services.library.create, tenant_of(request), name, upload)
    logs.event("stored", voice=voice.info.name, size_bytes=voice.info.size_bytes)
    return voice_answer(request, voice)


@router.get("/v1/audio/voices/{name}")
async def get_voice(request: Request, name: str) -> dict[str, Any]:
    """A voice with what was done to its recording, and a URL to hear it."""
    logs.event("received", dialect="openai", endpoint="voices.get")
    services = services_of(request)
    if models := [model.name for model in services.catalog.models if name in model.builtin_voices]:
        return {"id": name, "name": name, "object": "audio.voice", "builtin": True, "models": models}
    voice = await asyncio.to_thread(services.library.get, tenant_of(request), name)
    return voice_answer(request, voice)


@router.delete("/v1/audio/voices/{name}")
async def delete_voice(request: Request, name: str) -> dict[str, Any]:
    """Delete a stored voice."""
    logs.event("received", dialect="openai", endpoint="voices.delete")
    await asyncio.to_thread(services_of(request).library.delete, tenant_of(request), name)
    return {"id": name, "object": "audio.voice", "deleted": True}
