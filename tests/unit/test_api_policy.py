"""What a client may ask of a job beside the speech: limits, priority, a webhook, how long its result is kept."""

import json
import re
import time

import pytest

from serve_app import keys
from serve_app.api.job_forms import job_form
from serve_app.api.policy import JobPolicyDefaults, native_policy, runpod_policy
from serve_app.jobs import Collector, JobRef, JobRequest, JobStatus, JobStore
from tests.support.jobs import Clock
from tests.support.service import LocalService

TEXT = "The birch canoe slid on the smooth planks."
DAY_S = 86_400.0


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = time.time()  # the store's times are real
    return clock


@pytest.fixture
def service(clock) -> LocalService:
    return LocalService(wall_clock=clock, told=False)


def ref_of(job_id: str) -> JobRef:
    return JobRef(tenant="default", job_id=job_id)


def status_of(service: LocalService, job_id: str) -> JobStatus:
    return JobStore(service.store, wall_clock=service.wall_clock).status(ref_of(job_id))


def request_of(service: LocalService, job_id: str) -> JobRequest:
    return status_of(service, job_id).request


async def run(service: LocalService, path: str = "/run", *, text: str = TEXT, **fields) -> str:
    answer = await service.client.post(path, json={"input": {"text": text}, **fields})
    return answer.json()["id"]


async def test_runpods_policy_is_kept_with_the_job(service):
    """Milliseconds become seconds, and what decides the turn of a job is in its record."""
    policy = {"executionTimeout": 7_000, "lowPriority": True, "ttl": 3_600_000}
    request = request_of(service, await run(service, "/run?ttl=5000", policy=policy, webhook="https://host/hook?a=1"))
    assert (request.execution_timeout_s, request.low_priority, request.ttl_s) == (7.0, True, 3600.0)
    assert (request.retention_s, request.webhook) == (5.0, "https://host/hook?a=1")
    assert request.base_url == "http://127.0.0.1"
    assert request.audio_s == pytest.approx(len(TEXT) / 15, abs=0.5)


async def test_our_own_fields_are_kept_with_the_job(service):
    """The same in seconds, in our own body."""
    body = {
        "input": TEXT, "execution_timeout_s": 1.5, "low_priority": True, "ttl_s": 60, "retention_s": 90,
        "webhook": "http://host/", "cache": False,
    }  # fmt: skip
    request = request_of(service, (await service.client.post("/v1/jobs", json=body)).json()["id"])
    assert (request.execution_timeout_s, request.low_priority, request.ttl_s) == (1.5, True, 60.0)
    assert (request.retention_s, request.webhook, request.cache) == (90.0, "http://host/", False)
    assert (request.dialect, request.worker_output) == ("native", False)


async def test_what_is_not_sent_is_the_operators():
    """Without a policy the limits are those of the settings, in both forms."""
    service = LocalService(job_defaults=JobPolicyDefaults(ttl_s=11.0, retention_s=22.0), told=False)
    native = (await service.client.post("/v1/jobs", json={"input": TEXT})).json()["id"]
    for job_id in (await run(service), await run(service, policy={}), await run(service, policy={"ttl": None}), native):
        request = request_of(service, job_id)
        assert (request.ttl_s, request.retention_s, request.execution_timeout_s) == (11.0, 22.0, None)
        assert (request.low_priority, request.webhook, request.seeded, request.cache) == (False, None, False, True)


