"""RunPod's dialect over the whole service in one process: jobs, health, errors, logs."""

import json
import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest

from serve_app.api.services import PartStatus
from serve_app.audio import decode
from serve_app.engine.fake import FakeEngine
from serve_app.errors import ObjectNotFound, Unavailable
from serve_app.heartbeats import Counters, Heartbeats, Liveness
from serve_app.job_client import job_ref
from serve_app.settings import LimitSettings
from serve_app.storage import MemoryStore
from tests.support.deadline import DEADLINE_S
from tests.support.jobs import Clock, until
from tests.support.runpod import TEXT, post, spoken
from tests.support.service import LocalService


@pytest.fixture
def service() -> LocalService:
    return LocalService()


@pytest.mark.parametrize("prefix", ["", "/v2/my-endpoint"])
async def test_run_accepts_a_job_that_status_then_finds(service, prefix):
    """202's promise: the id that /run answers leads to the audio, bare and under /v2/{endpoint_id}."""
    accepted = (await post(service, f"{prefix}/run", {"text": TEXT})).json()
    assert accepted == {"id": accepted["id"], "status": "IN_QUEUE"}
    await until(lambda: service.runner._tasks)  # told off the path of the request
    await service.runner._tasks[job_ref("default", accepted["id"])]
    answer = (await service.client.get(f"{prefix}/status/{accepted['id']}")).json()
    assert answer["status"] == "COMPLETED"
    assert answer["output"]["job_id"] == accepted["id"]
    assert {"delayTime", "executionTime"} <= set(answer)


async def test_the_audio_url_reads_without_credentials_until_altered(service):
    """A signed URL gives the WAV; another key, filename or expiry is refused."""
    url = (await spoken(service))["output"]["audio_url"]
    answer = await service.client.get(url)
    assert answer.headers["content-type"] == "audio/wav"
    assert len(decode(answer.content)) > 0
    for altered in (url.replace("expires=", "expires=9"), url.replace("audio/", "voices/"), url.split("?")[0]):
        assert (await service.client.get(altered)).status_code == 403


async def test_a_call_through_run_is_answered_by_status(service):
    """/run answers an id for calls that are no jobs too, and /status has their output."""
    accepted = (await post(service, "/run", {"endpoint": "list_voices"})).json()
    assert accepted["status"] == "IN_QUEUE"
    answer = (await service.client.get(f"/status/{accepted['id']}")).json()
    assert (answer["status"], answer["output"]["count"]) == ("COMPLETED", 0)


async def test_a_body_over_the_limit_is_refused_in_runpods_envelope():
    """`error` is a string there, as its SDK expects."""
    small = LocalService(limits=LimitSettings(body_bytes=1024))
    answer = await post(small, "/run", {"text": "x" * 2048})
    assert answer.status_code == 413
    assert answer.json()["error"] == answer.json()["message"]


async def test_a_failed_job_says_failed_with_the_reason():
    """A job whose synthesis fails in every run is FAILED, never COMPLETED."""
    clock = Clock()
    service = LocalService(engine=FakeEngine(fail_on={TEXT}), clock=clock, wall_clock=clock)
    job_id = (await post(service, "/run", {"text": TEXT})).json()["id"]
    for _ in range(3):
        await service.run_jobs()
        clock.now += 60
    final = (await service.client.get(f"/status/{job_id}")).json()
    assert (final["status"], len(service.engine.calls)) == ("FAILED", 3)
    assert (final["attempts"], final["retries"]) == (3, 2)
    assert "told to fail" in final["error"]
    assert (final["type"], final["code"], final["message"]) == ("server_error", "synthesis_failed", final["error"])
    assert len(final["request_id"]) == 36
    assert "output" not in final
    asked = (await post(service, "/runsync", {"endpoint": "status", "job_id": job_id})).json()
    assert asked["output"] == {"job_id": job_id, "status": "ERROR"}
    result = await post(service, "/runsync", {"endpoint": "result", "job_id": job_id})
    assert (result.status_code, result.json()["code"]) == (409, "conflict")


async def test_no_runner_answering_still_accepts_the_job(service):
    """/run is durable by the store alone: a Jobs replica that cannot be told costs time, not the job."""

    async def unreachable(ref):
        raise Unavailable("no replica")

    service.services.jobs._runners.start = unreachable
    accepted = (await post(service, "/run", {"text": TEXT})).json()
    assert (await service.client.get(f"/status/{accepted['id']}")).json()["status"] == "IN_QUEUE"
    await service.run_jobs()
    assert (await service.client.get(f"/status/{accepted['id']}")).json()["status"] == "COMPLETED"


