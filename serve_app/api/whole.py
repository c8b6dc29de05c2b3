"""Speech as one whole file: found among what was spoken before, or spoken now and kept for later.

    result | SpeechStream -> wave, wave, ... -> WholeFile -> status, headers with its true size -> body

Memory does not grow with the text: a file over 2 MiB lies in the temporary folder until it is sent. Only a request with
a seed can be equal to another, so only those are looked for and kept, up to KEPT_BYTES of samples. The store is a help
here and no more: where it does not answer, speech is spoken.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from fastapi import Request
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from uuid_utils import uuid7

from serve_app import logs
from serve_app.api.services import Services, services_of
from serve_app.api.speaking import loudness_header, speech_headers
from serve_app.audio import KEPT_BYTES, Encoding, WholeFile, encode, wav_waves
from serve_app.domain import Speech, SpeechRequest
from serve_app.errors import StorageError
from serve_app.jobs import JobRef
from serve_app.jobs.results import ResultRecord
from serve_app.speech_stream import SpeechStream

__all__ = ["WholeAnswer", "discard", "file_pieces", "filled", "whole"]


async def whole(
    request: Request,
    accepted: SpeechRequest,
    encoding: Encoding,
    headers: Mapping[str, str],
    *,
    reuse: bool,
    lufs: float | None = None,
) -> StreamingResponse:
    """The answer, once all is spoken. `reuse`: the client chose the seed and does not mind speech that was spoken
    before. `lufs`: how loud it is to be. Raises as `Speaker.stream` and its stream; UnsupportedFormat for a WAV over
    4 GiB."""
    services = services_of(request)
    file = WholeFile(encoding, lufs=lufs, keep=reuse)
    try:
        found = await asyncio.to_thread(_found, services, accepted) if reuse else None
        if found is not None:
            logs.event("result_found")
            record, wav = found
            await asyncio.to_thread(_fill, file, wav)
            spoken = _Spoken(record.draft, record.units, record.made_by)
        else:
            spoken = await _speak(services, accepted, file)
        await asyncio.to_thread(file.finish)
    except BaseException:
        discard(file)
        raise
    logs.event("answered", audio_s=round(file.duration_s, 3), size_bytes=file.size_bytes)
    told = {
        **speech_headers(accepted, draft=spoken.draft),
        "Content-Length": str(file.size_bytes),
        "X-Audio-Seconds": f"{file.duration_s:.3f}",
        "X-Cached": str(found is not None).lower(),
        **({} if file.gain is None else loudness_header(file.gain)),
        **headers,
    }
    keep = BackgroundTask(asyncio.to_thread, _keep, services, accepted, file, spoken) if reuse and not found else None
    return WholeAnswer(file, file_pieces(file), encoding.content_type, told, keep)


@dataclass(frozen=True, slots=True)
class _Spoken:
    draft: bool
    units: int
    made_by: str


class WholeAnswer(StreamingResponse):
    """With a body made of `file`, which ends with it, however that comes."""

    def __init__(
        self,
        file: WholeFile,
        body: AsyncIterator[bytes],
        content_type: str,
        headers: Mapping[str, str],
        keep: BackgroundTask | None = None,
    ) -> None:
        super().__init__(body, media_type=content_type, headers=headers, background=keep)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            discard(self._file)


async def file_pieces(file: WholeFile) -> AsyncIterator[bytes]:
    """Of a file that is finished."""
    pieces = file.pieces()
    while piece := await asyncio.to_thread(partial(next, pieces, b"")):
        yield piece


async def _speak(services: Services, accepted: SpeechRequest, file: WholeFile) -> _Spoken:
    stream = await filled(services, accepted, file)
    return _Spoken(stream.draft, stream.units, stream.made_by)


async def filled(services: Services, accepted: SpeechRequest, file: WholeFile, *, texts: bool = False) -> SpeechStream:
    """All of the speech, in `file`; the stream that it came from is over. `texts`: see `Speaker.stream`."""
    stream = await services.speaker.stream(accepted, texts=texts, heard=False)
    try:
        async for wave in stream:
            await asyncio.to_thread(file.add, wave)
    finally:
        await stream.close()
    return stream


def _fill(file: WholeFile, wav: bytes) -> None:
    for wave in wav_waves(wav):
        file.add(wave)


def discard(file: WholeFile) -> None:
    """Not awaited: whoever is cancelled has no time, and a thread may still be at the file."""
    asyncio.get_running_loop().run_in_executor(None, file.close)


def _found(services: Services, accepted: SpeechRequest) -> tuple[ResultRecord, bytes] | None:
    try:
        version = services.acceptance.model_version(accepted.model)
        return services.results.read(replace(accepted, model_version=version), KEPT_BYTES)
    except StorageError as error:
        logs.event("result_not_looked_for", code=error.code, reason=error.message)
        return None


def _keep(services: Services, accepted: SpeechRequest, file: WholeFile, spoken: _Spoken) -> None:
    if (audio := file.kept()) is None:
        logs.event("result_not_kept", reason="it is too long", audio_s=round(file.duration_s, 3))
        return
    speech = Speech(audio, accepted.model, accepted.seed, spoken.draft, spoken.units, spoken.made_by)
    ref = JobRef(tenant=accepted.tenant, job_id=str(uuid7()))
    try:
        services.results.keep(ref, accepted, speech, encode(audio, "wav"), services.job_defaults.retention_s)
    except StorageError as error:
        logs.event("result_not_kept", code=error.code, reason=error.message)
