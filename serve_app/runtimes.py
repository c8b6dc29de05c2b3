"""What the replicas of each model say that they run on: one small record a model, written when one of them is warm.

    replica, warm -> publish -> runtimes/{model}.v1.json -> made_by -> whoever accepts a request or resumes a job

Methods block on the store: async callers run them in a thread. Knows nothing of engines, replicas or jobs.
"""

import json
import time
from collections.abc import Callable

from serve_app import keys, logs
from serve_app.errors import ObjectCorrupt, ObjectNotFound, StorageUnreachable
from serve_app.patience import PATIENCE_S
from serve_app.storage import ObjectStore

__all__ = ["Runtimes"]

CACHED_S = 5.0


class Runtimes:
    """The published runtimes, each read from the store at most once in 5 s of `clock`. Raises StorageError."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sleep = sleep
        self._store = store
        self._clock = clock
        self._seen: dict[str, tuple[float, str | None]] = {}

    def publish(self, model: str, made_by: str) -> None:
        """Say that `model` is spoken by `made_by` from now on. A store that does not answer is waited for, five minutes
        at most: what was loaded and warmed is not to be loaded again for that."""
        body = json.dumps({"schema_version": 1, "model": model, "made_by": made_by}).encode()
        for pause_s in PATIENCE_S:
            try:
                self._write(model, body)
                break
            except StorageUnreachable as error:
                logs.event("waits", code=error.code, reason=error.message, pause_s=pause_s)
                self._sleep(pause_s)
        else:
            self._write(model, body)
        self._seen[model] = (self._clock(), made_by)

    def made_by(self, model: str) -> str | None:
        """What `model` is spoken by, as published at most 5 s ago; None where nothing was published."""
        now = self._clock()
        seen = self._seen.get(model)
        if seen is None or now - seen[0] >= CACHED_S:
            seen = self._seen[model] = (now, self._read(model))
        return seen[1]

    def _write(self, model: str, body: bytes) -> None:
        self._store.put(keys.runtime(model), body, content_type="application/json")

    def _read(self, model: str) -> str | None:
        key = keys.runtime(model)
        try:
            body = self._store.get(key).body
        except ObjectNotFound:
            return None
        try:
            return str(json.loads(body)["made_by"])
        except (ValueError, KeyError, TypeError) as error:
            raise ObjectCorrupt(f"{key} is not a record of a runtime: delete it and start a replica anew") from error