BAD_RUNPOD = [
    ({"policy": []}, ["policy", "[]", "object"]),
    ({"policy": "fast"}, ["policy", "'fast'", "object"]),
    ({"policy": {"executiontimeout": 9}}, ["policy", "'executiontimeout'", "executionTimeout"]),
    ({"policy": {"\ud800": 9}}, ["policy", "ud800"]),
    ({"policy": {"executionTimeout": 999}}, ["policy.executionTimeout", "999", "1000"]),
    ({"policy": {"executionTimeout": 604_800_001}}, ["policy.executionTimeout", "604800000"]),
    ({"policy": {"executionTimeout": "5000"}}, ["policy.executionTimeout", "'5000'"]),
    ({"policy": {"executionTimeout": True}}, ["policy.executionTimeout", "True"]),
    ({"policy": {"ttl": 0}}, ["policy.ttl", "0", "milliseconds"]),
    ({"policy": {"ttl": -1}}, ["policy.ttl", "-1"]),
    ({"policy": {"ttl": [1]}}, ["policy.ttl", "[1]"]),
    ({"policy": {"lowPriority": 1}}, ["policy.lowPriority", "1", "true or false"]),
    ({"webhook": "ftp://host/x"}, ["webhook", "ftp://host/x", "http://"]),
    ({"webhook": "http://user:pw@host/"}, ["webhook", "password"]),
    ({"webhook": ""}, ["webhook"]),
    ({"webhook": 5}, ["webhook", "5"]),
    ({"s3Config": {"bucketName": "b"}}, ["s3Config", "audio_url", "S3_BUCKET"]),
]


