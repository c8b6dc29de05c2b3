"""Webhooks that are sent once a job has ended, whoever ended it: a memory store, a sender that records, no sleeping."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve_app import job_webhooks
from serve_app.errors import StorageUnreachable, WebhookFailed
from serve_app.job_webhooks import Webhooks, WebhookSettings
from serve_app.jobs import JobRef, JobStatus, JobStore, Letter, Outbox
from serve_app.storage import MemoryStore
from tests.support.deadline import DEADLINE_S
from tests.support.jobs import Speak, finish, job_store, runner, submit, told

URL = "https://client.example/hook"


class Sender:
    """Fails as often as it is told, then takes what it is given."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.sent: list[tuple[str, dict, str]] = []
        self.tries = 0

    def send(self, url: str, body: bytes, *, message_id: str, timestamp: int) -> None:
        self.tries += 1
        if self.tries <= self.failures:
            raise WebhookFailed("answers 500: look at the receiver")
        self.sent.append((url, json.loads(body), message_id))


def form(status: JobStatus) -> dict:
    return {"id": status.request.job_id, "state": status.state}


def webhooks(store: MemoryStore, sender: Sender, pauses: list[float] | None = None) -> Webhooks:
    async def pause(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)

    return Webhooks(
        store, JobStore(store, wall_clock=lambda: 200.0), sender, form, WebhookSettings(3, 10.0), lambda: 200.0, pause
    )


async def sent(hooks: Webhooks, *, mine: bool = True) -> None:
    await hooks.sweep(lambda ref: mine)
    await asyncio.gather(*hooks._sending.values())


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def ended(store: MemoryStore, number: int = 0xA, **changes: object) -> JobRef:
    ref, r = submit(store, number, webhook=URL, **changes), runner(store, Speak())
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "completed"
    return ref


async def test_the_end_of_a_job_is_sent_once(store):
    """The body is the job's status, the id is the job's; afterwards nothing lies in the outbox and nothing is sent."""
    ref, sender = await ended(store), Sender()
    for _ in range(2):
        await sent(webhooks(store, sender))
    assert sender.sent == [(URL, {"id": ref.job_id, "state": "completed"}, f"{ref.job_id}-0")]
    assert Outbox(store).page(limit=10)[0] == []


async def test_a_job_without_a_webhook_sends_none(store):
    """No entry is written for it."""
    ref, r = submit(store), runner(store, Speak())
    await r.start(told(store, ref))
    await r.wait(ref)
    assert Outbox(store).page(limit=10)[0] == []


async def test_a_receiver_that_fails_is_tried_three_times_ten_seconds_apart(store):
    """As RunPod does; then it is given up, and that is on record."""
    await ended(store)
    sender, pauses = Sender(failures=99), []
    await sent(webhooks(store, sender, pauses))
    assert (sender.tries, pauses) == (3, [10.0, 10.0])
    await sent(webhooks(store, sender))
    assert sender.tries == 3
    (record,) = [info.key for info in store.list("jobs/").items if "/notified-" in info.key]
    told = json.loads(store.get(record).body)
    assert (told["sent"], told["attempts"]) == (False, 3)


async def test_tries_go_on_where_a_dead_replica_left_them(store):
    """What it had tried counts: another replica sends within the tries that are left."""
    ref, sender = await ended(store), Sender(failures=99)
    Outbox(store).put(Letter(ref, 0), attempts=2)
    await sent(webhooks(store, sender))
    assert sender.tries == 1


async def test_another_replicas_letter_is_left_to_it(store):
    """Only the one that is chosen sends; the entry stays for it."""
    ref, sender = await ended(store), Sender()
    await sent(webhooks(store, sender), mine=False)
    assert (sender.tries, Outbox(store).page(limit=10)[0]) == (0, [Letter(ref, 0)])


async def test_a_cancelled_job_is_told_too(store):
    """A client's cancel ends the job in the ingress; the webhook is sent all the same."""
    ref, sender = submit(store, webhook=URL), Sender()
    JobStore(store, wall_clock=lambda: 200.0).cancel(ref)
    await sent(webhooks(store, sender))
    assert [body["state"] for _, body, _ in sender.sent] == ["cancelled"]


async def test_settling_again_sends_nothing_again(store):
    """A marker that was left over has its job settled once more, and its receiver hears nothing of that."""
    ref, sender = await ended(store), Sender()
    await sent(webhooks(store, sender))
    status = JobStore(store, wall_clock=lambda: 200.0).status(ref)
    JobStore(store, wall_clock=lambda: 200.0).settle(status.request, status.outcome)
    await sent(webhooks(store, sender))
    assert len(sender.sent) == 1


async def test_a_letter_without_a_job_is_removed(store):
    """It cannot keep the others from being sent."""
    Outbox(store).put(Letter(JobRef(tenant="default", job_id="01939f00-0000-7000-8000-00000000000a"), 0))
    sender = Sender()
    await sent(webhooks(store, sender))
    assert (sender.tries, Outbox(store).page(limit=10)[0]) == (0, [])


async def test_the_end_of_a_retry_is_told_though_the_first_end_is_still_being_sent(store):
    """Each end has an entry of its own: what is done with the first cannot take the second off the list."""
    ref, sender = submit(store, webhook=URL, ttl_s=50.0), Sender()
    jobs = JobStore(store, wall_clock=lambda: 200.0)
    assert jobs.status(ref).state == "expired"
    first = jobs.status(ref)
    jobs.retry(ref)
    jobs.cancel(ref)
    jobs.notified(first.outcome, sent=True, attempts=1)
    await sent(webhooks(store, sender))
    assert [(body["state"], message_id) for _, body, message_id in sender.sent] == [("cancelled", f"{ref.job_id}-1")]


