"""Errors become HTTP here, once, by type; routes hold no `try`.

The same four fields (type, code, message, request_id) in the envelope of the dialect that was spoken. What is
not a ServiceError is logged in full and answered opaquely with the request id.
"""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from serve_app import logs
from serve_app.errors import InvalidRequest, NotFound, ServiceError

__all__ = [
    "add_error_handlers",
    "envelope",
    "error_fields",
    "error_response",
    "problem",
    "problems",
    "request_id_of",
    "speaks_elevenlabs",
]

RUNPOD_PATHS = ("/run", "/runsync", "/status", "/cancel", "/retry", "/stream", "/purge-queue", "/health", "/v2/")
ELEVENLABS_PATHS = ("/v1/text-to-speech/", "/v1/voices/")
ELEVENLABS_LISTS = ("/v1/text-to-speech", "/v1/voices", "/v2/voices")
CODES = {
    400: InvalidRequest.code,
    404: NotFound.code,
    405: "method_not_allowed",
    416: "range_not_satisfiable",
}
"""Of what is refused before or beside a ServiceError."""
MOST_PROBLEMS, SHOWN_CHARS = 5, 80
_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = _shown.maxlong = SHOWN_CHARS


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def request_id_of(request: HTTPConnection) -> str:
    value: str = request.state.request_id
    return value


def speaks_elevenlabs(request: HTTPConnection) -> bool:
    """Whether the client is one of ElevenLabs': by the path, or by the header that only they send where a path is not
    theirs alone."""
    path = request.url.path
    if path == "/v1/models":
        return "xi-api-key" in request.headers
    return path in ELEVENLABS_LISTS or path.startswith(ELEVENLABS_PATHS)


def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    if error.status >= 500:
        logs.failure("request_failed", error, code=error.code)
    else:
        logs.event("refused", code=error.code, status=error.status)
    return error_response(request, error)


def error_response(request: HTTPConnection, error: ServiceError) -> JSONResponse:
    """`error` in the envelope of the dialect of the request's path."""
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    return _answer(request, error.status, error.type, error.code, error.message, headers)


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    logs.event("refused", code=InvalidRequest.code, status=400)
    if isinstance(error.body, bytes):
        sent = request.headers.get("content-type", "")[:80]
        message = f"body: it came with the Content-Type {sent!r}: send Content-Type: application/json"
    else:
        message = problems(error.errors())
    return _answer(request, 400, InvalidRequest.type, InvalidRequest.code, message)


def problems(found: Sequence[Mapping[str, Any]], *, within: str = "", allowed: Iterable[str] = ()) -> str:
    """All that pydantic has `found`, as `problem` has each; of very much the first."""
    shown = [problem(each, within=within, allowed=allowed) for each in found[:MOST_PROBLEMS]]
    rest = len(found) - len(shown)
    return "; ".join(shown + ([f"and {rest} more"] if rest else []))


def problem(found: Mapping[str, Any], *, within: str = "", allowed: Iterable[str] = ()) -> str:
    """What pydantic has `found`: the field, what is wrong, what was sent. `within`: the field that all lie in, where
    pydantic was given that alone; `allowed`: the names that it can have."""
    if found["type"] == "json_invalid":
        return f"body: it is not JSON: {found['ctx']['error']} at character {found['loc'][-1]}"
    place = [str(part)[:SHOWN_CHARS] for part in ((within, *found["loc"]) if within else found["loc"][1:])]
    value = "" if found["type"] == "missing" else f" (got {_shown.repr(found.get('input'))})"
    remedy = f": use some of {', '.join(allowed)}" if allowed and found["type"] == "extra_forbidden" else ""
    return f"{'.'.join(place) or 'body'}: {found['msg']}{value}{remedy}"


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status, reason = error.status_code, error.__cause__
    if status == 400 and isinstance(reason, RecursionError):
        message = "body: its JSON is nested too deep: send a flatter one"
    elif status == 400 and isinstance(reason, UnicodeDecodeError):
        message = f"body: its JSON is not UTF-8: {reason}"
    elif status == 400 and isinstance(reason, ValueError):  # what is no JSON came to `_validation_error`
        message = "body: a number in its JSON has too many digits: send one that is used"
    elif status in (404, 405):
        message = f"{request.method} {request.url.path}: {error.detail}. GET /docs lists what is served."
    else:
        message = f"{request.method} {request.url.path}: {error.detail}"
    code = CODES.get(status) or HTTPStatus(status).phrase.lower().replace(" ", "_")
    return _answer(request, status, InvalidRequest.type, code, message, dict(error.headers or {}))


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    logs.failure("request_failed", error, request_id=request_id_of(request), code=ServiceError.code)
    return _answer(
        request, 500, ServiceError.type, ServiceError.code, "unexpected error: quote the request id to the operator"
    )


def error_fields(request: HTTPConnection, error: ServiceError) -> dict[str, str]:
    """The four fields, in no envelope."""
    return _fields(request, error.type, error.code, error.message)


def _fields(request: HTTPConnection, type_: str, code: str, message: str) -> dict[str, str]:
    message = message.encode(errors="backslashreplace").decode()  # it may quote half a character that was sent
    return {"type": type_, "code": code, "message": message, "request_id": request_id_of(request)}


def _answer(
    request: HTTPConnection, status: int, type_: str, code: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = envelope(request, _fields(request, type_, code, message))
    return JSONResponse(body, status, dict(headers or {}))


def envelope(request: HTTPConnection, fields: Mapping[str, str]) -> dict[str, object]:
    """The four fields as the dialect of `request` has them. The OpenAPI document is made of this, too."""
    path = request.url.path
    if speaks_elevenlabs(request):
        return {"detail": {"status": fields["code"], **fields}}
    if path.startswith(RUNPOD_PATHS) and path != "/healthz":
        return {"error": fields["message"], **fields}  # its SDK reads `error` as a string
    return {"error": fields}
