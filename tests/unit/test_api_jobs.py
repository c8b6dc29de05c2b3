"""Our own job routes over the whole service in one process."""

import json
import re
from datetime import UTC, datetime

import pytest

from serve_app.audio import decode
from serve_app.engine.fake import FakeEngine
from tests.support.jobs import Clock, until
from tests.support.service import LocalService
from tests.unit.test_api_openai import upload

TEXT = "The birch canoe slid on the smooth planks."
UNKNOWN = "01939f00-0000-7000-8000-000000000000"
FIELDS = {
    "id", "state", "model", "voice", "seed", "created_at", "started_at", "finished_at", "expires_at", "delay_s",
    "execution_s", "attempts", "units_done", "units", "queue_position", "error", "cached", "made_by", "draft", "audio",
}  # fmt: skip


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = 1_800_000_000.0
    return clock


@pytest.fixture
def service(clock) -> LocalService:
    return LocalService(told=False, clock=clock, wall_clock=clock)


async def create(service: LocalService, text: str = TEXT, **fields) -> dict:
    return (await service.client.post("/v1/jobs", json={"input": text, **fields})).json()


async def get(service: LocalService, job_id: str) -> dict:
    return (await service.client.get(f"/v1/jobs/{job_id}")).json()


async def pages(service: LocalService, **params) -> list[list[tuple[str, str]]]:
    """All pages of a list, each as (id, state)."""
    found, after = [], ""
    while after is not None:
        page = (await service.client.get("/v1/jobs", params={**params, "after": after})).json()
        found.append([(job["id"], job["state"]) for job in page["data"]])
        after = page["next_after"]
    return found


async def test_an_accepted_job_is_a_202_with_all_that_is_decided(service, clock):
    """Model, voice and seed are fixed; what is not known yet is null."""
    answer = await service.client.post("/v1/jobs", json={"input": TEXT, "seed": 7})
    body = answer.json()
    assert (answer.status_code, set(body)) == (202, FIELDS)
    known = {name: value for name, value in body.items() if value is not None}
    assert known == {
        "id": body["id"], "state": "queued", "model": "f5", "voice": "nature", "seed": 7,
        "created_at": datetime.fromtimestamp(clock.now, UTC).isoformat(timespec="milliseconds"),
        "attempts": 0, "units_done": 0,
    }  # fmt: skip


async def test_a_completed_job_tells_all_of_itself(service, clock):
    """Times in ISO 8601, durations in seconds, and audio that its URL gives."""
    job_id = (await create(service))["id"]
    clock.now += 2
    assert (await get(service, job_id))["queue_position"] == 1
    await service.run_jobs()
    job = await get(service, job_id)
    at = datetime.fromisoformat
    assert (job["state"], job["attempts"], job["units_done"], job["units"]) == ("completed", 1, 1, 1)
    assert (job["delay_s"], job["execution_s"], job["queue_position"], job["error"]) == (2.0, 0.0, None, None)
    assert (at(job["started_at"]) - at(job["created_at"])).total_seconds() == 2
    assert (at(job["expires_at"]) - at(job["finished_at"])).total_seconds() == 7 * 86_400
    assert (job["cached"], job["draft"], job["made_by"].split()[0]) == (False, False, "fake")
    audio = job["audio"]
    content = (await service.client.get(audio["url"])).content
    assert (len(content), audio["content_type"]) == (audio["size_bytes"], "audio/wav")
    assert audio["sha256"] in audio["url"]
    assert len(decode(content)) / 24_000 == pytest.approx(audio["duration_s"], abs=0.001)


async def test_the_result_is_the_audio_with_a_fresh_url(service):
    """And what made it."""
    job_id = (await create(service, voice={"id": "nature"}, model="f5"))["id"]
    await service.run_jobs()
    answer = await service.client.get(f"/v1/jobs/{job_id}/result")
    job = await get(service, job_id)
    assert answer.status_code == 200
    assert set(answer.json()) == {"id", "model", "voice", "seed", "draft", "cached", "made_by", "audio"}
    assert answer.json()["audio"]["sha256"] == job["audio"]["sha256"]
    assert (await service.client.get(answer.json()["audio"]["url"])).status_code == 200


async def test_the_result_of_a_job_that_did_not_complete_is_409_with_its_state(service):
    """Waiting and cancelled alike; our envelope."""
    job_id = (await create(service))["id"]
    waiting = await service.client.get(f"/v1/jobs/{job_id}/result")
    cancelled = await service.client.post(f"/v1/jobs/{job_id}/cancel")
    after = await service.client.get(f"/v1/jobs/{job_id}/result")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    for answer, word in ((waiting, "queued"), (after, "cancelled")):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], word in error["message"]) == (409, "conflict", True)


async def test_a_failed_job_says_why_and_is_retried(clock):
    """The error has the four fields of every error; a retry queues the same id, and only what failed can be retried."""
    service = LocalService(engine=FakeEngine(fail_on={TEXT}), clock=clock, wall_clock=clock, told=False)
    job_id = (await create(service))["id"]
    assert (await service.client.post(f"/v1/jobs/{job_id}/retry")).status_code == 409
    for _ in range(3):
        await service.run_jobs()
        clock.now += 60
    failed = await get(service, job_id)
    assert (failed["state"], failed["attempts"], failed["audio"]) == ("failed", 3, None)
    assert set(failed["error"]) == {"type", "code", "message", "request_id"}
    assert (failed["error"]["code"], "told to fail" in failed["error"]["message"]) == ("synthesis_failed", True)
    service.engine._fail_on = frozenset()
    retried = await service.client.post(f"/v1/jobs/{job_id}/retry")
    assert (retried.status_code, retried.json()["state"], retried.json()["error"]) == (200, "queued", None)
    await service.run_jobs()
    done = await get(service, job_id)
    assert (done["state"], done["attempts"], done["error"]) == ("completed", 4, None)


