"""RunPod's job API, bare and under `/v2/{endpoint_id}`: from `/run` to `/purge-queue`, and `/health`.

Source of the wire forms: RunPod's serverless endpoint reference and its Python SDK. `input` is the replaced worker's
payload (`worker`). `/run` answers when the job is durable; all else reads the store and nothing else.
"""

import asyncio
import json
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from uuid_utils import uuid7

from serve_app import keys, logs
from serve_app.api import examples, worker
from serve_app.api.calls import answer_call, keep_call, shorten_call, stored_call
from serve_app.api.fields import IdempotencyKey
from serve_app.api.job_forms import RUNPOD_STATES, piece_form, reason_of, runpod_form, speech_output
from serve_app.api.known import known_query
from serve_app.api.policy import JobPolicy, Milliseconds, NotTaken, Policy, Url, runpod_policy, ttl_s
from serve_app.api.services import PartStatus, Services, services_of, tenant_of
from serve_app.api.submitting import REPLAYED, JobOrder, Submitted, submit, url_of
from serve_app.errors import Conflict, InvalidPolicy, JobNotFound, ObjectNotFound, Unavailable
from serve_app.job_client import job_ref
from serve_app.jobs import JobRef, JobStatus, check_key

__all__ = ["router"]

router = APIRouter(tags=["RunPod"], dependencies=[Depends(known_query)])

DEFAULT_WAIT_MS = 90_000
OLD = timedelta(hours=1)
"""Beats that a new ingress does not take for live ones, whatever its clock."""

Ttl = Annotated[Milliseconds | None, Query(description="milliseconds that the result is kept from the job's end")]


class RunBody(BaseModel):
    """Body of /run and /runsync. `webhook`, `policy` and `s3Config` are checked in `policy`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": examples.RUN})

    input: worker.Payload
    webhook: Url = None
    policy: Policy = None
    s3Config: NotTaken = None  # noqa: N815 - RunPod's name


@router.post("/run")
async def run(
    request: Request, response: Response, body: RunBody, ttl: Ttl = None, idempotency_key: IdempotencyKey = None
) -> dict[str, Any]:
    """Accept a job; it is durable when this answers."""
    endpoint, policy = _received(request, body, ttl, idempotency_key)
    if endpoint != "tts":
        return await keep_call(request, endpoint, body.input, policy.retention_s)
    job = await _submitted(request, response, body, policy, idempotency_key)
    if job.is_new:
        services_of(request).jobs.tell(job.status.marker)
    return _brief(job.status)


@router.post("/runsync")
async def runsync(
    request: Request,
    response: Response,
    body: RunBody,
    wait: Annotated[int, Query(ge=1000, le=300_000)] = DEFAULT_WAIT_MS,
    ttl: Ttl = None,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Accept a job and wait up to `wait` ms for its end; after that, `/status/{id}` has it."""
    endpoint, policy = _received(request, body, ttl, idempotency_key)
    if endpoint != "tts":
        return await answer_call(request, str(uuid7()), endpoint, body.input)
    job = await _submitted(request, response, body, policy, idempotency_key)
    services = services_of(request)
    wait_for_end = services.jobs.wait if job.replayed else services.jobs.run
    ended = await wait_for_end(job.ref, min(wait / 1000, services.limits.max_wait_s))
    return await _form(request, ended)


@router.get("/status/{job_id}")
@router.post("/status/{job_id}")
async def status(request: Request, job_id: str, ttl: Ttl = None) -> dict[str, Any]:
    """The state of a job, from the store. `ttl` has the result of one that ended removed sooner."""
    ref, shorter_s = _asked(request, "status", job_id), ttl_s(ttl)
    found = await _job(request, ref)
    if found is None:
        answer = await stored_call(request, ref)
        if shorter_s is not None:
            await shorten_call(request, ref, shorter_s)
        return answer
    if shorter_s is not None and found.outcome is not None:
        await services_of(request).jobs.shorten(ref, shorter_s)
    return await _form(request, found)


@router.get("/stream/{job_id}")
@router.post("/stream/{job_id}")
async def stream(request: Request, job_id: str) -> dict[str, Any]:
    """The audio of a job in pieces, each handed out once, also while it is spoken; at the end the output, once. The SDK
    asks until nothing comes any more."""
    ref, jobs = _asked(request, "stream", job_id), services_of(request).jobs
    found = await _job(request, ref)
    if found is None:
        call = await stored_call(request, ref)
        first = await jobs.hand_out(ref)
        return {"status": call["status"], "stream": [{"output": call["output"]}] if first else []}
    state = RUNPOD_STATES[found.state]
    if found.outcome is not None and found.state != "completed":
        raise Conflict(f"job {ref.job_id} is {state} and has nothing to stream: {reason_of(found.outcome)}")
    taken = await jobs.pieces(found)
    outputs = [piece_form(piece) for piece in taken.pieces]
    if taken.ended:
        outputs.append(speech_output(found, url_of(request)))
    return {"status": state, "stream": [{"output": output} for output in outputs]}


@router.post("/cancel/{job_id}")
async def cancel(request: Request, job_id: str) -> dict[str, Any]:
    """End a job that is not ended; one that is keeps its end."""
    ref = _asked(request, "cancel", job_id)
    try:
        return _brief(await services_of(request).jobs.cancel(ref))
    except JobNotFound:
        call = await stored_call(request, ref)
        return {"id": call["id"], "status": call["status"]}


