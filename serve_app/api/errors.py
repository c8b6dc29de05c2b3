"""Errors become HTTP here, once, by type; routes hold no `try`.

The same four fields (type, code, message, request_id) in the envelope of the dialect that was spoken. What is
not a ServiceError is logged in full and answered opaquely with the request id.
"""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve_app import logs
from serve_app.errors import InvalidRequest, ServiceError

__all__ = ["add_error_handlers", "error_response", "request_id_of"]

RUNPOD_PATHS = ("/run", "/runsync", "/status", "/cancel", "/retry", "/stream", "/purge-queue", "/health", "/v2/")


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def request_id_of(request: Request) -> str:
    value: str = request.state.request_id
    return value


def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    if error.status >= 500:
        logs.failure("request_failed", error, code=error.code)
    else:
        logs.event("refused", code=error.code, status=error.status)
    return error_response(request, error)


def error_response(request: Request, error: ServiceError) -> JSONResponse:
    """`error` in the envelope of the dialect of the request's path."""
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    return _answer(request, error.status, error.type, error.code, error.message, headers)


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = "; ".join(_problem(item) for item in error.errors())
    logs.event("refused", code=InvalidRequest.code, status=400)
    return _answer(request, 400, InvalidRequest.type, InvalidRequest.code, problems)


def _problem(item: Mapping[str, object]) -> str:
    place = [str(part) for part in _sequence(item.get("loc")) if part not in ("body", "query", "path")]
    given = item.get("input")
    value = f" (got {given!r:.80})" if isinstance(given, str | int | float | bool) else ""
    return f"{'.'.join(place) or 'body'}: {item.get('msg')}{value}"


def _sequence(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, tuple | list) else ()


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    message = f"{request.method} {request.url.path}: {error.detail}. GET /docs lists what is served."
    code = phrase.lower().replace(" ", "_")
    return _answer(request, error.status_code, InvalidRequest.type, code, message, dict(error.headers or {}))


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    logs.failure("request_failed", error, request_id=request_id_of(request), code=ServiceError.code)
    return _answer(
        request, 500, ServiceError.type, ServiceError.code, "unexpected error: quote the request id to the operator"
    )


def _answer(
    request: Request, status: int, type_: str, code: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    message = message.encode(errors="backslashreplace").decode()  # it may quote half a character that was sent
    fields = {"type": type_, "code": code, "message": message, "request_id": request_id_of(request)}
    body: dict[str, object] = {"error": fields}
    if request.url.path.startswith(RUNPOD_PATHS) and request.url.path != "/healthz":
        body = {"error": message, **fields}  # its SDK reads `error` as a string
    return JSONResponse(body, status, dict(headers or {}))
