"""The payloads of the worker that this service replaces: what may stand inside RunPod's `input`.

Both of its forms replay unchanged. Speech is a job; every other endpoint is a call that is answered at once from
the store and never reaches a model. An endpoint that is not in CALLS is refused, never spoken.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, StrictBool, ValidationError, WithJsonSchema

from serve_app import logs
from serve_app.api.errors import problems
from serve_app.api.fields import ModelName, ParameterFields, Text, TextFields, Whole
from serve_app.api.job_forms import NO_TIMINGS, reason_of, speech_output
from serve_app.api.services import services_of, tenant_of
from serve_app.api.voices import parsed_language, shown_url, slowly, voice_answer
from serve_app.domain import JobState
from serve_app.errors import Conflict, InvalidAudio, InvalidRequest, NotFound, PayloadTooLarge
from serve_app.job_client import job_ref
from serve_app.jobs import JobStatus
from serve_app.preparation import Fields
from serve_app.voices import Upload, from_file_name

M = TypeVar("M", bound=BaseModel)

__all__ = ["CALLS", "Payload", "SpeechInput", "endpoint_of", "parse"]

WORKER_STATES: Mapping[JobState, str] = {
    "queued": "QUEUED",
    "in_progress": "PROCESSING",
    "completed": "COMPLETED",
    "failed": "ERROR",
    "cancelled": "ERROR",
    "expired": "ERROR",
}


class Input(BaseModel):
    """Unknown fields are refused, so that none is dropped in silence."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str | None = None


def _named(*calls: str | None) -> WithJsonSchema:
    """What `endpoint` says of a payload; checked in `endpoint_of`."""
    return WithJsonSchema({"enum": list(calls)})


class SpeechInput(Input, ParameterFields, TextFields):
    """Speech in both forms of the old worker. Ours: `model`, `cache`, the fields of the text, and the parameters but
    `speed` and `seed`."""

    endpoint: Annotated[str | None, _named("tts", None)] = None
    text: Text
    local_voice: str | None = None
    return_word_timings: StrictBool = False
    timing_format: Literal["srt", "vtt", "csv", "json", "ass"] = "srt"
    timing_method: str | None = None
    model: ModelName | None = None
    cache: StrictBool = True

    @property
    def voice_name(self) -> str | None:
        """`local_voice` as a voice's name: the old worker took a file name, or a URL, see `voices.imported_voice`."""
        return None if self.local_voice is None else from_file_name(self.local_voice, field="input.local_voice")


class UploadInput(Input):
    """`upload`: base64 of the audio, and of its transcript."""

    endpoint: Annotated[str, _named("upload")]
    voice_name: str
    voice_file: str | None = None
    text_file: str | None = None
    voice_file_url: str | None = None
    language: str = ""
    text_file_url: str | None = None


class JobInput(Input):
    """`status`, `result` and `download`."""

    endpoint: Annotated[str, _named("status", "result", "download")]
    job_id: str
    type: Literal["audio", "timing"] = "audio"
    format: str | None = None


class ListInput(Input):
    """`list_voices`; paging is ours."""

    endpoint: Annotated[str, _named("list_voices")]
    after: str = ""
    limit: Annotated[Whole, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 1000})] = 1000


Payload = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {"anyOf": [each.model_json_schema() for each in (SpeechInput, UploadInput, JobInput, ListInput)]},
    ),
]
"""`input`, as the OpenAPI document has it. It is parsed once it is known which call it is."""


def endpoint_of(payload: Mapping[str, Any]) -> str:
    """`tts`, or one of CALLS. Raises InvalidRequest for anything else."""
    endpoint = payload.get("endpoint") or "tts"
    if endpoint != "tts" and (not isinstance(endpoint, str) or endpoint not in CALLS):
        raise InvalidRequest(
            f"input.endpoint {str(endpoint)[:64]!r} is unknown: leave it out or send `tts` to speak, "
            f"or use one of {', '.join(CALLS)}"
        )
    return str(endpoint)


def parse(model: type[M], payload: Mapping[str, Any]) -> M:
    """`input` as `model`. Raises InvalidRequest that names each wrong field and what was sent."""
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        raise InvalidRequest(problems(error.errors(), within="input", allowed=model.model_fields)) from error


