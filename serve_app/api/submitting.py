"""From what a client wants to a durable job, the same in every dialect.

    look for the idempotency key -> check and accept -> hold the key -> store -> tell a runner

All that can be refused is refused before the key is held, so a refused request has not used it up; and all that is
promised is in the store before the client hears of it.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from fastapi import Request
from pydantic import BaseModel
from uuid_utils import uuid7

from serve_app import logs
from serve_app.api.errors import request_id_of
from serve_app.api.fields import TextOptions
from serve_app.api.job_forms import UrlOf
from serve_app.api.policy import JobPolicy
from serve_app.api.services import Services, services_of, tenant_of
from serve_app.api.voices import imported_voice
from serve_app.errors import IdempotencyMismatch
from serve_app.jobs import Claim, JobRef, JobRequest, JobStatus
from serve_app.jobs.states import REQUEST, standing
from serve_app.parameters import Parameters
from serve_app.planning import estimated_audio_s

__all__ = ["REPLAYED", "JobOrder", "Submitted", "submit", "url_of"]

REPLAYED = {"Idempotent-Replayed": "true"}
"""Stripe's header: this answer is about a job that an earlier request made."""


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What a client wants spoken as a job. `voice` may be a URL where `voice_urls` says so."""

    text: str
    text_field: str
    model: str | None
    voice: str | None
    voice_field: str
    parameters: Parameters
    text_options: TextOptions
    policy: JobPolicy
    dialect: str
    cache: bool = True
    voice_urls: bool = False
    worker_output: bool = False


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that is durable. `is_new`: it is to be spoken, and no runner knows of it; `replayed`: by an earlier request
    with the same idempotency key."""

    status: JobStatus
    is_new: bool = False
    replayed: bool = False

    @property
    def ref(self) -> JobRef:
        return self.status.request.ref


async def submit(
    request: Request, order: JobOrder, body: BaseModel, key: str | None, speech: BaseModel | None = None
) -> Submitted:
    """Make a job of `order`, which came as `body`, in RunPod's dialect with `speech` as its `input`. No runner is told.
    Raises as `Acceptance.accept`; IdempotencyMismatch; StorageError, and then nothing is promised."""
    services, tenant = services_of(request), tenant_of(request)
    if key is None:
        job = await _accepted(request, order, JobRef(tenant=tenant, job_id=str(uuid7())))
    else:
        claim, body_sha256 = await _looked(services, tenant, key, _digests(body, speech))
        if not claim.known:
            job = await _accepted(request, order, claim.ref, body_sha256)
            claim = await services.jobs.hold(claim.ref, key, body_sha256)
        if claim.known:
            return await _replayed(services, claim.ref)
    accepted = await services.jobs.submit(job)
    if accepted.request != job:  # another request with this key was the first
        return await _replayed(services, job.ref)
    queued = JobStatus(request=job, state="queued", standing=standing([REQUEST]))
    return Submitted(queued, is_new=not accepted.ended)


async def _looked(services: Services, tenant: str, key: str, digests: Sequence[str]) -> tuple[Claim, str]:
    """Whether the key is known, and which of these digests its job has, or is to have: the first."""
    first, *older = digests
    try:
        return await services.jobs.look(tenant, key, first), first
    except IdempotencyMismatch:
        if not older:
            raise
        return await _looked(services, tenant, key, older)


async def _replayed(services: Services, ref: JobRef) -> Submitted:
    logs.event("idempotency_key_known", job_id=ref.job_id)
    return Submitted(await services.jobs.status(ref), replayed=True)


def url_of(request: Request) -> UrlOf:
    """How the forms make URLs for whoever sent `request`."""
    return partial(services_of(request).url, request)


async def _accepted(request: Request, order: JobOrder, ref: JobRef, body_sha256: str | None = None) -> JobRequest:
    services, policy, voice = services_of(request), order.policy, order.voice
    await asyncio.to_thread(services.acceptance.check, order.text, order.text_field, order.model, order.parameters)
    if voice is not None and order.voice_urls and "://" in voice:
        voice = await imported_voice(request, voice, order.voice_field)
    speech = await services.acceptance.accept(
        text=order.text,
        text_field=order.text_field,
        model=order.model,
        voice=voice,
        voice_field=order.voice_field,
        parameters=order.parameters,
        tenant=ref.tenant,
        request_id=request_id_of(request),
        job_id=ref.job_id,
        **order.text_options,
    )
    return JobRequest(
        tenant=ref.tenant,
        job_id=ref.job_id,
        accepted_at=services.wall_clock(),
        dialect=order.dialect,
        speech=speech,
        worker_output=order.worker_output,
        audio_s=await asyncio.to_thread(estimated_audio_s, speech.text, speech.speed),
        low_priority=policy.low_priority,
        execution_timeout_s=policy.execution_timeout_s,
        ttl_s=policy.ttl_s,
        retention_s=policy.retention_s,
        webhook=policy.webhook,
        base_url=services.base_url(request),
        cache=order.cache,
        seeded=order.parameters.seed is not None,
        body_sha256=body_sha256,
    )


def _digests(body: BaseModel, speech: BaseModel | None) -> list[str]:
    """Of the body as it was understood: order of fields, spaces and defaults make no other body, nor does 1 for 1.0.

    RunPod's `input` is understood as `speech`. The version before this one digested it as it was sent, and its keys are
    remembered for a day: that digest comes second, where it is another one.
    """
    sent = body.model_dump(mode="json", exclude_defaults=True)
    if speech is None:
        return [_digest(sent)]
    understood = speech.model_dump(mode="json", exclude_defaults=True, exclude={"endpoint"})  # which is `tts`
    return list(dict.fromkeys((_digest(sent | {"input": understood}), _digest(sent))))


def _digest(said: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
