"""What is wrong with a body is said, before anything looks at what is in it."""

import json
from pathlib import Path

import pytest

from serve_app.api.errors import CODES
from tests.support.service import LocalService

JSON = "application/json"
BODY = b'{"input": {"text": "Hello."}}'


@pytest.fixture
def service() -> LocalService:
    return LocalService(told=False)


async def refusal(service: LocalService, body: bytes, content_type: str | None = JSON) -> dict:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = await service.client.post("/run", content=body, headers=headers)
    error = answer.json()
    assert (answer.status_code, error["code"], error["type"]) == (400, "invalid_request", "invalid_request_error")
    assert service.store.list("").items == []
    return error["message"]


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "text/plain"])
async def test_a_body_that_does_not_say_that_it_is_json(service, content_type):
    """As `curl -d` sends it: the message names the header, what it was, and what it is to be."""
    message = await refusal(service, BODY, content_type)
    assert f"Content-Type {content_type or ''!r}" in message
    assert "send Content-Type: application/json" in message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"input": ', ["body", "not JSON", "Expecting value", "character 10"]),
        (b'{"input": {"text": "x",}}', ["body", "not JSON", "Expecting property name", "character 23"]),
        (b'{"a":' * 50_000, ["body", "nested too deep"]),
        (b'{"input": {"text": "x", "seed": ' + b"1" * 5000 + b"}}", ["body", "too many digits"]),
        (b'{"input": {"text": "\xff"}}', ["body", "not UTF-8", "0xff"]),
    ],
    ids=["cut off", "comma", "deep", "digits", "bytes"],
)
async def test_a_body_that_is_no_json(service, body, words):
    """The field is the body, and the reason the parser's."""
    message = await refusal(service, body)
    assert [word for word in words if word not in message] == []
    assert "/docs" not in message
    assert not message.startswith("1")


@pytest.mark.parametrize("endpoint", ["upload", "status", None])
async def test_unknown_fields_are_told_what_is_known(service, endpoint):
    """In `input` as in our own body."""
    known = {"upload": "voice_file_url", "status": "job_id", None: "local_voice"}[endpoint]
    payload = {"foo": {"bar": 1}} | ({} if endpoint is None else {"endpoint": endpoint})
    message = await refusal(service, json.dumps({"input": payload}).encode())
    assert "input.foo: Extra inputs are not permitted (got {'bar': 1}): use some of " in message
    assert {"endpoint", known} <= set(message.rpartition("use some of ")[2].split("; ")[0].split(", "))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"text": "x", "speed": "fast"}, ["input.speed:", "(got 'fast')"]),
        ({"text": None}, ["input.text:", "(got None)"]),
        ({"text": ["x"] * 9000}, ["input.text:", "(got ['x', 'x'"]),
        ({"text": "x", "seed": "7" * 9000}, ["input.seed:", "(got '777"]),
        ({"endpoint": "status", "job_id": 5}, ["input.job_id:", "(got 5)"]),
        ({"text": "x", "path": 1}, ["input.path:", "(got 1)"]),
        ({}, ["input.text: Field required"]),
    ],
)
async def test_a_wrong_field_of_input_is_named_with_what_was_sent(service, payload, words):
    """As fields of a body are; what is long is shown in part."""
    message = await refusal(service, json.dumps({"input": payload}).encode())
    assert [word for word in words if word not in message] == []
    assert len(message) < 500


async def test_a_method_that_is_not_served_is_a_405_with_its_code(service):
    """As docs/api.md has it."""
    answer = await service.client.put("/v1/jobs")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert "GET /docs" in answer.json()["error"]["message"]


def test_the_codes_that_no_class_of_errors_has_are_documented():
    """Those of the framework's refusals, and of jobs that ended otherwise."""
    documented = (Path(__file__).parents[2] / "docs/api.md").read_text()
    codes = {*CODES.values(), "ttl_over", "cancelled", "canceled"}
    assert sorted(code for code in codes if f"`{code}`" not in documented) == []
