"""Webhooks that are still to be sent: an entry is written when a job ends, and goes when it was sent or given up.

    webhooks/{shard}/{job_id}.{tenant}.{generation}      body: how often it was tried

Those of a version that had no shards here lie directly under `webhooks/`; the same listing has them.

Any Jobs replica sends what lies here, so a webhook survives the replica that ended the job. It may arrive twice: the
receiver tells by its id.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app import keys
from serve_app.errors import ObjectNotFound
from serve_app.jobs.records import TENANT, UUID, JobRef
from serve_app.storage import ObjectStore

__all__ = ["Letter", "Outbox"]

LETTER = re.compile(rf"(?:(?P<shard>[0-9a-f])/)?{UUID}\.{TENANT}\.(?P<generation>\d{{1,4}})")


@dataclass(frozen=True, slots=True)
class Letter:
    """The webhook of a job's end; one that is retried has an end, and a webhook, of each generation. `sharded`: not of
    an older version."""

    ref: JobRef
    generation: int
    sharded: bool = True

    @property
    def key(self) -> str:
        entry = f"{self.ref.job_id}.{self.ref.tenant}.{self.generation}"
        return keys.outbox(self.ref.job_id[-1], entry) if self.sharded else keys.outbox() + entry


class Outbox:
    """Blocks on the store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, letter: Letter, attempts: int = 0) -> None:
        body = json.dumps({"schema_version": 1, "attempts": attempts}).encode()
        self._store.put(letter.key, body, content_type="application/json")

    def attempts(self, letter: Letter) -> int | None:
        """How often it was tried; None: it is sent or given up."""
        try:
            return int(json.loads(self._store.get(letter.key).body)["attempts"])
        except ObjectNotFound:
            return None

    def remove(self, letter: Letter) -> None:
        self._store.delete(letter.key)

    def page(self, *, limit: int, after: str = "") -> tuple[Sequence[Letter], str | None]:
        """What is to be sent, `limit` at most, behind the key `after`; and `after` for the rest, None at its end."""
        prefix = keys.outbox()
        page = self._store.list(prefix, after=after, limit=limit)
        found = (LETTER.fullmatch(info.key.removeprefix(prefix)) for info in page.items)
        letters = [
            Letter(
                JobRef(tenant=match["tenant"], job_id=match["job_id"]),
                int(match["generation"]),
                match["shard"] is not None,
            )
            for match in found
            if match
        ]
        return letters, page.next_after
