"""Routes of our own: health, readiness, and the store's files where the ingress serves them."""

import asyncio
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from serve_app import __version__, logs
from serve_app.api.services import PartState, services_of
from serve_app.errors import NotFound, UrlRefused

__all__ = ["router"]

router = APIRouter(tags=["service"])

UNREADY: tuple[PartState, ...] = ("starting", "failed")


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """This ingress answers."""
    return {"status": "ok", "version": __version__}


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """200 once every model is loaded and warmed; until then 503 with what is missing."""
    statuses = await services_of(request).cluster.statuses()
    waiting = {name: part.message or part.state for name, part in statuses.items() if part.state in UNREADY}
    if waiting:
        return JSONResponse({"status": "not_ready", "waiting_for": waiting}, 503, {"Retry-After": "1"})
    return JSONResponse({"status": "ready", "models": [m.name for m in services_of(request).catalog.models]})


@router.get("/files/{key:path}", response_class=Response)
async def files(request: Request, key: str, expires: str = "", filename: str = "", signature: str = "") -> Response:
    """Serves a file of the directory store to whoever holds an unexpired signed URL."""
    services = services_of(request)
    if services.signer is None:
        raise NotFound("/files is not served here: this store hands out its own signed URLs")
    if not signature:
        raise UrlRefused("signature is missing: use the URL as the service gave it, with its query")
    services.signer.verify(key, expires, filename, signature)
    stored = await asyncio.to_thread(services.store.get, key)
    logs.event("answered_from_store", key=key, size_bytes=len(stored.body))
    headers: dict[str, Any] = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(filename)}"}
    return Response(stored.body, media_type=stored.info.content_type, headers=headers)