async def test_a_retried_job_is_spoken_at_once_where_there_is_room(clock):
    """A runner is told, as of a new job."""
    service = LocalService(engine=FakeEngine(fail_on={TEXT}), clock=clock, wall_clock=clock)
    job_id = (await create(service))["id"]
    for _ in range(3):
        await service.run_jobs()
        clock.now += 60
    service.engine._fail_on = frozenset()
    await service.client.post(f"/v1/jobs/{job_id}/retry")
    await until(lambda: service.runner._tasks)
    (task,) = service.runner._tasks.values()
    await task
    assert (await get(service, job_id))["state"] == "completed"


async def test_the_list_is_the_newest_first_and_paged(service, clock):
    """Every job once, whatever its state, and `next_after` is null at the end."""
    ids = []
    for number in range(5):
        clock.now += 1
        ids.append((await create(service, f"Text {number}."))["id"])
        if number == 1:
            await service.run_jobs()
    await service.client.post(f"/v1/jobs/{ids[2]}/cancel")
    states = ["completed", "completed", "cancelled", "queued", "queued"]
    expected = list(zip(ids, states, strict=True))[::-1]
    assert await pages(service) == [expected]
    assert [job for page in await pages(service, limit=2) for job in page] == expected
    assert [job for page in await pages(service, state="queued", limit=1) for job in page] == expected[:2]
    assert await pages(service, state="completed") == [expected[3:]]
    assert await pages(service, state="failed") == [[]]
    body = (await service.client.get("/v1/jobs", params={"limit": 1})).json()
    created = (await get(service, ids[-1]))["created_at"]
    assert body["data"] == [{"id": ids[-1], "state": "queued", "created_at": created}]


@pytest.mark.parametrize("now", [1_800_000_000.0, 1_800_000_000.25, 1_800_000_000.429, 1.009, 4.0299999])
async def test_the_list_says_when_a_job_was_made_as_the_job_does(service, clock, now):
    """In milliseconds, the same to the letter."""
    clock.now = now
    job = await create(service)
    (listed,) = (await service.client.get("/v1/jobs")).json()["data"]
    assert listed["created_at"] == job["created_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", listed["created_at"])


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"stat": "queued"}, ["'stat'", "state, after, limit"]),
        ({"state": "queued", "limt": 1, "x": 1}, ["'limt'", "state, after, limit"]),
        ({"state": "done"}, ["state", "done", "in_progress"]),
        ({"limit": 0}, ["limit", "0"]),
        ({"limit": 101}, ["limit", "101", "100"]),
        ({"limit": "x"}, ["limit", "x"]),
        ({"after": "../../voices"}, ["after", "../../voices"]),
        ({"after": "\0"}, ["after"]),
    ],
)
async def test_a_list_that_cannot_be_asked_for_is_refused(service, params, words):
    """400 that names the parameter and the value."""
    answer = await service.client.get("/v1/jobs", params=params)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert [word for word in words if word not in answer.json()["error"]["message"]] == []


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, ["input"]),
        ({"input": " "}, 400, ["input", "empty"]),
        ({"input": "Hello \ud83d there"}, 400, ["half a character"]),
        ({"input": TEXT, "instructions": "loud"}, 400, ["instructions"]),
        ({"input": TEXT, "\ud800": 1}, 400, ["\\ud800"]),
        ({"input": TEXT, "response_format": "mp3"}, 400, ["response_format"]),
        ({"input": TEXT, "speed": 9}, 400, ["speed", "9"]),
        ({"input": TEXT, "model": "none"}, 404, ["none"]),
        ({"input": TEXT, "voice": "nobody"}, 404, ["voice", "nobody"]),
        ({"input": TEXT, "voice": "https://host/a.wav"}, 400, ["voice"]),
        ({"input": TEXT, "cache": "perhaps"}, 400, ["cache"]),
        ([], 400, ["dictionary"]),
    ],
)
async def test_bad_input_is_refused_with_the_field(service, body, status, words):
    """Our envelope with the four fields; nothing is stored."""
    headers = {"content-type": "application/json"}
    answer = await service.client.post("/v1/jobs", content=json.dumps(body), headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, set(error)) == (status, {"type", "code", "message", "request_id"})
    assert [word for word in words if word not in error["message"]] == []
    assert service.store.list("").items == []


async def test_a_job_speaks_with_the_voice_that_was_named(service):
    """Stored voices are taken by name, and their version is fixed."""
    await upload(service, "anna")
    job = await create(service, voice="anna", speed=1.5)
    assert job["voice"] == "anna"
    await service.run_jobs()
    assert (await get(service, job["id"]))["state"] == "completed"


async def test_an_id_in_capitals_is_the_same_id(service):
    """It is a UUID: some clients write them so."""
    job = await create(service)
    assert (await get(service, job["id"].upper()))["id"] == job["id"]
    assert (await service.client.get(f"/status/{job['id'].upper()}")).json()["id"] == job["id"]


@pytest.mark.parametrize("job_id", [UNKNOWN, "x", "%2e%2e"])
@pytest.mark.parametrize("call", ["GET ", "GET /result", "GET /events", "POST /cancel", "POST /retry"])
async def test_an_unknown_job_is_404(service, call, job_id):
    """A real 404, also where the answer would have been a stream."""
    method, path = call.split(" ")
    answer = await service.client.request(method, f"/v1/jobs/{job_id}{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in ("job_not_found", "not_found")
