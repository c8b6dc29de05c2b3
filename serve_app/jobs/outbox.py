"""Webhooks that are still to be sent: an entry is written when a job ends, and goes when it was sent or given up.

    webhooks/{job_id}.{tenant}      body: how often it was tried

Any Jobs replica sends what lies here, so a webhook survives the replica that ended the job. It may arrive twice: the
receiver tells by its id.
"""

import json
import re
from collections.abc import Sequence

from serve_app import keys
from serve_app.errors import ObjectNotFound
from serve_app.jobs.records import TENANT, UUID, JobRef
from serve_app.storage import ObjectStore

__all__ = ["Outbox"]

LETTER = re.compile(rf"{UUID}\.{TENANT}")


class Outbox:
    """Blocks on the store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, ref: JobRef, attempts: int = 0) -> None:
        body = json.dumps({"schema_version": 1, "attempts": attempts}).encode()
        self._store.put(_key(ref), body, content_type="application/json")

    def attempts(self, ref: JobRef) -> int | None:
        """How often it was tried; None: it is sent or given up."""
        try:
            return int(json.loads(self._store.get(_key(ref)).body)["attempts"])
        except ObjectNotFound:
            return None

    def remove(self, ref: JobRef) -> None:
        self._store.delete(_key(ref))

    def letters(self, *, limit: int) -> Sequence[JobRef]:
        """Jobs whose webhook is to be sent, at most `limit`."""
        prefix = keys.outbox()
        names = (info.key.removeprefix(prefix) for info in self._store.list(prefix, limit=limit).items)
        found = (LETTER.fullmatch(name) for name in names)
        return [JobRef(tenant=match["tenant"], job_id=match["job_id"]) for match in found if match]


def _key(ref: JobRef) -> str:
    return keys.outbox(f"{ref.job_id}.{ref.tenant}")
