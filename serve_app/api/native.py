"""Routes of our own: health, readiness, and the store's files where the ingress serves them."""

import asyncio
import re
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from serve_app import __version__, logs
from serve_app.api.services import PartState, services_of
from serve_app.errors import NotFound, UrlRefused

__all__ = ["router"]

router = APIRouter(tags=["service"])

RANGE = re.compile(r"bytes=(?P<first>[0-9]{1,18})?-(?P<last>(?(first)[0-9]{0,18}|[0-9]{1,18}))", re.IGNORECASE)
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
@router.head("/files/{key:path}", response_class=Response, include_in_schema=False)
async def files(request: Request, key: str, expires: str = "", filename: str = "", signature: str = "") -> Response:
    """Serves a file of the directory store to whoever holds an unexpired signed URL, or one range of its bytes."""
    services = services_of(request)
    if services.signer is None:
        raise NotFound("/files is not served here: this store hands out its own signed URLs")
    if not signature:
        raise UrlRefused("signature is missing: use the URL as the service gave it, with its query")
    services.signer.verify(key, expires, filename, signature)
    if is_head := request.method == "HEAD":
        info, body = await asyncio.to_thread(services.store.head, key), b""
    else:
        stored = await asyncio.to_thread(services.store.get, key)
        info, body = stored.info, stored.body
    etag = f'"{info.etag}"'
    part = None if is_head else _range(request.headers, info.size_bytes, etag)
    begin, end = part or (0, info.size_bytes)
    logs.event("answered_from_store", key=key, size_bytes=len(body[begin:end]))
    headers: dict[str, Any] = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(filename)}",
        "Content-Length": str(end - begin),
        "Accept-Ranges": "bytes",
        "ETag": etag,
    }
    if part:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{info.size_bytes}"
    return Response(body[begin:end], 206 if part else 200, headers, info.content_type)


def _range(headers: Headers, size_bytes: int, etag: str) -> tuple[int, int] | None:
    """Begin and end of the one range that is asked for; None: all of it, also for several ranges or what is no range.

    Raises HTTPException, 416, where no byte lies there. RFC 9110, 14.
    """
    found = RANGE.fullmatch(headers.get("range", ""))
    if found is None or headers.get("if-range", etag) != etag:
        return None
    first, last = found["first"], found["last"]
    if first and last and int(last) < int(first):
        return None
    begin = int(first) if first else max(size_bytes - int(last), 0)
    end = min(int(last) + 1, size_bytes) if first and last else size_bytes
    if begin >= end:
        raise HTTPException(
            416, f"Range {found[0]!r} has no byte of {size_bytes}", {"Content-Range": f"bytes */{size_bytes}"}
        )
    return begin, end
