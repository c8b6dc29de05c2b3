"""Webhooks of jobs whose results are past their time: they are sent all the same, and the job stays until then."""

import asyncio
import json

import pytest

from serve_app import keys
from serve_app.errors import JobExpired
from serve_app.job_webhooks import Webhooks, WebhookSettings
from serve_app.jobs import Collector, Outbox
from serve_app.jobs.collector import GRACE_S, UNTOLD_S
from serve_app.storage import MemoryStore
from tests.support.interleaving import Crash, Crashing
from tests.support.jobs import Clock, job_outcome, job_request, job_store, nothing_older, speak_now, submit

URL = "https://client.example/hook"
KEPT_S = 1.0
"""RunPod's shortest ttl."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return nothing_older(MemoryStore(now=clock.date))


def collect(store: MemoryStore, clock: Clock) -> None:
    for shard in keys.SHARDS:
        Collector(store, clock.wall).collect(shard)


class Sender:
    """Takes what it is given."""

    def __init__(self) -> None:
        self.sent: list[dict] = []

    def send(self, url: str, body: bytes, *, message_id: str, timestamp: int) -> None:
        self.sent.append(json.loads(body))


async def test_an_end_whose_time_is_over_is_told_too(store, clock):
    """A result may be kept for a second, and nobody may have looked for hours."""
    ref = submit(store, retention_s=KEPT_S, webhook=URL)
    speak_now(store, clock, ref, b"RIFF")
    jobs, sender = job_store(store, clock), Sender()
    clock.now = 2 * GRACE_S
    collect(store, clock)
    with pytest.raises(JobExpired):
        jobs.status(ref)
    form = {"id": ref.job_id}
    hooks = Webhooks(store, jobs, sender, lambda _: form, WebhookSettings(3, 10.0), clock.wall, clock=clock)
    await hooks.sweep(lambda _: True)
    await asyncio.gather(*hooks._sending.values())
    assert (sender.sent, Outbox(store).page(limit=10)[0]) == ([form], [])
    clock.now += UNTOLD_S + 1
    collect(store, clock)
    assert jobs.standing(ref).gone


@pytest.mark.parametrize("sent", [True, False])
def test_a_job_is_not_removed_before_its_webhook_is_sent_or_given_up(store, clock, sent):
    """What the webhook tells of would be gone, its audio too."""
    ref = submit(store, retention_s=KEPT_S, webhook=URL)
    outcome = speak_now(store, clock, ref, b"RIFF")
    jobs = job_store(store, clock)
    clock.now = 2 * GRACE_S
    collect(store, clock)
    assert jobs.status(ref, past=True).outcome == outcome
    assert store.get(outcome.audio.key).body == b"RIFF"
    jobs.notified(outcome, sent=sent, attempts=3)
    clock.now += UNTOLD_S + 1
    collect(store, clock)
    assert (jobs.standing(ref).gone, store.list("audio/").items) == (True, [])


def test_a_job_that_nobody_has_settled_yet_waits_an_hour_for_its_webhook(store, clock):
    """Whoever ended it died between its entry for removal and the letter, which is written when that is made good."""
    ref, request = submit(store, retention_s=KEPT_S, webhook=URL), job_request(retention_s=KEPT_S, webhook=URL)
    jobs = job_store(store, clock)
    outcome = jobs.finish(job_outcome("cancelled", expires_at=clock.wall() + KEPT_S))
    with pytest.raises(Crash):
        job_store(Crashing(store, 3), clock).settle(request, outcome)
    assert (len(store.list("expiry/").items), store.list("webhooks/").items) == (1, [])
    clock.now = KEPT_S + 1
    collect(store, clock)
    assert not jobs.standing(ref).gone
    clock.now += GRACE_S + UNTOLD_S
    collect(store, clock)
    assert jobs.standing(ref).gone
