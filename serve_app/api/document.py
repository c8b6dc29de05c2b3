"""The OpenAPI document, with the errors as they are told: FastAPI would document a form of its own that nobody gets.

What an operation may answer beside its success is documented for all operations alike, in the envelope of the dialect
of its path; the codes are in docs/api.md.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request

from serve_app.api.errors import envelope

__all__ = ["DocumentedApp"]

FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")
FIELDS = {
    "type": "invalid_request_error, rate_limit_error, server_error and the like",
    "code": "the cause, for programs",
    "message": "the field, the value and the remedy, for people",
    "request_id": "what the service's log has of this request",
}
RANGES = {
    "4XX": "The request cannot be met as it is; `message` says what to change",
    "5XX": "The service is at fault, or not ready; with Retry-After where the same request may soon be met",
}


class DocumentedApp(FastAPI):
    """FastAPI, but for the errors in its document."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            _tell_errors(super().openapi())
        document: dict[str, Any] = self.openapi_schema or {}
        return document


def _tell_errors(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in FRAMEWORKS_OWN:
        schemas.pop(name, None)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            name = f"{''.join(operation['tags'][0].split())}Error"
            schemas[name] = _schema(envelope(_at(path), FIELDS))
            told = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
            operation["responses"].pop("422", None)
            operation["responses"] |= {
                status: {"description": what, "content": told} for status, what in RANGES.items()
            }


def _at(path: str) -> Request:
    return Request({"type": "http", "scheme": "http", "path": path, "query_string": b"", "headers": [(b"host", b"_")]})


def _schema(example: object) -> dict[str, Any]:
    """Of an envelope in which each text is the description of what will stand there."""
    if isinstance(example, Mapping):
        properties = {name: _schema(value) for name, value in example.items()}
        return {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "string", "description": example}
