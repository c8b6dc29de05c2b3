"""RunPod's routes about a job that exists: status, stream, cancel, retry, purge-queue."""

import asyncio
import threading

import pytest

from serve_app import keys
from serve_app.engine.fake import FakeEngine
from tests.support.jobs import Clock
from tests.support.service import LocalService

TEXT = "The birch canoe slid on the smooth planks."
UNKNOWN = "01939f00-0000-7000-8000-000000000000"


@pytest.fixture
def service() -> LocalService:
    return LocalService(told=False)


async def run(service: LocalService, text: str = TEXT, **fields) -> str:
    return (await service.client.post("/run", json={"input": {"text": text}, **fields})).json()["id"]


async def status(service: LocalService, job_id: str) -> dict:
    return (await service.client.get(f"/status/{job_id}")).json()


async def failed(clock: Clock) -> tuple[LocalService, str]:
    """A service whose engine failed a job for good."""
    service = LocalService(engine=FakeEngine(fail_on={TEXT}), clock=clock, wall_clock=clock)
    job_id = await run(service)
    for _ in range(3):
        await service.run_jobs()
        clock.now += 60
    return service, job_id


async def test_a_waiting_job_tells_its_place(service):
    """1 is the next; a job of low priority comes after all others, whenever it came."""
    low = await run(service, policy={"lowPriority": True})
    first, second = await run(service), await run(service)
    places = {job_id: (await status(service, job_id))["queuePosition"] for job_id in (first, second, low)}
    assert places == {first: 1, second: 2, low: 3}
    assert await status(service, first) == {
        "id": first, "status": "IN_QUEUE", "attempts": 0, "retries": 0, "queuePosition": 1,
    }  # fmt: skip


async def test_a_job_in_progress_tells_how_far_it_is():
    """Units done of all, once a run has kept some; no place in the queue."""
    gate = threading.Event()
    service = LocalService(engine=FakeEngine(gate=gate))
    job_id = await run(service)
    await asyncio.to_thread(service.engine.started.acquire)
    before = await status(service, job_id)
    name = "progress-0001-00001-00003-of-00009.v1.npz"
    service.store.put(keys.job("default", job_id, name), b"", content_type="application/zip")
    after = await status(service, job_id)
    gate.set()
    await service.run_jobs()
    assert (before["status"], "progress" in before, "queuePosition" in before) == ("IN_PROGRESS", False, False)
    assert (after["progress"], after["attempts"]) == ({"units_done": 3, "units": 9}, 1)
    assert {"delayTime"} <= set(after)
    assert "executionTime" not in after


@pytest.mark.parametrize("prefix", ["", "/v2/mine"])
async def test_a_waiting_job_is_cancelled(service, prefix):
    """It is CANCELLED with a reason, and never spoken."""
    job_id = await run(service)
    answer = await service.client.post(f"{prefix}/cancel/{job_id}")
    assert (answer.status_code, answer.json()) == (200, {"id": job_id, "status": "CANCELLED"})
    await service.run_jobs()
    final = await status(service, job_id)
    assert (final["status"], service.engine.calls) == ("CANCELLED", [])
    assert final["error"] == final["message"]
    assert (final["type"], final["code"], len(final["request_id"])) == ("canceled", "cancelled", 36)


async def test_an_ended_job_keeps_its_end_when_it_is_cancelled(service):
    """The answer is what it was, and the audio stays."""
    job_id = await run(service)
    await service.run_jobs()
    assert (await service.client.post(f"/cancel/{job_id}")).json() == {"id": job_id, "status": "COMPLETED"}
    assert "output" in await status(service, job_id)


async def test_a_failed_job_is_run_again_under_its_id():
    """The engine is mended, the same id completes; then it cannot be retried any more."""
    clock = Clock()
    service, job_id = await failed(clock)
    assert (await status(service, job_id))["status"] == "FAILED"
    calls = len(service.engine.calls)
    service.engine._fail_on = frozenset()
    answer = await service.client.post(f"/retry/{job_id}")
    assert (answer.status_code, answer.json()) == (200, {"id": job_id, "status": "IN_QUEUE"})
    await service.run_jobs()
    final = await status(service, job_id)
    assert (final["status"], final["attempts"], len(service.engine.calls) - calls) == ("COMPLETED", 4, 1)
    assert (await service.client.post(f"/retry/{job_id}")).status_code == 409


