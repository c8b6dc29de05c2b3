"""A store that counts what it is asked, and the real job code on it in one process: what `bench.store_requests` drives.

Each of the store's methods is one request of S3. The store has conditional writes.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serve_app import keys
from serve_app.domain import BUILTIN, SAMPLE_RATE_HZ, Speech, SpeechRequest, SpokenUnit, Unit, VoiceRef
from serve_app.job_client import JobClient
from serve_app.job_runner import JobRunner, RunnerSettings
from serve_app.job_webhooks import Webhooks, WebhookSettings
from serve_app.jobs import JobRef, JobRequest, JobStore
from serve_app.storage import MemoryStore, ObjectInfo, Page, StoredObject, UrlSigner
from serve_app.unit_speech import Progress

__all__ = ["COLLECT_S", "DAY_S", "HEARTBEAT_S", "SWEEP_S", "UNIT_S", "WATCH_S", "Bench", "CountingStore"]


HEARTBEAT_S, SWEEP_S, COLLECT_S, WATCH_S = 2.0, 3.0, 60.0, 1.0
"""Defaults of JobsSettings."""
DAY_S = 86_400
UNIT_S = 10
MADE_BY = "bench"


@dataclass
class CountingStore:
    """An ObjectStore and ConditionalStore that counts what it is asked."""

    inner: MemoryStore = field(default_factory=lambda: MemoryStore(UrlSigner(b"bench")))
    counts: Counter[str] = field(default_factory=Counter)

    def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        self.counts["PUT"] += 1
        return self.inner.put(key, body, content_type=content_type)

    def put_new(self, key: str, body: bytes, *, content_type: str) -> bool:
        self.counts["PUT"] += 1
        return self.inner.put_new(key, body, content_type=content_type)

    def get(self, key: str) -> StoredObject:
        self.counts["GET"] += 1
        return self.inner.get(key)

    def head(self, key: str) -> ObjectInfo:
        self.counts["HEAD"] += 1
        return self.inner.head(key)

    def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        self.counts["LIST"] += 1
        return self.inner.list(prefix, after=after, limit=limit)

    def delete(self, key: str) -> None:
        self.counts["DELETE"] += 1
        self.inner.delete(key)

    def url(self, key: str, *, expires_s: int, filename: str) -> str:
        return self.inner.url(key, expires_s=expires_s, filename=filename)

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """What is asked in the block; filled at its end."""
        before, found = self.counts.copy(), Counter[str]()
        yield found
        found.update(self.counts - before)


class NoRunners:
    """The client's way to the replicas, cut."""

    async def start(self, ref: JobRef) -> None:
        pass

    async def run(self, ref: JobRef) -> None:
        pass


class Silent:
    """Takes each webhook."""

    def send(self, url: str, body: bytes, *, message_id: str, timestamp: int) -> None:
        pass


class Bench:
    """Client and runners of one store. `now`: the wall clock, moved by hand."""

    def __init__(self) -> None:
        self.store = CountingStore()
        self.now = 1_800_000_000.0
        for shard in keys.SHARDS:  # no version before this one has left anything
            note = b'{"schema_version": 1, "after": "", "begins_at": 0, "named": true, "done": true}'
            self.store.inner.put(keys.scanned(shard), note, content_type="application/json")
            self.store.inner.put(keys.named(shard), b"", content_type="application/json")
        self.client = JobClient(self.store, NoRunners(), exclusive=True, wall_clock=lambda: self.now)
        self._number = 0

    def runner(self, name: str = "a") -> JobRunner:
        jobs = JobStore(self.store, exclusive=True, wall_clock=lambda: self.now)
        webhooks = Webhooks(self.store, jobs, Silent(), lambda _: {}, WebhookSettings())
        settings = RunnerSettings(name, 1000, 3, HEARTBEAT_S, 10.0, SWEEP_S, WATCH_S, COLLECT_S)
        return JobRunner(self.store, speak, settings, wall_clock=lambda: self.now, exclusive=True, webhooks=webhooks)

    def request(self, audio_s: float = 10.0, **more: Any) -> JobRequest:
        self._number += 1
        self.now += 0.01
        job_id = f"{int(1000 * self.now):012x}"
        job_id = f"{job_id[:8]}-{job_id[8:]}-7000-8000-{self._number:012x}"
        voice = VoiceRef("heart", BUILTIN)
        speech = SpeechRequest(
            f"Text {self._number}.", "preview", voice, 1.0, 1, "bench", job_id=job_id, model_version=MADE_BY
        )
        return JobRequest(
            job_id=job_id, accepted_at=self.now, dialect="native", speech=speech, audio_s=audio_s, ttl_s=DAY_S, **more
        )


async def speak(request: SpeechRequest, progress: Progress) -> Speech:
    """As many units as the seed says, 10 s each; each ends before five seconds have passed."""
    units = [
        Unit(index, request.text, request.voice, 1.0, index, 100, request.request_id, request.job_id)
        for index in range(request.seed)
    ]
    await progress.planned(units)
    silence = np.zeros(UNIT_S * SAMPLE_RATE_HZ, np.float32)
    for unit in units:
        await progress.spoken(unit, SpokenUnit(silence, MADE_BY))
    return Speech(silence, request.model, request.seed, draft=True, units=len(units), made_by=MADE_BY)
