"""One idempotency key is one job, whoever sends it how often; and what was refused has not used it up."""

import asyncio
import hashlib
import json
import threading
from datetime import UTC, datetime

import pytest

from serve_app.engine.fake import FakeEngine
from serve_app.settings import LimitSettings
from serve_app.storage import MemoryStore
from tests.support.jobs import Clock, job_request, nothing_older
from tests.support.service import LocalService
from tests.unit.test_api_openai import upload

TEXT = "The birch canoe slid on the smooth planks."
PATHS = ["/run", "/runsync", "/v1/jobs"]
DAY_S = 86_400.0


@pytest.fixture
def service() -> LocalService:
    return LocalService()


async def send(service: LocalService, path: str = "/run", key: str = "order-1", *, text: str = TEXT, **fields):
    speech = {"text": text} | fields
    if "local_voice" in speech and path == "/v1/jobs":
        speech["voice"] = speech.pop("local_voice")
    body = {"input": speech} if path != "/v1/jobs" else {"input": speech.pop("text"), **speech}
    return await service.client.post(path, json=body, headers={"Idempotency-Key": key})


def jobs_in(service: LocalService) -> list[str]:
    return [info.key for info in service.store.list("jobs/").items if info.key.endswith("/request.v1.json")]


@pytest.mark.parametrize("path", PATHS)
async def test_the_same_key_and_body_are_one_job(service, path):
    """One job and one synthesis; the second answer says that it is a replay, and how the job stands now."""
    first = await send(service, path)
    await service.run_jobs()
    second = await send(service, path)
    assert (first.status_code, second.status_code) == (202, 202) if path == "/v1/jobs" else (200, 200)
    assert first.json()["id"] == second.json()["id"]
    assert ("idempotent-replayed" in first.headers, second.headers["idempotent-replayed"]) == (False, "true")
    assert second.json().get("state", second.json().get("status")) in ("completed", "COMPLETED")
    await service.run_jobs()
    assert (len(jobs_in(service)), len(service.engine.calls)) == (1, 1)


async def test_spaces_order_and_defaults_make_no_other_body(service):
    """What the body says counts, not how it is written."""
    headers = {"Idempotency-Key": "k", "content-type": "application/json"}
    bodies = [
        '{"input": {"text": "Hello.", "seed": 1}}',
        '{"policy": null,   "input": {"seed": 1, "text": "Hello."}}',
    ]
    answers = [await service.client.post("/run", content=body, headers=headers) for body in bodies]
    assert len({answer.json()["id"] for answer in answers}) == 1


SAME = {
    "nothing left out": {"speed": None, "endpoint": "tts", "cache": True, "return_word_timings": False, "seed": None},
    "whole numbers": {"speed": 1, "cross_fade_s": 0},
    "an empty endpoint": {"endpoint": ""},
}
PLAIN = {"nothing left out": {}, "whole numbers": {"speed": 1.0, "cross_fade_s": 0.0}, "an empty endpoint": {}}


@pytest.mark.parametrize("name", SAME)
async def test_input_is_compared_as_it_is_understood(service, name):
    """As fields of our own body are: what says the same is the same."""
    first, second = await send(service, **SAME[name]), await send(service, **PLAIN[name])
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["id"] == second.json()["id"]
    assert (await send(service, speed=1.5)).status_code == 422


@pytest.mark.parametrize("fields", [{}, {"seed": 1, "speed": 1.5}, *SAME.values()])
async def test_a_key_of_the_version_before_is_known(service, fields):
    """It digested `input` as it was sent, and its keys are remembered for a day."""
    sent = {"input": {"text": TEXT} | fields}
    digest = hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()
    claim = await service.services.jobs.hold(
        (await service.services.jobs.look("default", "order-1", digest)).ref, "order-1", digest
    )
    await service.services.jobs.submit(
        job_request().model_copy(
            update={"job_id": claim.ref.job_id, "body_sha256": digest, "accepted_at": service.wall_clock()}
        )
    )
    answer = await send(service, **fields)
    assert (answer.status_code, answer.json()["id"]) == (200, claim.ref.job_id), answer.text
    assert answer.headers["idempotent-replayed"] == "true"
    assert (await send(service, text="Something else.")).status_code == 422


async def test_how_long_a_result_is_kept_is_not_compared(service):
    """`?ttl=` is no part of the body: the first one counts."""
    first, second = await send(service, "/run?ttl=5000"), await send(service, "/run?ttl=6000")
    assert first.json()["id"] == second.json()["id"]


@pytest.mark.parametrize("path", PATHS)
async def test_another_body_under_the_same_key_is_refused(service, path):
    """422 that says so, and no second job; the first one is as it was."""
    first = await send(service, path)
    answer = await send(service, path, text="Something else.")
    body = answer.json()["error"] if path == "/v1/jobs" else answer.json()
    assert (answer.status_code, body["code"]) == (422, "idempotency_mismatch")
    assert "order-1" in body["message"]
    assert len(jobs_in(service)) == 1
    assert (await send(service, path)).json()["id"] == first.json()["id"]


async def test_another_key_is_another_job(service):
    """The key decides, not the body."""
    first, second = await send(service, key="a"), await send(service, key="b")
    assert first.json()["id"] != second.json()["id"]


@pytest.mark.parametrize("path", PATHS)
async def test_equal_requests_that_race_are_one(service, path):
    """All get the same id, and the text is spoken once."""
    answers = await asyncio.gather(*(send(service, path) for _ in range(4)))
    await service.run_jobs()
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (len(jobs_in(service)), len(service.engine.calls)) == (1, 1)