@router.post("/retry/{job_id}")
async def retry(request: Request, job_id: str) -> dict[str, Any]:
    """Queue a job that is FAILED or TIMED_OUT again, under its id."""
    ref, jobs = _asked(request, "retry", job_id), services_of(request).jobs
    if await _job(request, ref) is None:
        call = await stored_call(request, ref)
        raise Conflict(f"job {ref.job_id} is {call['status']}: only one that is FAILED or TIMED_OUT can be retried")
    queued = await jobs.retry(ref)
    jobs.tell(queued.marker)
    return _brief(queued)


@router.post("/purge-queue")
async def purge_queue(request: Request) -> dict[str, Any]:
    """Cancel all jobs that wait; what is being spoken goes on."""
    logs.event("received", dialect="runpod", endpoint="purge-queue")
    removed = await services_of(request).jobs.purge(tenant_of(request))
    return {"removed": removed, "status": "completed"}


@router.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Counts of jobs since the Jobs replicas started, as their heartbeats say; what waits, as this ingress sees it; and
    how each model is."""
    logs.event("received", dialect="runpod", endpoint="health")
    beats = await _beats(services_of(request))
    running = sum(beat["running"] for beat in beats)
    return {
        "jobs": {
            "completed": sum(beat["completed"] for beat in beats),
            "failed": sum(beat["failed"] for beat in beats),
            "inProgress": running,
            "inQueue": max(0, await services_of(request).jobs.unended() - running),
            "retried": sum(beat["retried"] for beat in beats),
        },
        "workers": {
            "idle": sum(beat["running"] == 0 for beat in beats),
            "running": sum(beat["running"] > 0 for beat in beats),
        },
        "models": await _models(services_of(request)),
    }


async def _models(services: Services) -> dict[str, Any]:
    """State of each model; for one that has replicas, what one of them says of itself."""
    statuses = await services.cluster.statuses()

    async def described(name: str) -> dict[str, Any]:
        status = statuses.get(name, PartStatus("starting"))
        answer: dict[str, Any] = asdict(status)
        if status.replicas:
            try:
                answer["replica"] = dict(await services.cluster.health(name))
            except Unavailable as error:
                answer["message"] = error.message
        return answer

    names = [model.name for model in services.catalog.models]
    return dict(zip(names, await asyncio.gather(*map(described, names)), strict=True))


async def _beats(services: Services) -> list[dict[str, Any]]:
    """What the live Jobs replicas last wrote of themselves, read side by side. One lives whose beat changes."""
    now, store, liveness = datetime.now(UTC), services.store, services.liveness
    page = await asyncio.to_thread(store.list, keys.heartbeat())
    live = [
        each.key for each in page.items if not liveness.is_dead(each.key, each.etag) and now - each.last_modified < OLD
    ]

    async def beat(key: str) -> dict[str, Any] | None:
        with suppress(ObjectNotFound):  # its replica retires
            return dict(json.loads((await asyncio.to_thread(store.get, key)).body))
        return None

    found = await asyncio.gather(*map(beat, live))
    return [each for each in found if each is not None]


def _received(request: Request, body: RunBody, ttl: str | None, key: str | None) -> tuple[str, JobPolicy]:
    """Which of the worker's calls it is, and what a job of it keeps to."""
    if key is not None:
        check_key(key)
    endpoint = worker.endpoint_of(body.input)
    logs.event("received", dialect="runpod", endpoint=endpoint)
    logs.shape("payload", body.input)
    policy = runpod_policy(body.policy, body.webhook, body.s3Config, ttl, services_of(request).job_defaults)
    if endpoint != "tts" and policy.webhook is not None:
        raise InvalidPolicy(f"webhook: input.endpoint {endpoint!r} is answered at once and calls none: leave it out")
    return endpoint, policy


async def _submitted(
    request: Request, response: Response, body: RunBody, policy: JobPolicy, key: str | None
) -> Submitted:
    speech = worker.parse(worker.SpeechInput, body.input)
    by_url = speech.local_voice is not None and "://" in speech.local_voice
    order = JobOrder(
        text=speech.text,
        text_field="input.text",
        model=speech.model,
        voice=speech.local_voice if by_url else speech.voice_name,
        voice_field="input.local_voice",
        parameters=speech.parameters,
        text_options=speech.text_options("input."),
        policy=policy,
        dialect="runpod",
        cache=speech.cache,
        voice_urls=True,
        worker_output=True,
    )
    job = await submit(request, order, body, key, speech)
    if job.replayed:
        response.headers.update(REPLAYED)
    return job


def _asked(request: Request, endpoint: str, job_id: str) -> JobRef:
    logs.event("received", dialect="runpod", endpoint=endpoint, job_id=job_id[:64])
    return job_ref(tenant_of(request), job_id)


async def _job(request: Request, ref: JobRef) -> JobStatus | None:
    """None: no job has this id, but the answer of a call may."""
    try:
        found = await services_of(request).jobs.status(ref)
    except JobNotFound:
        return None
    logs.event("answered_from_store", job_id=ref.job_id, state=found.state)
    return found


async def _form(request: Request, status: JobStatus) -> dict[str, Any]:
    return runpod_form(status, url_of(request), await services_of(request).jobs.position(status))


def _brief(status: JobStatus) -> dict[str, Any]:
    return {"id": status.request.job_id, "status": RUNPOD_STATES[status.state]}
