"""Files of the directory store: signed, made anew at each read, and in ranges for players that seek."""

import json

import httpx
import pytest

from serve_app.settings import LimitSettings
from serve_app.storage import UrlSigner
from tests.support.jobs import Clock
from tests.support.service import LocalService

KEY, BODY = "audio/a.wav", bytes(range(100))
TEXT = "The birch canoe slid on the smooth planks."


@pytest.fixture
def service() -> LocalService:
    service = LocalService()
    service.store.put(KEY, BODY, content_type="audio/wav")
    return service


async def ask(service: LocalService, method: str = "GET", **headers: str) -> httpx.Response:
    url = service.signer.sign(KEY, 60, "a.wav")
    return await service.client.request(method, url, headers=headers)


async def test_a_head_describes_the_file_and_has_no_body(service):
    """As GET would answer, from the description alone; a range is for GET."""
    whole, head = await ask(service), await ask(service, "HEAD", Range="bytes=0-1")
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, BODY, "audio/wav")
    for answer in (whole, head):
        del answer.headers["x-request-id"]
    assert (head.status_code, head.content, dict(head.headers)) == (200, b"", dict(whole.headers))
    assert (head.headers["content-length"], head.headers["accept-ranges"]) == ("100", "bytes")
    assert (await service.client.head(f"/files/{KEY}?signature=no")).status_code == 403


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-1", 0, 2), ("bytes=10-19", 10, 20), ("bytes=90-", 90, 100), ("bytes=-7", 93, 100),
        ("bytes=95-500", 95, 100), ("bytes=-500", 0, 100), ("Bytes=99-99", 99, 100),
    ],
)  # fmt: skip
async def test_one_range_is_a_206_with_its_bytes(service, asked, begin, end):
    """Safari plays nothing from a server that cannot do this."""
    answer = await ask(service, Range=asked)
    assert (answer.status_code, answer.content) == (206, BODY[begin:end])
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/100"
    assert answer.headers["content-length"] == str(end - begin)


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=500-600", "bytes=-0"])
async def test_a_range_without_a_byte_is_a_416(service, asked):
    """It tells the size, and the code in our form."""
    answer = await ask(service, Range=asked)
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */100")
    assert answer.json()["error"]["code"] == "range_not_satisfiable"
    assert asked in answer.json()["error"]["message"]


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=5-2", "bytes=-", "bytes=x-1", "lines=0-1", ""])
async def test_what_is_no_single_range_gets_all(service, asked):
    """As RFC 9110 has it."""
    answer = await ask(service, Range=asked)
    assert (answer.status_code, answer.content) == (200, BODY)


async def test_a_range_of_what_was_replaced_gets_all_of_the_new(service):
    """If-Range names what the client has a part of."""
    etag = (await ask(service)).headers["etag"]
    assert (await ask(service, Range="bytes=0-1", **{"If-Range": etag})).status_code == 206
    service.store.put(KEY, BODY[::-1], content_type="audio/wav")
    answer = await ask(service, Range="bytes=0-1", **{"If-Range": etag})
    assert (answer.status_code, answer.content) == (200, BODY[::-1])


READS = {
    "status": ("GET", "/status/{id}", None),
    "job": ("GET", "/v1/jobs/{id}", None),
    "result": ("GET", "/v1/jobs/{id}/result", None),
    "events": ("GET", "/v1/jobs/{id}/events", None),
    "old result": ("POST", "/runsync", "result"),
    "old download": ("POST", "/runsync", "download"),
}


@pytest.mark.parametrize("name", READS)
async def test_each_read_gives_a_url_of_its_own_that_expires(name):
    """`limits.url_expiry_s` after the read, whenever the job ended."""
    clock = Clock()
    clock.now = 1_800_000_000.0
    limits = LimitSettings(url_expiry_s=100)
    service = LocalService(clock=clock, wall_clock=clock, limits=limits, signer=UrlSigner(b"k" * 32, now=clock))
    job_id = (await service.client.post("/v1/jobs", json={"input": TEXT})).json()["id"]
    await service.run_jobs()
    method, path, endpoint = READS[name]
    sent = {"input": {"endpoint": endpoint, "job_id": job_id}} if endpoint else None

    async def url() -> str:
        answer = await service.client.request(method, path.format(id=job_id), json=sent)
        (found,) = {each for each in json.dumps(answer.text).split('\\"') if "/files/" in each}
        return found

    async def read(url: str) -> int:
        return (await service.client.get(url)).status_code

    first = await url()
    clock.now += 99
    assert await read(first) == 200
    second = await url()
    clock.now += 1
    assert (first != second, await read(first), await read(second)) == (True, 403, 200)
    clock.now += 99
    assert await read(second) == 403
