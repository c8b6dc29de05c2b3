"""What comes through /run and is no job: answered at once, and kept under an id as long as a job's result would be."""

import asyncio
import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fastapi import Request
from uuid_utils import uuid7

from serve_app import keys, logs
from serve_app.api import worker
from serve_app.api.job_forms import RUNPOD_STATES
from serve_app.api.services import services_of, tenant_of
from serve_app.errors import JobNotFound, ObjectNotFound
from serve_app.jobs import JobLists, JobRef, job_expired

__all__ = ["answer_call", "keep_call", "shorten_call", "stored_call"]


async def answer_call(request: Request, call_id: str, endpoint: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """In the form of a job that has completed."""
    began = time.monotonic()
    output = await worker.CALLS[endpoint](request, payload)
    took_ms = round(1000 * (time.monotonic() - began))
    completed = RUNPOD_STATES["completed"]
    return {"id": call_id, "status": completed, "output": output, "delayTime": 0, "executionTime": took_ms}


async def keep_call(request: Request, endpoint: str, payload: Mapping[str, Any], retention_s: float) -> dict[str, Any]:
    """Answer with an id by which `/status` gives the output.

    An upload is done now and its answer kept. What only reads is kept as the question, and answered when it is
    asked for, so that no URL is handed out after it has expired.
    """
    call_id, tenant = str(uuid7()), tenant_of(request)
    answer = await answer_call(request, call_id, endpoint, payload)
    if endpoint == "upload":
        answer["output"]["voice"].pop("preview_url", None)  # it ends sooner than the answer
    kept = {"answer": answer} if endpoint == "upload" else {"endpoint": endpoint, "payload": dict(payload)}
    await _keep(
        request, JobRef(tenant=tenant, job_id=call_id), {"schema_version": 1, "tenant": tenant, **kept}, retention_s
    )
    return {"id": call_id, "status": RUNPOD_STATES["queued"]}


async def stored_call(request: Request, ref: JobRef) -> dict[str, Any]:
    """The answer of a kept call. Raises JobNotFound, JobExpired."""
    try:
        stored = await asyncio.to_thread(services_of(request).store.get, keys.call(ref.tenant, ref.job_id))
    except ObjectNotFound as error:
        raise JobNotFound(f"job {ref.job_id} does not exist: check the id that /run returned") from error
    record = json.loads(stored.body)
    if record.get("expires_at", math.inf) <= services_of(request).wall_clock():
        raise job_expired(ref)
    logs.event("answered_from_store", job_id=ref.job_id, state="completed")
    answer: dict[str, Any] = record.get("answer") or await answer_call(
        request, ref.job_id, record["endpoint"], record["payload"]
    )
    return answer


async def shorten_call(request: Request, ref: JobRef, retention_s: float) -> None:
    """Have it removed that many seconds from now, if that is sooner."""
    with suppress(ObjectNotFound):  # removed meanwhile
        stored = await asyncio.to_thread(services_of(request).store.get, keys.call(ref.tenant, ref.job_id))
        record = json.loads(stored.body)
        if services_of(request).wall_clock() + retention_s < record.get("expires_at", math.inf):
            await _keep(request, ref, record, retention_s)


async def _keep(request: Request, ref: JobRef, record: Mapping[str, Any], retention_s: float) -> None:
    services = services_of(request)
    expires_at = services.wall_clock() + retention_s
    body = json.dumps({**record, "expires_at": expires_at}).encode()
    # First, so that nothing is kept that nobody removes.
    await asyncio.to_thread(JobLists(services.store).expire, ref, expires_at)
    key = keys.call(ref.tenant, ref.job_id)
    await asyncio.to_thread(services.store.put, key, body, content_type="application/json")
