"""RunPod's dialect in both places, bare and under /v2/{endpoint_id}: keys, forms of errors, what each answer holds."""

import pytest

from serve_app.settings import LimitSettings
from tests.support.runpod import TEXT, post, spoken
from tests.support.service import LocalService

UNKNOWN = "01939f00-0000-7000-8000-000000000000"
FIELDS = {"error", "type", "code", "message", "request_id"}
PREFIXES = ["", "/v2/my-endpoint"]
KEYS = ["rpa_KEY", "Bearer rpa_KEY", "bearer rpa_KEY", None]


@pytest.fixture
def service() -> LocalService:
    return LocalService(limits=LimitSettings(body_bytes=4096))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("key", KEYS)
async def test_a_key_is_taken_with_and_without_bearer(service, prefix, key):
    """RunPod's own page sends it bare, its SDK with Bearer; no route refuses either."""
    service.client.headers.update({"Authorization": key} if key else {})
    job_id = (await post(service, f"{prefix}/runsync", {"text": TEXT})).json()["id"]
    calls = ["POST run", f"GET status/{job_id}", f"GET stream/{job_id}", f"POST cancel/{job_id}", "POST purge-queue"]
    for call in (*calls, "GET health"):
        method, path = call.split()
        body = {"json": {"input": {"text": TEXT}}} if path == "run" else {}
        answer = await service.client.request(method, f"{prefix}/{path}", **body)
        assert answer.status_code == 200, (call, answer.text)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("call", "body", "status", "code"),
    [
        ("POST /run", {"input": {"text": "x" * 5000}}, 413, "payload_too_large"),
        ("POST /run", {"input": {"text": TEXT, "speed": 9}}, 400, "invalid_request"),
        ("POST /run", {"input": {"text": TEXT, "local_voice": "nobody"}}, 404, "voice_not_found"),
        ("POST /run", {"text": TEXT}, 400, "invalid_request"),
        ("POST /run", {"input": {"text": TEXT}, "policy": {"ttl": 1}}, 422, "invalid_policy"),
        ("POST /run", {"input": {"text": TEXT}, "s3Config": {}}, 422, "invalid_policy"),
        ("POST /runsync?wait=999", {"input": {"text": TEXT}}, 400, "invalid_request"),
        ("POST /runsync?wait=300001", {"input": {"text": TEXT}}, 400, "invalid_request"),
        (f"GET /status/{UNKNOWN}", None, 404, "job_not_found"),
        (f"GET /stream/{UNKNOWN}", None, 404, "job_not_found"),
        (f"POST /retry/{UNKNOWN}", None, 404, "job_not_found"),
        (f"POST /cancel/{UNKNOWN}", None, 404, "job_not_found"),
        (f"GET /cancel/{UNKNOWN}", None, 405, "method_not_allowed"),
        ("GET /purge-queue", None, 405, "method_not_allowed"),
    ],
)
async def test_every_refusal_has_runpods_form(service, prefix, call, body, status, code):
    """`error` is a string there, as its SDK expects, beside the four fields; the same in both places."""
    method, path = call.split()
    answer = await service.client.request(method, f"{prefix}{path}", json=body)
    told = answer.json()
    assert (answer.status_code, told["code"], set(told)) == (status, code, FIELDS)
    assert told["error"] == told["message"] != ""


async def test_what_is_not_served_under_v2_is_refused_in_its_form(service):
    """Whoever mistypes a route reads why with RunPod's SDK, too."""
    answer = await service.client.get("/v2/my-endpoint/jobs")
    assert (answer.status_code, set(answer.json()), answer.json()["code"]) == (404, FIELDS, "not_found")


@pytest.mark.parametrize("wait", [1000, 300_000])
async def test_the_ends_of_the_range_of_a_wait_are_taken(service, wait):
    """Milliseconds."""
    answer = await post(service, "/runsync", {"text": TEXT}, wait=wait)
    assert answer.json()["status"] == "COMPLETED"


@pytest.mark.parametrize(("params", "waits_s"), [({}, 90), ({"wait": 5000}, 5)])
async def test_a_wait_is_ninety_seconds_where_nobody_says_it(service, monkeypatch, params, waits_s):
    """RunPod's default."""
    waited, run = [], service.services.jobs.run

    async def noted(ref, timeout_s):
        waited.append(timeout_s)
        return await run(ref, timeout_s)

    monkeypatch.setattr(service.services.jobs, "run", noted)
    await post(service, "/runsync", {"text": TEXT}, **params)
    assert waited == [waits_s]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_answers_hold_what_runpods_hold(service, prefix):
    """Each field by its name; times are whole milliseconds."""
    ended = await spoken(service)
    status = (await service.client.get(f"{prefix}/status/{ended['id']}")).json()
    for answer in (ended, status):
        assert {"id", "status", "output", "delayTime", "executionTime"} <= set(answer)
        assert [type(answer[name]) for name in ("delayTime", "executionTime")] == [int, int]
        assert "error" not in answer
    assert (await service.client.post(f"{prefix}/purge-queue")).json() == {"removed": 0, "status": "completed"}
    health = (await service.client.get(f"{prefix}/health")).json()
    assert set(health["jobs"]) == {"completed", "failed", "inProgress", "inQueue", "retried"}
    assert set(health["workers"]) == {"idle", "running"}
