"""RunPod's job API, bare and under `/v2/{endpoint_id}`: `/run`, `/runsync`, `/status/{id}`, `/health`.

Source of the wire forms: RunPod's serverless endpoint reference and its Python SDK. `input` is the old worker's
payload (api/worker.py). `/run` answers when the job is durable; `/status` reads the store and nothing else.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict
from uuid_utils import uuid7

from serve_app import keys, logs
from serve_app.api import worker
from serve_app.api.errors import request_id_of
from serve_app.api.services import PartStatus, Services, services_of, tenant_of
from serve_app.domain import JobState
from serve_app.errors import InvalidRequest, JobNotFound, ObjectNotFound, Unavailable
from serve_app.job_client import job_ref
from serve_app.jobs import JobRequest, JobStatus

__all__ = ["router"]

router = APIRouter(tags=["RunPod"])

STATES: Mapping[JobState, str] = {
    "queued": "IN_QUEUE",
    "in_progress": "IN_PROGRESS",
    "completed": "COMPLETED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
    "expired": "TIMED_OUT",
}
DEFAULT_WAIT_MS = 90_000
NOT_SERVED = ("webhook", "policy", "s3Config")
FRESH = timedelta(seconds=60)


class RunBody(BaseModel):
    """Body of /run and /runsync."""

    model_config = ConfigDict(extra="forbid")

    input: dict[str, Any]
    webhook: str | None = None
    policy: dict[str, Any] | None = None
    s3Config: dict[str, Any] | None = None  # noqa: N815 - RunPod's name


@router.post("/run")
async def run(request: Request, body: RunBody) -> dict[str, Any]:
    """Accept a job; it is durable when this answers."""
    endpoint = _received(body)
    if endpoint != "tts":
        return await _keep_call(request, endpoint, body.input)
    accepted = await _accept(request, body.input)
    jobs = services_of(request).jobs
    ref = await jobs.submit(accepted)
    await jobs.start(ref)
    return {"id": ref.job_id, "status": STATES["queued"]}


@router.post("/runsync")
async def runsync(
    request: Request, body: RunBody, wait: Annotated[int, Query(ge=1000, le=300_000)] = DEFAULT_WAIT_MS
) -> dict[str, Any]:
    """Accept a job and wait up to `wait` ms for its end; after that, `/status/{id}` has it."""
    endpoint = _received(body)
    if endpoint != "tts":
        return await _call(request, str(uuid7()), endpoint, body.input)
    accepted = await _accept(request, body.input)
    services = services_of(request)
    ref = await services.jobs.submit(accepted)
    status = await services.jobs.run(ref, min(wait / 1000, services.limits.max_wait_s))
    return _answer(request, status)


@router.get("/status/{job_id}")
@router.post("/status/{job_id}")
async def status(request: Request, job_id: str) -> dict[str, Any]:
    """The state of a job, from the store."""
    logs.event("received", dialect="runpod", endpoint="status", job_id=job_id[:64])
    services = services_of(request)
    ref = job_ref(tenant_of(request), job_id)
    try:
        found = await services.jobs.status(ref)
    except JobNotFound:
        return await _stored_call(request, job_id)
    logs.event("answered_from_store", job_id=job_id, state=found.state)
    return _answer(request, found)


@router.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Counts of jobs since the Jobs replicas started, as their heartbeats say; and how each model is."""
    logs.event("received", dialect="runpod", endpoint="health")
    store = services_of(request).store
    page = await asyncio.to_thread(store.list, keys.heartbeat())
    fresh = [info.key for info in page.items if datetime.now(UTC) - info.last_modified < FRESH]
    beats = [json.loads((await asyncio.to_thread(store.get, key)).body) for key in fresh]
    running = sum(beat["running"] for beat in beats)
    return {
        "jobs": {
            "completed": sum(beat["completed"] for beat in beats),
            "failed": sum(beat["failed"] for beat in beats),
            "inProgress": running,
            "inQueue": max(0, max((beat["pending"] for beat in beats), default=0) - running),
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


def _received(body: RunBody) -> str:
    endpoint = worker.endpoint_of(body.input)
    logs.event("received", dialect="runpod", endpoint=endpoint)
    logs.shape("payload", body.input)
    for field in NOT_SERVED:
        if getattr(body, field) is not None:
            raise InvalidRequest(f"{field} is not served by this version: leave it out")
    return endpoint


async def _accept(request: Request, payload: Mapping[str, Any]) -> JobRequest:
    body = worker.parse(worker.SpeechInput, payload)
    job_id = str(uuid7())
    acceptance = services_of(request).acceptance
    if body.local_voice is not None and "://" in body.local_voice:
        acceptance.check(body.text, "input.text", body.model, body.parameters, job=True)  # before anything is stored
        voice: str | None = await worker.imported_voice(request, body.local_voice)
    else:
        voice = body.voice_name
    speech = await acceptance.accept(
        text=body.text,
        text_field="input.text",
        model=body.model,
        voice=voice,
        voice_field="input.local_voice",
        parameters=body.parameters,
        tenant=tenant_of(request),
        request_id=request_id_of(request),
        job_id=job_id,
    )
    return JobRequest(
        tenant=speech.tenant,
        job_id=job_id,
        accepted_at=time.time(),
        dialect="runpod",
        speech=speech,
        worker_output=True,
    )


def _answer(request: Request, status: JobStatus) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": status.request.job_id, "status": STATES[status.state]}
    if status.run is not None:
        answer["delayTime"] = _ms(status.run.started_at - status.request.accepted_at)
    if (outcome := status.outcome) is not None:
        answer["executionTime"] = _ms(outcome.finished_at - outcome.started_at)
        if outcome.state == "completed":
            answer["output"] = worker.speech_output(request, status)
        elif outcome.error is not None:
            request_id = status.request.speech.request_id
            answer |= {"error": outcome.error.message, **outcome.error.model_dump(), "request_id": request_id}
    return answer


async def _call(request: Request, call_id: str, endpoint: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a call that is no job."""
    began = time.monotonic()
    output = await worker.CALLS[endpoint](request, payload)
    took = _ms(time.monotonic() - began)
    return {"id": call_id, "status": STATES["completed"], "output": output, "delayTime": 0, "executionTime": took}


async def _keep_call(request: Request, endpoint: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Answer with an id by which `/status` gives the output.

    An upload is done now and its answer kept. What only reads is kept as the question, and answered when it is
    asked for, so that no URL is handed out after it has expired.
    """
    call_id = str(uuid7())
    answer = await _call(request, call_id, endpoint, payload)
    kept = {"answer": answer} if endpoint == "upload" else {"endpoint": endpoint, "payload": dict(payload)}
    record = json.dumps({"schema_version": 1, "tenant": tenant_of(request), **kept}).encode()
    key = keys.call(tenant_of(request), call_id)
    await asyncio.to_thread(services_of(request).store.put, key, record, content_type="application/json")
    return {"id": call_id, "status": STATES["queued"]}


async def _stored_call(request: Request, call_id: str) -> dict[str, Any]:
    try:
        stored = await asyncio.to_thread(services_of(request).store.get, keys.call(tenant_of(request), call_id))
    except ObjectNotFound as error:
        raise JobNotFound(f"job {call_id} does not exist: check the id that /run returned") from error
    logs.event("answered_from_store", job_id=call_id, state="completed")
    record = json.loads(stored.body)
    answer: dict[str, Any] = record.get("answer") or await _call(
        request, call_id, record["endpoint"], record["payload"]
    )
    return answer


def _ms(seconds: float) -> int:
    return max(0, round(1000 * seconds))