async def test_unknown_jobs_are_404(service):
    """An id that was never given out is not found."""
    for job_id in ("01939f00-0000-7000-8000-000000000000", "x"):
        answer = await service.client.get(f"/status/{job_id}")
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_health_counts_jobs(service):
    """RunPod's counters come from the heartbeats in the store."""
    await spoken(service)
    await service.runner.beat()
    health = (await service.client.get("/health")).json()
    assert health["jobs"] == {"completed": 1, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0}
    assert health["workers"] == {"idle": 1, "running": 0}


async def test_health_counts_what_waits_though_no_jobs_replica_lives():
    """From the markers in the store; what a live replica says that it runs is not counted twice."""
    clock = Clock()
    service = LocalService(told=False, clock=clock, wall_clock=clock)
    for number in range(3):
        await post(service, "/run", {"text": f"{TEXT} {number}"})
    health = (await service.client.get("/health")).json()
    assert (health["jobs"]["inQueue"], health["jobs"]["inProgress"], health["workers"]["idle"]) == (3, 0, 0)
    Heartbeats(service.store, "a", 10.0).beat(Counters(running=1, pending=0))
    assert (await service.client.get("/health")).json()["jobs"]["inQueue"] == 2
    clock.now += 60
    await service.client.post("/purge-queue")
    assert (await service.client.get("/health")).json()["jobs"]["inQueue"] == 0


async def test_health_reads_heartbeats_side_by_side(service, monkeypatch):
    """Each read goes on until the other has begun; one whose replica has retired meanwhile is passed over."""
    both, get = threading.Barrier(2, timeout=DEADLINE_S), service.store.get
    for name in "ab":
        Heartbeats(service.store, name, 10.0).beat(Counters(running=1, completed=2))

    def waiting(key):
        if key.startswith("heartbeats/"):
            both.wait()
        if key == "heartbeats/b.v1.json":
            raise ObjectNotFound(key)
        return get(key)

    monkeypatch.setattr(service.store, "get", waiting)
    health = (await service.client.get("/health")).json()
    assert (health["jobs"]["completed"], health["workers"]) == (2, {"idle": 0, "running": 1})


async def test_health_counts_a_replica_as_long_as_its_beat_changes():
    """By this process's own clock: the wall clocks of an ingress and of the store may be minutes apart."""
    clock, now = Clock(), datetime.now(UTC) - timedelta(minutes=10)
    service = LocalService(store=MemoryStore(now=lambda: now))
    object.__setattr__(service.services, "liveness", Liveness(60.0, clock))

    async def running() -> int:
        return sum((await service.client.get("/health")).json()["workers"].values())

    await service.runner.beat()
    assert await running() == 1
    clock.now += 59
    assert await running() == 1
    await service.runner.beat()
    assert await running() == 1
    clock.now += 61
    assert await running() == 0


async def test_health_says_what_each_model_runs_on(service):
    """The attention path and its reason come from a replica; a model without one has only its state."""
    service.not_ready["f5"] = PartStatus("starting", message="loading")
    models = (await service.client.get("/health")).json()["models"]
    assert models["f5"] == {"state": "starting", "replicas": 0, "message": "loading"}
    assert models["preview"]["state"] == "ready"
    runtime = {"device": "cpu", "dtype": "float32", "attention": "none", "attention_reason": "a tone needs none"}
    assert runtime.items() <= models["preview"]["replica"].items()


async def test_one_grep_tells_whether_a_call_synthesised(service, caplog):
    """A job's id stands in every step's event; a later result call logs answered_from_store and no unit."""
    with caplog.at_level(logging.INFO, "serve_app"):
        job_id = (await spoken(service))["output"]["job_id"]
        spoke = [r.message for r in caplog.records if getattr(r, "fields", {}).get("job_id") == job_id]
        caplog.clear()
        await post(service, "/runsync", {"endpoint": "result", "job_id": job_id})
        asked = [r.message for r in caplog.records if getattr(r, "fields", {}).get("job_id") == job_id]
    assert spoke == ["accepted", "job_started", "planned", "unit_started", "unit_done", "stored", "job_finished"]
    assert asked == ["answered_from_store"]
    assert TEXT not in json.dumps([getattr(r, "fields", {}) for r in caplog.records])


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "/v1/models/f5", "/v1/audio/voices", "/health", "/status/01939f00-0000-7000-8000-00000000000a"],
)
async def test_every_call_is_logged_as_received(service, caplog, path):
    """A request id leads to a line that names dialect and endpoint, whatever was called."""
    with caplog.at_level(logging.INFO, "serve_app"):
        await service.client.get(path, headers={"x-request-id": "find-me"})
    (fields,) = [r.fields for r in caplog.records if r.message == "received"]
    assert fields["request_id"] == "find-me"
    assert {"dialect", "endpoint"} <= set(fields)
