"""Server-sent events of a job: every change once, the end always, at any ingress."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable

import pytest

from serve_app import keys
from serve_app.api import jobs as routes
from serve_app.engine.fake import FakeEngine
from serve_app.errors import StorageUnreachable
from serve_app.jobs import JobRef, JobStore
from tests.support.service import LocalService

TEXT = "The birch canoe slid on the smooth planks."


@pytest.fixture
def service() -> LocalService:
    return LocalService(told=False)


async def create(service: LocalService) -> str:
    return (await service.client.post("/v1/jobs", json={"input": TEXT})).json()["id"]


async def follow(service: LocalService, job_id: str, last: str | None = None):
    headers = {} if last is None else {"Last-Event-ID": last}
    return await service.client.get(f"/v1/jobs/{job_id}/events", headers=headers)


def told(answer) -> list[tuple[str, str, dict]]:
    """(id, event, data) of each event of a stream."""
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in answer.text.split("\n\n") if block]
    return [(block["id"], block["event"], json.loads(block["data"])) for block in blocks if "event" in block]


def progress(service: LocalService, job_id: str, done: int, units: int = 9) -> None:
    """As a run keeps it."""
    key = keys.job("default", job_id, f"progress-0001-{done:05d}-{done:05d}-of-{units:05d}.v1.npz")
    service.store.put(key, b"", content_type="application/zip")


async def test_a_job_is_followed_to_its_end(service):
    """Queued, in progress, ended: each with the native form, as text/event-stream that nobody buffers."""
    gate = threading.Event()
    service.engine._gate = gate
    job_id = await create(service)
    following = asyncio.create_task(follow(service, job_id))
    speaking = asyncio.create_task(service.run_jobs())
    await asyncio.to_thread(service.engine.started.acquire)
    gate.set()
    await speaking
    answer = await following
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    events = told(answer)
    assert [name for _, name, _ in events] == ["progress"] * (len(events) - 1) + ["ended"]
    assert events[-1][2]["state"] == "completed"
    final = (await service.client.get(f"/v1/jobs/{job_id}")).json()
    assert (set(events[0][2]), events[-1][2]["audio"]["sha256"]) == (set(final), final["audio"]["sha256"])
    assert len({each for each, _, _ in events}) == len(events)


def after_each_look(service: LocalService, monkeypatch, *steps: Callable[[], object]) -> None:
    """Each time that a job's standing was looked at for an event, the next thing happens."""
    jobs, left = service.services.jobs._jobs, iter(steps)
    standing = jobs.standing

    def looked(ref):
        found = standing(ref)
        next(left, lambda: None)()
        return found

    monkeypatch.setattr(jobs, "standing", looked)


async def running(gate: threading.Event) -> tuple[LocalService, str]:
    """A service whose engine waits at the gate with a job's only unit."""
    service = LocalService(engine=FakeEngine(gate=gate))
    job_id = await create(service)
    await asyncio.to_thread(service.engine.started.acquire)
    return service, job_id


async def test_progress_is_told_as_units_are_kept(monkeypatch):
    """Units done of all; a change that says nothing new (a webhook was sent) is no event."""
    gate = threading.Event()
    service, job_id = await running(gate)
    notified = keys.job("default", job_id, "notified-0000.v1")
    after_each_look(
        service,
        monkeypatch,
        lambda: progress(service, job_id, 3),
        lambda: None,
        lambda: service.store.put(notified, b"", content_type="text/plain"),
        lambda: None,
        lambda: progress(service, job_id, 7),
        lambda: None,
        lambda: None,
        gate.set,
    )
    events = told(await follow(service, job_id))
    seen = [(data["state"], data["units_done"], data["units"]) for _, _, data in events]
    assert [each for each in seen if each[2] == 9] == [("in_progress", 3, 9), ("in_progress", 7, 9)]
    assert seen[-1] == ("completed", 1, 1)
    assert len({each for each, _, _ in events}) == len(events)


@pytest.mark.parametrize(("last", "names"), [("0-1-3-in_progress", ["ended"]), ("0-1-2-queued", ["progress", "ended"])])
async def test_who_comes_again_is_told_nothing_twice(monkeypatch, last, names):
    """Last-Event-ID of the present state: only what comes after it, at another ingress too."""
    gate = threading.Event()
    service, job_id = await running(gate)
    progress(service, job_id, 3)
    other = LocalService(store=service.store)
    after_each_look(other, monkeypatch, *[lambda: None] * 3, gate.set)
    events = told(await follow(other, job_id, last))
    assert [name for _, name, _ in events] == names
    assert events[-1][0] == "0-1-1-completed"


async def test_who_missed_the_end_is_told_it_and_who_did_not_is_sent_away(service):
    """An end is never missed; 204 tells an EventSource that has it not to come again."""
    job_id = await create(service)
    await service.run_jobs()
    for last in (None, "0-0-0-queued", "0-1-0-in_progress", "nonsense", ""):
        ((told_id, name, data),) = told(await follow(service, job_id, last))
        assert (told_id, name, data["state"]) == ("0-1-1-completed", "ended", "completed")
    answer = await follow(service, job_id, "0-1-1-completed")
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_retried_job_is_followed_anew(service):
    """Its generation is in the id, so the end before it is not taken for the next one."""
    job_id = await create(service)
    ref = JobRef(tenant="default", job_id=job_id)
    jobs = JobStore(service.store)
    status = jobs.status(ref)
    jobs.settle(status.request, jobs.finish(jobs.ended(status, "failed", None)))
    ((first, name, data),) = told(await follow(service, job_id))
    assert (first, name, data["error"]["code"]) == ("0-0-0-failed", "ended", "failed")
    await service.client.post(f"/v1/jobs/{job_id}/retry")
    following = asyncio.create_task(follow(service, job_id, first))
    await service.run_jobs()
    events = told(await following)
    assert events[-1][:2] == ("1-1-1-completed", "ended")
    assert {each[0] for each, _, _ in events} == {"1"}


async def test_a_quiet_stream_is_kept_alive(monkeypatch):
    """A comment line now and then, so that no proxy takes it for dead."""
    assert routes.KEEP_ALIVE_S <= 15
    monkeypatch.setattr(routes, "KEEP_ALIVE_S", 0.0)
    gate = threading.Event()
    service, job_id = await running(gate)
    after_each_look(service, monkeypatch, *[lambda: None] * 5, gate.set)
    answer = await follow(service, job_id)
    assert "\n\n: nothing new\n\n" in answer.text
    assert told(answer)[-1][1] == "ended"


async def test_a_store_that_fails_in_mid_stream_ends_it(service, monkeypatch, caplog):
    """The answer has begun: what was told stands, no end is invented, and the client comes again."""
    job_id = await create(service)
    jobs = service.services.jobs._jobs
    standing, looks = jobs.standing, iter(range(100))

    def failing(ref):
        if next(looks) >= 3:
            raise StorageUnreachable("no answer")
        return standing(ref)

    monkeypatch.setattr(jobs, "standing", failing)
    with caplog.at_level(logging.ERROR, "serve_app"):
        answer = await follow(service, job_id)
    assert [record.message for record in caplog.records] == ["events_broken_off"]
    assert answer.status_code == 200
    assert [name for _, name, _ in told(answer)] == ["progress"]
    assert answer.text.startswith("retry: 2000\n\n")