async def test_of_two_bodies_that_race_one_job_at_most_is_made(service):
    """Each is accepted or refused, and those accepted are one job."""
    answers = await asyncio.gather(send(service, text="One."), send(service, text="Two."))
    assert {answer.status_code for answer in answers} <= {200, 422}
    assert len(jobs_in(service)) == sum(answer.status_code == 200 for answer in answers) <= 1


async def test_the_seed_of_a_keyed_job_follows_from_its_id(service):
    """Two equal requests without a seed would be two renderings otherwise."""
    answer = (await send(service, "/runsync")).json()
    digest = int(hashlib.sha256(answer["id"].encode()).hexdigest(), 16)
    assert answer["output"]["seed"] == digest % 2**31
    assert (await send(service, "/runsync", key="b", seed=5)).json()["output"]["seed"] == 5


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "wrong",
    [{"text": " "}, {"speed": 99}, {"model": "none"}, {"local_voice": "nobody"}, {"nonsense": 1}],
    ids=["text", "speed", "model", "voice", "field"],
)
async def test_a_refused_request_has_not_used_up_its_key(service, path, wrong):
    """It leaves nothing behind, and the mended body is taken under the same key."""
    refused = await send(service, path, **wrong)
    assert refused.status_code in (400, 404)
    assert service.store.list("").items == []
    assert (await send(service, path)).status_code in (200, 202)


async def test_a_refused_policy_has_not_used_up_its_key(service):
    """The policy is checked before the key is looked at."""
    body = {"input": {"text": TEXT}, "policy": {"ttl": 1}}
    refused = await service.client.post("/run", json=body, headers={"Idempotency-Key": "order-1"})
    assert (refused.status_code, service.store.list("").items) == (422, [])
    assert (await send(service)).status_code == 200


async def test_a_known_job_is_answered_though_its_voice_is_gone(service):
    """Voice and seed were fixed when it was accepted."""
    await upload(service, "anna")
    first = await send(service, local_voice="anna")
    await service.run_jobs()
    await service.client.delete("/v1/audio/voices/anna")
    second = await send(service, local_voice="anna")
    assert second.json() == {"id": first.json()["id"], "status": "COMPLETED"}


@pytest.mark.parametrize("path", PATHS)
async def test_a_known_job_is_answered_though_it_would_be_refused_by_now(path):
    """A limit was lowered since: the key's answer stays what it was, and another text of that length is refused."""
    service = LocalService()
    first = await send(service, path)
    later = LocalService(store=service.store, limits=LimitSettings(max_text_chars=10))
    assert (await send(later, path)).json()["id"] == first.json()["id"]
    assert (await send(later, path, "order-2")).status_code == 413


async def test_runsync_waits_for_a_known_job_without_a_second_run(monkeypatch):
    """Whoever runs it goes on; the second caller, at another ingress, gets its end."""
    gate = threading.Event()
    service = LocalService(engine=FakeEngine(gate=gate))
    other = LocalService(store=service.store)
    first = await send(service, "/run")
    await asyncio.to_thread(service.engine.started.acquire)
    wait = other.services.jobs.wait

    async def opened(*args):
        gate.set()
        return await wait(*args)

    monkeypatch.setattr(other.services.jobs, "wait", opened)
    answer = (await send(other, "/runsync?wait=5000")).json()
    assert (answer["id"], answer["status"], answer["attempts"]) == (first.json()["id"], "COMPLETED", 1)
    assert (len(service.engine.calls), len(other.engine.calls)) == (1, 0)


async def test_a_key_is_free_again_after_a_day():
    """A day is counted from the acceptance of its job, wherever the windows of ids begin."""
    clock = Clock()
    clock.now = 20_000.5 * DAY_S  # the middle of a window
    service = LocalService(wall_clock=clock)
    first = (await send(service)).json()["id"]
    clock.now += 0.9 * DAY_S
    assert (await send(service)).json()["id"] == first
    clock.now += 0.2 * DAY_S
    assert (await send(service, text="Something else.")).json()["id"] != first


@pytest.mark.parametrize("day", [20_000.0, 20_000.95])
async def test_a_key_whose_result_is_removed_is_410(day):
    """It was spoken and is gone: it is neither spoken again nor promised anew, whichever day of ids it is by now, until
    the key is free."""
    clock = Clock()
    clock.now = day * DAY_S
    store = nothing_older(MemoryStore(now=lambda: datetime.fromtimestamp(clock.now, UTC)))
    service = LocalService(store=store, wall_clock=clock)
    body = {"input": {"text": TEXT}}
    headers = {"Idempotency-Key": "k"}
    await service.client.post("/run", json=body, params={"ttl": 1000}, headers=headers)
    await service.run_jobs()
    clock.now += 2 * 3600
    await service.runner.collect()
    assert [info.key for info in service.store.list("jobs/").items if "request" in info.key] == []
    answer = await service.client.post("/run", json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (410, "job_expired")
    assert len(service.engine.calls) == 1
    clock.now += DAY_S
    assert (await service.client.post("/run", json=body, headers=headers)).status_code == 200


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
async def test_what_is_no_key_is_refused(service, key):
    """1 to 255 printable characters, as Stripe has it."""
    answer = await send(service, key=key)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "Idempotency-Key" in answer.json()["error"]
    assert service.store.list("").items == []
