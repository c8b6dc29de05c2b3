"""Structured logs: one JSON object a line on stderr, an event name plus fields.

Knows nothing of Ray: Ray forwards a replica's stderr to the driver's terminal and keeps it in the
session's log folder. Events in the life of a request, in order:

    received -> accepted -> planned -> unit_started -> unit_done -> stored | answered_from_store

so `grep <request_id or job_id>` tells whether a call synthesised anything. Payload contents are never
logged; level DEBUG adds their shapes.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

__all__ = ["JsonFormatter", "bind", "configure", "event", "failure", "shape"]

_logger = logging.getLogger("serve_app")
_bound: ContextVar[dict[str, object]] = ContextVar("serve_app_log_fields", default={})  # noqa: B039 - never mutated


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; fields come from `extra={"fields": ...}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure(level: str = "INFO") -> None:
    """Send this process's events to stderr as JSON. Called by each deployment when a replica starts."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    _logger.handlers[:] = [handler]
    _logger.propagate = False
    _logger.setLevel(level)


@contextmanager
def bind(**fields: object) -> Iterator[None]:
    """Add `fields` (request_id, job_id) to every event logged inside the block, in this task only."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def event(name: str, **fields: object) -> None:
    """Log one step at INFO. Fields that are None are left out."""
    _log(logging.INFO, name, fields)


def failure(name: str, error: BaseException, **fields: object) -> None:
    """Log an unexpected error at ERROR with its traceback."""
    _log(logging.ERROR, name, fields, error)


def shape(name: str, payload: object) -> None:
    """Log, at DEBUG, what a payload looks like: keys, types and lengths, never contents."""
    if _logger.isEnabledFor(logging.DEBUG):
        _log(logging.DEBUG, name, {"shape": _shape_of(payload)})


def _log(level: int, name: str, fields: dict[str, object], error: BaseException | None = None) -> None:
    merged = {key: value for key, value in {**_bound.get(), **fields}.items() if value is not None}
    _logger.log(level, name, extra={"fields": merged}, exc_info=error)


def _shape_of(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _shape_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [f"{len(value)} items", *map(_shape_of, value[:1])]
    if isinstance(value, str | bytes):
        return f"{type(value).__name__}[{len(value)}]"
    return type(value).__name__
