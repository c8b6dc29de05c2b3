"""Jobs in our own form: submit, list, look, follow, cancel, retry. All from the store; no replica is asked.

What an event stream has told is in the ids of its events, so a client that reconnects, to whichever ingress, goes on
where it was.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict, StrictBool

from serve_app import logs
from serve_app.api import examples
from serve_app.api.fields import IdempotencyKey, ModelName, ParameterFields, Text, TextFields, VoiceField, name_of
from serve_app.api.job_forms import event_id, iso_time, native_form, reason_of
from serve_app.api.known import known_query
from serve_app.api.policy import Flag, Retention, Seconds, Url, native_policy
from serve_app.api.services import services_of, tenant_of
from serve_app.api.streaming import LIVE_HEADERS
from serve_app.api.submitting import REPLAYED, JobOrder, submit, url_of
from serve_app.domain import JobState
from serve_app.errors import Conflict, InvalidRequest, ServiceError
from serve_app.job_client import job_ref
from serve_app.jobs import JobRef, JobStatus

__all__ = ["router"]

router = APIRouter(tags=["jobs"], dependencies=[Depends(known_query)])

KEEP_ALIVE_S = 10.0
RECONNECT_MS = 2000
ENTRY = re.compile(r"[0-9a-f]{12}\.[0-9a-f-]{36}")


class JobBody(ParameterFields, TextFields):
    """A job of ours. The fields of its policy are checked in `policy`; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": examples.JOB})

    input: Text
    model: ModelName | None = None
    voice: VoiceField = None
    cache: StrictBool = True
    webhook: Url = None
    low_priority: Flag = None
    execution_timeout_s: Seconds = None
    ttl_s: Seconds = None
    retention_s: Retention = None


@router.post("/v1/jobs", status_code=202)
async def create(
    request: Request, response: Response, body: JobBody, idempotency_key: IdempotencyKey = None
) -> dict[str, Any]:
    """Accept a job; it is durable when this answers."""
    logs.event("received", dialect="native", endpoint="jobs.create")
    logs.shape("payload", body.model_dump())
    services = services_of(request)
    policy = native_policy(
        execution_timeout_s=body.execution_timeout_s,
        ttl_s=body.ttl_s,
        retention_s=body.retention_s,
        low_priority=body.low_priority,
        webhook=body.webhook,
        defaults=services.job_defaults,
    )
    order = JobOrder(
        text=body.input,
        text_field="input",
        model=body.model,
        voice=name_of(body.voice),
        voice_field="voice",
        parameters=body.parameters,
        text_options=body.text_options(),
        policy=policy,
        dialect="native",
        cache=body.cache,
    )
    job = await submit(request, order, body, idempotency_key)
    if job.replayed:
        response.headers.update(REPLAYED)
    if job.is_new:
        services.jobs.tell(job.status.marker)
    return native_form(job.status, url_of(request))  # its place in the queue costs a look at the store


@router.get("/v1/jobs")
async def listed(
    request: Request, state: JobState | None = None, after: str = "", limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> dict[str, Any]:
    """Jobs, the newest first; `next_after` is null at the end, and a page may be empty before it."""
    logs.event("received", dialect="native", endpoint="jobs.list")
    if after and not ENTRY.fullmatch(after):
        raise InvalidRequest(f"after is {after[:60]!r}: send next_after of the page before, or leave it out")
    page = await services_of(request).jobs.page(tenant_of(request), state, after=after, limit=limit)
    logs.event("answered_from_store", jobs=len(page.items))
    data = [
        {"id": job.job_id, "state": job.state, "created_at": iso_time(round(1000 * job.accepted_at))}
        for job in page.items
    ]
    return {"data": data, "next_after": page.next_after}


@router.get("/v1/jobs/{job_id}")
async def get(request: Request, job_id: str) -> dict[str, Any]:
    """All that is known of a job; its URL is made now."""
    status = await services_of(request).jobs.status(_asked(request, "get", job_id))
    logs.event("answered_from_store", job_id=job_id, state=status.state)
    return await _form(request, status)


@router.post("/v1/jobs/{job_id}/cancel")
async def cancel(request: Request, job_id: str) -> dict[str, Any]:
    """End a job that is not ended; one that is keeps its end."""
    return await _form(request, await services_of(request).jobs.cancel(_asked(request, "cancel", job_id)))


@router.post("/v1/jobs/{job_id}/retry")
async def retry(request: Request, job_id: str) -> dict[str, Any]:
    """Queue a job that failed or expired again, under its id."""
    ref, jobs = _asked(request, "retry", job_id), services_of(request).jobs
    status = await jobs.retry(ref)
    jobs.tell(status.marker)
    return await _form(request, status)


@router.get("/v1/jobs/{job_id}/result")
async def result(request: Request, job_id: str) -> dict[str, Any]:
    """The audio of a completed job; 409 with its state for any other."""
    status = await services_of(request).jobs.status(_asked(request, "result", job_id))
    logs.event("answered_from_store", job_id=job_id, state=status.state)
    if status.outcome is None:
        raise Conflict(f"job {job_id} is {status.state}: ask again when it is completed, or follow its events")
    if status.state != "completed":
        raise Conflict(f"job {job_id} is {status.state}: {reason_of(status.outcome)}")
    form = native_form(status, url_of(request))
    return {name: form[name] for name in ("id", "model", "voice", "seed", "draft", "cached", "made_by", "audio")}


@router.get("/v1/jobs/{job_id}/events", response_class=StreamingResponse)
async def events(request: Request, job_id: str, last_event_id: Annotated[str | None, Header()] = None) -> Response:
    """Server-sent events: `progress` whenever something has changed, and `ended`, after which the stream ends."""
    changes = services_of(request).jobs.events(_asked(request, "events", job_id))
    status = await anext(changes)  # an unknown job is a 404 here, before any byte
    if status.outcome is not None and event_id(status) == last_event_id:
        return Response(status_code=204)  # which tells an EventSource not to come again
    lines = _lines(request, changes, status, last_event_id)
    return StreamingResponse(lines, media_type="text/event-stream", headers=LIVE_HEADERS)


async def _lines(
    request: Request, changes: AsyncIterator[JobStatus], status: JobStatus, seen: str | None
) -> AsyncIterator[str]:
    yield f"retry: {RECONNECT_MS}\n\n"
    change: asyncio.Future[JobStatus] | None = None
    try:
        while True:
            if (told := event_id(status)) != seen:
                seen = told
                name = "progress" if status.outcome is None else "ended"
                yield f"id: {told}\nevent: {name}\ndata: {json.dumps(await _form(request, status))}\n\n"
            if status.outcome is not None:
                return
            change = asyncio.ensure_future(anext(changes))
            while not (await asyncio.wait([change], timeout=KEEP_ALIVE_S))[0]:
                yield ": nothing new\n\n"
            status = change.result()
    except ServiceError as error:  # the answer has begun: the client comes again, and is told then
        logs.failure("events_broken_off", error, job_id=status.request.job_id, code=error.code)
    finally:
        if change is not None:
            change.cancel()  # and what it waits for ends with it


def _asked(request: Request, endpoint: str, job_id: str) -> JobRef:
    logs.event("received", dialect="native", endpoint=f"jobs.{endpoint}", job_id=job_id[:64])
    return job_ref(tenant_of(request), job_id)


async def _form(request: Request, status: JobStatus) -> dict[str, Any]:
    return native_form(status, url_of(request), await services_of(request).jobs.position(status))