@pytest.mark.parametrize("path", ["/run", "/runsync", "/v2/mine/run"])
@pytest.mark.parametrize(("fields", "words"), BAD_RUNPOD)
async def test_a_policy_that_cannot_be_kept_is_refused(service, path, fields, words):
    """422 that names the field, the value and the remedy; nothing is stored."""
    content = json.dumps({"input": {"text": TEXT}, **fields})
    answer = await service.client.post(path, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_policy")
    assert [word for word in words if word not in answer.json()["error"]] == []
    assert service.store.list("").items == []


@pytest.mark.parametrize("ttl", ["999", "-1", "x", "1.5", "", "9" * 30, "31622400001"])
@pytest.mark.parametrize("path", ["/run", "/runsync", "/status/01939f00-0000-7000-8000-00000000000a"])
async def test_a_ttl_that_is_none_is_refused(service, path, ttl):
    """The query, too, is a policy."""
    call = service.client.get if path.startswith("/status") else service.client.post
    body = {} if path.startswith("/status") else {"json": {"input": {"text": TEXT}}}
    answer = await call(path, params={"ttl": ttl}, **body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_policy")
    assert "ttl" in answer.json()["error"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"execution_timeout_s": 0.9}, ["execution_timeout_s", "0.9", "seconds"]),
        ({"ttl_s": "60"}, ["ttl_s", "'60'"]),
        ({"retention_s": 1e12}, ["retention_s", "31622400"]),
        ({"retention_s": True}, ["retention_s", "True"]),
        ({"low_priority": "yes"}, ["low_priority", "'yes'"]),
        ({"webhook": {"url": "http://x"}}, ["webhook", "url"]),
        ({"webhook": "javascript:alert(1)"}, ["webhook", "javascript"]),
    ],
)
async def test_our_own_policy_fields_are_checked_alike(service, fields, words):
    """The same 422, in our own envelope."""
    answer = await service.client.post("/v1/jobs", json={"input": TEXT, **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_policy")
    assert [word for word in words if word not in error["message"]] == []
    assert service.store.list("").items == []


def test_the_ends_of_the_ranges_are_taken():
    """1 s to 7 days for what limits a job, to a leap year for its result."""
    none = JobPolicyDefaults()
    for ms in (1000, 604_800_000):
        policy = runpod_policy({"executionTimeout": ms, "ttl": ms}, None, None, "31622400000", none)
        assert (policy.execution_timeout_s, policy.ttl_s, policy.retention_s) == (ms / 1000, ms / 1000, 366 * DAY_S)
    ends = {"execution_timeout_s": 1, "ttl_s": 604_800, "retention_s": 1.0}
    native = native_policy(**ends, low_priority=False, webhook=None, defaults=none)
    assert (native.execution_timeout_s, native.ttl_s, native.retention_s) == (1.0, 604_800.0, 1.0)


async def test_a_call_that_is_no_job_takes_no_webhook(service):
    """Nothing that cannot be kept is dropped in silence."""
    body = {"input": {"endpoint": "list_voices"}, "webhook": "https://host/"}
    for path in ("/run", "/runsync"):
        answer = await service.client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_policy")
        assert "list_voices" in answer.json()["error"]


async def test_a_result_past_its_retention_is_410(service, clock):
    """In both forms, from the moment on, whether it was removed already or not."""
    job_id = await run(service, "/run?ttl=5000")
    await service.run_jobs()
    assert (await service.client.get(f"/status/{job_id}")).json()["status"] == "COMPLETED"
    clock.now += 5.1
    flat = {"GET /status/{}", "GET /stream/{}", "POST /cancel/{}", "POST /retry/{}"}
    native = {"GET /v1/jobs/{}"} | {f"GET /v1/jobs/{{}}/{what}" for what in ("result", "events")}
    native |= {f"POST /v1/jobs/{{}}/{what}" for what in ("cancel", "retry")}
    for call in flat | native:
        method, path = call.format(job_id).split()
        answer = await service.client.request(method, path)
        body = answer.json() if call in flat else answer.json()["error"]
        assert (answer.status_code, body["code"]) == (410, "job_expired"), call


async def test_a_status_call_shortens_the_retention(service, clock):
    """?ttl= counts from the call, never makes it longer, and asking again writes nothing."""
    job_id = await run(service)
    await service.client.get(f"/status/{job_id}", params={"ttl": 1000})  # not ended: it changes nothing
    await service.run_jobs()
    clock.now += 2
    assert (await service.client.get(f"/status/{job_id}", params={"ttl": 10_000})).json()["status"] == "COMPLETED"
    written = [info.key for info in service.store.list("").items]
    clock.now += 5
    await service.client.get(f"/status/{job_id}", params={"ttl": 100_000})
    assert [info.key for info in service.store.list("").items] == written
    clock.now += 5.1
    assert (await service.client.get(f"/status/{job_id}")).status_code == 410


async def test_kept_calls_are_removed_after_the_retention(service, clock):
    """The answer of a call that was no job is no garbage for ever."""
    answers = [
        await service.client.post("/run", json={"input": {"endpoint": "list_voices"}}, params=params)
        for params in ({}, {"ttl": 1000}, {})
    ]
    default, short, shortened = (answer.json()["id"] for answer in answers)
    answer = await service.client.get(f"/status/{shortened}", params={"ttl": 2000})
    assert answer.json()["status"] == "COMPLETED"
    await service.client.get(f"/stream/{short}")

    def kept() -> set[str]:
        for shard in keys.SHARDS:
            Collector(service.store, clock).collect(shard)
        return {info.key.rpartition("/")[2].removesuffix(".v1.json") for info in service.store.list("calls/").items}

    assert kept() == {default, short, shortened}
    clock.now += 1.5
    assert kept() == {default, shortened}
    assert (await service.client.get(f"/status/{short}")).status_code == 404
    clock.now += 1
    assert kept() == {default}
    clock.now += 7 * DAY_S
    assert (kept(), service.store.list("").items) == (set(), [])


@pytest.mark.parametrize("path", ["/run", "/v1/jobs"])
async def test_a_webhook_says_what_a_look_at_the_job_says(service, path):
    """The body of the webhook is the job as its own dialect has it, with URLs that begin alike."""
    text = {"input": TEXT} if path == "/v1/jobs" else {"input": {"text": TEXT}}
    job_id = (await service.client.post(path, json=text)).json()["id"]
    await service.run_jobs()
    status = status_of(service, job_id)

    def url(key: str, filename: str) -> str:
        return f"{status.request.base_url}{service.store.url(key, expires_s=3600, filename=filename)}"

    told = job_form(status, url)
    looked = (await service.client.get(f"/v1/jobs/{job_id}" if path == "/v1/jobs" else f"/status/{job_id}")).json()
    assert unsigned(told) == unsigned(looked)


def unsigned(form: dict) -> dict:
    """Two URLs that are made one after the other differ in the second of their expiry."""
    return json.loads(re.sub(r"expires=\d+|signature=[\w-]+", "", json.dumps(form)))
