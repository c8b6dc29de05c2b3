"""Speech that is asked for at once: found among what was spoken before, or spoken now and kept for later.

Only a request with a seed can be equal to another, so only those are looked for and kept. The store is a help here and
no more: where it does not answer, speech is spoken.
"""

import asyncio
from dataclasses import dataclass, replace

from fastapi import Request
from starlette.background import BackgroundTask
from uuid_utils import uuid7

from serve_app import logs
from serve_app.api.services import Services, services_of
from serve_app.audio import encode, read_wav
from serve_app.domain import Speech, SpeechRequest
from serve_app.errors import StorageError
from serve_app.jobs import JobRef

__all__ = ["Spoken", "speech_headers", "speech_of"]


@dataclass(frozen=True, slots=True)
class Spoken:
    """`cached`: no engine was called. `keep`: to be run when the answer is sent; None: there is nothing to keep."""

    speech: Speech
    cached: bool
    keep: BackgroundTask | None = None


def speech_headers(model: str, seed: int, *, draft: bool) -> dict[str, str]:
    """What every answer with speech says of it."""
    return {"X-Model": model, "X-Draft": str(draft).lower(), "X-Seed": str(seed)}


async def speech_of(request: Request, accepted: SpeechRequest, *, reuse: bool) -> Spoken:
    """`reuse`: the client chose the seed and does not mind speech that was spoken before. Raises as `Speaker.speak`."""
    services = services_of(request)
    if reuse and (found := await asyncio.to_thread(_found, services, accepted)) is not None:
        logs.event("result_found")
        return Spoken(found, cached=True)
    speech = await services.speaker.speak(accepted)
    keep = BackgroundTask(asyncio.to_thread, _keep, services, accepted, speech) if reuse else None
    return Spoken(speech, cached=False, keep=keep)


def _found(services: Services, accepted: SpeechRequest) -> Speech | None:
    try:
        version = services.acceptance.model_version(accepted.model)
        found = services.results.read(replace(accepted, model_version=version))
    except StorageError as error:
        logs.event("result_not_looked_for", code=error.code, reason=error.message)
        return None
    if found is None:
        return None
    record, wav = found
    return Speech(read_wav(wav), accepted.model, accepted.seed, record.draft, record.units, record.made_by)


def _keep(services: Services, accepted: SpeechRequest, speech: Speech) -> None:
    ref = JobRef(tenant=accepted.tenant, job_id=str(uuid7()))
    try:
        services.results.keep(ref, accepted, speech, encode(speech.audio, "wav"), services.job_defaults.retention_s)
    except StorageError as error:
        logs.event("result_not_kept", code=error.code, reason=error.message)