async def _upload(request: Request, payload: Mapping[str, Any]) -> dict[str, Any]:
    body = parse(UploadInput, payload)
    name, services = from_file_name(body.voice_name, field="input.voice_name"), services_of(request)
    language = parsed_language(body.language, "input.language")
    audio = await _bytes(request, "voice_file", body.voice_file, body.voice_file_url, services.limits.voice_bytes)
    if audio is None:
        raise InvalidRequest("input.voice_file is missing: send the reference audio as base64, or its voice_file_url")
    text = await _bytes(request, "text_file", body.text_file, body.text_file_url, services.limits.max_text_chars)
    names = Fields("input.voice_file", "input.text_file")
    upload = Upload(audio, _utf8(text or b""), language, source=shown_url(body.voice_file_url) or "upload", names=names)
    voice = await slowly(services.library.create, tenant_of(request), name, upload)
    logs.event("stored", voice=name, size_bytes=voice.info.size_bytes)
    return {"status": "success", "voice_name": name, "voice": voice_answer(request, voice)}


async def _bytes(request: Request, field: str, value: str | None, url: str | None, limit: int) -> bytes | None:
    """What was sent as base64, or lies behind the URL; None where neither was sent. Raises InvalidRequest for both."""
    if value and url:
        raise InvalidRequest(f"input.{field} and input.{field}_url are both there: send one of them")
    if url:
        fetch = services_of(request).fetcher.fetch
        return await slowly(fetch, url, field=f"input.{field}_url", max_bytes=limit)
    return _decode_base64(field, value, limit) if value else None


def _output(request: Request, status: JobStatus) -> dict[str, Any]:
    return speech_output(status, partial(services_of(request).url, request))


async def _status(request: Request, payload: Mapping[str, Any]) -> dict[str, Any]:
    status = await _job(request, parse(JobInput, payload).job_id)
    return {"job_id": status.request.job_id, "status": WORKER_STATES[status.state]}


async def _result(request: Request, payload: Mapping[str, Any]) -> dict[str, Any]:
    status = await _completed(request, parse(JobInput, payload).job_id)
    return _output(request, status) | {"word_timings": []}


async def _download(request: Request, payload: Mapping[str, Any]) -> dict[str, Any]:
    body = parse(JobInput, payload)
    status = await _completed(request, body.job_id)
    if body.type == "timing":
        raise NotFound(f"input.type: job {body.job_id} has no timing file: {NO_TIMINGS}")
    output = _output(request, status)
    return {
        "audio_url": output["audio_url"],
        "content_type": "audio/wav",
        "filename": f"{body.job_id}.wav",
        "status": "ready",
    }


async def _list_voices(request: Request, payload: Mapping[str, Any]) -> dict[str, Any]:
    body = parse(ListInput, payload)
    if not 1 <= body.limit <= 1000:
        raise InvalidRequest(f"input.limit is {body.limit}: send 1 to 1000")
    page = await asyncio.to_thread(
        services_of(request).library.list, tenant_of(request), after=body.after, limit=body.limit
    )
    logs.event("answered_from_store", voices=len(page.items))
    voices = [
        {
            "name": voice.name,
            "voice_file": voice.voice_file,
            "text_file": voice.text_file,
            "size": voice.size_bytes,
            "last_modified": voice.last_modified.isoformat(),
        }
        for voice in page.items
    ]
    return {"voices": voices, "count": len(voices), "status": "success", "next_after": page.next_after}


async def _job(request: Request, job_id: str) -> JobStatus:
    status = await services_of(request).jobs.status(job_ref(tenant_of(request), job_id))
    logs.event("answered_from_store", job_id=job_id, state=status.state)
    return status


async def _completed(request: Request, job_id: str) -> JobStatus:
    status = await _job(request, job_id)
    if status.outcome is None:
        raise Conflict(f"job {job_id} is {WORKER_STATES[status.state]}: ask `status` until it is COMPLETED")
    if status.state != "completed":
        raise Conflict(f"job {job_id} {status.state}: {reason_of(status.outcome)}")
    return status


def _decode_base64(field: str, value: str, limit_bytes: int) -> bytes:
    _, _, data = value.rpartition(",") if value.startswith("data:") else ("", "", value)
    if len(data) * 3 // 4 > limit_bytes:
        raise PayloadTooLarge(f"input.{field} is over {limit_bytes} bytes: send a shorter file")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidAudio(f"input.{field} is not base64 ({error}): encode the file's bytes as base64") from error


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"input.text_file is not UTF-8 ({error}): save the transcript as UTF-8") from error


Call = Callable[[Request, Mapping[str, Any]], Awaitable[dict[str, Any]]]
CALLS: Mapping[str, Call] = {
    "upload": _upload,
    "status": _status,
    "result": _result,
    "list_voices": _list_voices,
    "download": _download,
}