class Dead:
    """A sender whose host `dead.example` never answers, and says who is inside."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.most = 0
        self.inside: list[str] = []
        self.sent: list[str] = []
        self.lock = threading.Lock()

    def send(self, url: str, body: bytes, *, message_id: str, timestamp: int) -> None:
        if "dead.example" in url:
            with self.lock:
                self.inside.append(message_id)
                self.most = max(self.most, len(self.inside))
            self.release.wait()
            with self.lock:
                self.inside.remove(message_id)
            raise WebhookFailed("gave no answer")
        self.sent.append(message_id)


async def test_a_host_that_does_not_answer_holds_up_nobody_else(store):
    """It has two of the places, whatever is to be sent to it; what is to be sent to others goes at once."""
    for number in range(0x10, 0x10 + 20):
        await ended(store, number)
    dead, sender = [], Dead()
    for number in range(0x50, 0x50 + 60):
        ref = submit(store, number, webhook="https://dead.example/hook")
        JobStore(store, wall_clock=lambda: 200.0).cancel(ref)
        dead.append(ref)
    hooks = webhooks(store, sender)
    try:
        await hooks.sweep(lambda ref: True)
        async with asyncio.timeout(DEADLINE_S):
            while len(sender.sent) < 20:
                await asyncio.sleep(0.01)
        assert sender.most <= 2
        for _ in range(100):  # those for which there is no room to wait are left for a while
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        assert len(hooks._sending) == job_webhooks.WAITING_FOR_ONE_HOST
    finally:
        sender.release.set()
        await hooks.close()


async def test_no_place_is_held_between_two_tries(store):
    """More receivers that fail than there are places, all waiting for their next try: another is sent to at once."""
    waiting = asyncio.Event()

    async def pause(seconds: float) -> None:
        await waiting.wait()

    for number in range(0x10, 0x10 + job_webhooks.AT_ONCE + 3):
        ref = submit(store, number, webhook=f"https://host-{number}.example/hook")
        JobStore(store, wall_clock=lambda: 200.0).cancel(ref)
    failing = Sender(failures=99)
    hooks = webhooks(store, failing)
    hooks._sleep = pause
    await hooks.sweep(lambda ref: True)
    async with asyncio.timeout(DEADLINE_S):
        while failing.tries < job_webhooks.AT_ONCE + 3:
            await asyncio.sleep(0.01)
    failing.failures = 0
    ref = await ended(store, 0xA)
    await hooks.sweep(lambda ref: True)
    async with asyncio.timeout(DEADLINE_S):
        while not failing.sent:
            await asyncio.sleep(0.01)
    assert [message_id for _, _, message_id in failing.sent] == [f"{ref.job_id}-0"]
    await hooks.close()


async def test_pages_of_others_webhooks_hide_none(store, monkeypatch):
    """What is not this replica's to send lies before what is."""
    monkeypatch.setattr(job_webhooks, "PAGE", 2)
    monkeypatch.setattr(job_webhooks, "PAGES", 2)
    for number in range(0x10, 0xC0, 0x10):
        await ended(store, number)
    mine = await ended(store, 0x1F)
    sender = Sender()
    hooks = webhooks(store, sender)
    for _ in range(4):
        await hooks.sweep(lambda ref: ref == mine)
        await asyncio.gather(*hooks._sending.values())
    assert [message_id for _, _, message_id in sender.sent] == [f"{mine.job_id}-0"]


async def test_a_webhook_that_an_older_version_left_is_sent(store):
    """Its entry has no shard; it is sent once and goes, though settling wrote one of today beside it."""
    ref, sender = await ended(store), Sender()
    older = Letter(ref, 0, sharded=False)
    Outbox(store).put(older)
    assert older.key == f"webhooks/{ref.job_id}.default.0"
    assert Letter(ref, 0).key == f"webhooks/a/{ref.job_id}.default.0"
    for _ in range(2):
        await sent(webhooks(store, sender))
    assert (len(sender.sent), Outbox(store).page(limit=10)) == (1, ([], None))


async def test_receivers_that_do_not_answer_take_no_thread_of_the_jobs(store):
    """Though more of them are waited for than this process has threads for all else."""
    with ThreadPoolExecutor(1) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        for number in range(4):
            ref = submit(store, number + 0x10, webhook=f"https://{number}.dead.example/hook")
            JobStore(store, wall_clock=lambda: 200.0).cancel(ref)
        sender = Dead()
        hooks = webhooks(store, sender)
        try:
            await hooks.sweep(lambda ref: True)
            async with asyncio.timeout(DEADLINE_S):
                while sender.most < 4:
                    await asyncio.sleep(0.01)
                assert await asyncio.to_thread(lambda: "free") == "free"
        finally:
            sender.release.set()
            await hooks.close()


async def test_a_webhook_that_cannot_be_made_is_given_up_as_one_that_fails(store):
    """A defect is a try like any other: it does not come back at every sweep for as long as the job is kept."""
    ref, sender, pauses = await ended(store), Sender(), []
    hooks = webhooks(store, sender, pauses)
    hooks._body_of = lambda status: {"broken": object()}
    for _ in range(3):
        await sent(hooks)
    assert (sender.tries, pauses) == (0, [10.0, 10.0])
    assert job_store(store).standing(ref).notified


async def test_a_webhook_that_cannot_be_looked_at_is_left_for_a_while(store, monkeypatch):
    """A record that cannot be read, or a store that does not answer, is asked once a minute and not at every sweep."""
    await ended(store)
    hooks, asked = webhooks(store, Sender()), []

    def status(ref, *, past):
        asked.append(ref)
        raise StorageUnreachable("no answer")

    monkeypatch.setattr(hooks._jobs, "status", status)
    for _ in range(3):
        await sent(hooks)
    assert len(asked) == 1