async def test_a_job_past_its_ttl_is_timed_out_and_can_be_retried():
    """TIMED_OUT with the reason; a retry begins its ttl anew."""
    clock = Clock()
    service = LocalService(told=False, clock=clock, wall_clock=clock)
    job_id = await run(service, policy={"ttl": 60_000})
    clock.now += 61
    final = await status(service, job_id)
    assert (final["status"], final["code"], service.engine.calls) == ("TIMED_OUT", "ttl_over", [])
    assert "60" in final["error"]
    assert (await service.client.post(f"/retry/{job_id}")).json()["status"] == "IN_QUEUE"
    clock.now += 59
    assert (await status(service, job_id))["status"] == "IN_QUEUE"


async def test_what_is_not_failed_cannot_be_retried(service):
    """409 with the state: waiting, completed and cancelled alike, and calls that are no jobs."""
    waiting, cancelled = await run(service), await run(service)
    await service.client.post(f"/cancel/{cancelled}")
    call = (await service.client.post("/run", json={"input": {"endpoint": "list_voices"}})).json()["id"]
    for job_id, word in ((waiting, "queued"), (cancelled, "cancelled"), (call, "COMPLETED")):
        answer = await service.client.post(f"/retry/{job_id}")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert word in answer.json()["error"]


async def test_purging_cancels_what_waits(service):
    """It tells how many; what has ended stays, and is not counted."""
    done = await run(service)
    await service.run_jobs()
    waiting = [await run(service) for _ in range(3)]
    answer = await service.client.post("/v2/mine/purge-queue")
    assert answer.json() == {"removed": 3, "status": "completed"}
    states = [(await status(service, job_id))["status"] for job_id in (done, *waiting)]
    assert states == ["COMPLETED", *["CANCELLED"] * 3]
    assert (await service.client.post("/purge-queue")).json()["removed"] == 0


async def test_purging_leaves_what_is_begun_while_it_purges(service, monkeypatch):
    """Between the look at the queue and the end of a job a replica may take it: then it is spoken."""
    job_id = await run(service)
    jobs = service.services.jobs._jobs
    standing = jobs.standing

    def then_begun(ref):
        found = standing(ref)
        if found.state == "queued":
            jobs.begin(jobs.status(ref).request, run=1, owner="another", started_at=0.0)
        return found

    monkeypatch.setattr(jobs, "standing", then_begun)
    assert (await service.client.post("/purge-queue")).json()["removed"] == 0
    assert (await status(service, job_id))["status"] == "IN_PROGRESS"


async def test_purging_leaves_what_is_being_spoken():
    """RunPod's rule."""
    gate = threading.Event()
    service = LocalService(engine=FakeEngine(gate=gate))
    job_id = await run(service)
    await asyncio.to_thread(service.engine.started.acquire)
    removed = (await service.client.post("/purge-queue")).json()["removed"]
    gate.set()
    await service.run_jobs()
    assert (removed, (await status(service, job_id))["status"]) == (0, "COMPLETED")


async def test_a_call_whose_time_is_over_is_410():
    """At once, as a job's result is, whether anything was removed by then; also where a client made that sooner."""
    clock = Clock()
    service = LocalService(wall_clock=clock, clock=clock)
    ask = {"input": {"endpoint": "list_voices"}}
    ids = [(await service.client.post("/run", json=ask, params={"ttl": 100_000})).json()["id"] for _ in range(2)]
    assert (await service.client.get(f"/status/{ids[1]}", params={"ttl": 10_000})).status_code == 200
    clock.now += 50
    assert [(await service.client.get(f"/status/{job_id}")).status_code for job_id in ids] == [200, 410]
    clock.now += 51
    assert (await service.client.get(f"/status/{ids[0]}")).json()["code"] == "job_expired"


async def test_calls_that_are_no_jobs_answer_like_completed_jobs(service):
    """Their ids come from /run too: a stream of one ends, and cancelling changes nothing."""
    job_id = (await service.client.post("/run", json={"input": {"endpoint": "list_voices"}})).json()["id"]
    first, second = [(await service.client.get(f"/stream/{job_id}")).json() for _ in range(2)]
    assert first["stream"][0]["output"]["status"] == "success"
    assert second == {"status": "COMPLETED", "stream": []}
    assert (await service.client.post(f"/cancel/{job_id}")).json() == {"id": job_id, "status": "COMPLETED"}


@pytest.mark.parametrize("job_id", [UNKNOWN, "x"])
@pytest.mark.parametrize("call", ["POST /cancel", "POST /retry", "GET /stream", "POST /stream", "GET /status"])
async def test_an_unknown_job_is_404(service, call, job_id):
    """In RunPod's envelope."""
    method, path = call.split()
    answer = await service.client.request(method, f"{path}/{job_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    assert isinstance(answer.json()["error"], str)
