"""Texts and bodies at and beyond what can be spoken, in every dialect that takes a text."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.service import LocalService
from tests.support.uploads import sample

JSON = {"content-type": "application/json"}
TALK = "/v1/text-to-speech/nature"
Body = Callable[[Any], dict[str, Any]]


def openai(text: Any) -> dict[str, Any]:
    return {"input": text}


def runpod(text: Any) -> dict[str, Any]:
    return {"input": {"text": text}}


ROUTES: list[tuple[str, Body]] = [
    ("/v1/audio/speech", openai),
    ("/v1/audio/speech", lambda text: {"input": text, "stream_format": "audio"}),
    ("/v1/audio/speech", lambda text: {"input": text, "stream_format": "sse"}),
    ("/v1/jobs", openai),
    ("/run", runpod),
    ("/runsync", runpod),
    ("/v2/any/run", runpod),
]
if "/v1/text-to-speech/{voice_id}" in LocalService().app.openapi()["paths"]:
    ROUTES += [(TALK, lambda text: {"text": text}), (f"{TALK}/stream", lambda text: {"text": text})]
EACH = pytest.mark.parametrize(("path", "body"), ROUTES, ids=[f"{path}-{at}" for at, (path, _) in enumerate(ROUTES)])


async def answered(service: LocalService, path: str, content: str | bytes) -> tuple[int, str, str]:
    """Status, and of a refusal its code and message."""
    answer = await service.client.post(path, content=content, headers=JSON)
    if answer.status_code < 400:
        return answer.status_code, "", ""
    told = answer.json()
    told = next(each for each in (told.get("error"), told.get("detail"), told) if isinstance(each, dict))
    assert told["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, told["code"], told["message"]


@EACH
async def test_a_text_of_no_character_and_of_one(path: str, body: Body):
    """Nothing is refused by its name, one letter is spoken."""
    service = LocalService()
    status, code, message = await answered(service, path, json.dumps(body("")))
    assert (status, code, "is empty" in message) == (400, "invalid_text", True)
    assert service.engine.calls == []
    assert (await answered(service, path, json.dumps(body("a"))))[0] < 300


@EACH
async def test_a_text_of_a_million_characters(path: str, body: Body):
    """Is not taken: 413 that names the field and says how many are."""
    service = LocalService()
    status, code, message = await answered(service, path, json.dumps(body("a " * 500_000)))
    assert (status, code) == (413, "payload_too_large")
    assert ("1000000" in message, len(message) < 300) == (True, True)
    assert service.engine.calls == []
    assert service.store.list("").items == []


@EACH
@pytest.mark.parametrize("text", ["\0", "\0\x01\x1b\x7f", "\ufeff\u200b", "\ud83d", "x\ud83d", "a" + "\u0301" * 500])
async def test_a_text_of_nothing_that_can_be_heard(path: str, body: Body, text: str):
    """Controls alone, half a character, a tower of accents: 400 that names the text."""
    service = LocalService()
    status, code, message = await answered(service, path, json.dumps(body(text)))
    assert (status, code) == (400, "invalid_text")
    assert [name for name in ("input", "text") if message.startswith(name)] != []
    assert service.engine.calls == []


@EACH
async def test_controls_among_words_are_not_spoken(path: str, body: Body):
    """They are taken out, and the words are spoken."""
    assert (await answered(LocalService(), path, json.dumps(body("Hel\0lo\x1b \x07world\ufeff."))))[0] < 300


@EACH
@pytest.mark.parametrize("value", ["5", "1e999", "NaN", "Infinity", "-Infinity", "null", "true", "[[[]]]", "{}"])
async def test_a_text_that_is_none(path: str, body: Body, value: str):
    """Whatever JSON, or Python, calls a value: 400, and the field is named."""
    service = LocalService()
    content = json.dumps(body("@")).replace('"@"', value)
    status, code, message = await answered(service, path, content)
    assert (status, code) == (400, "invalid_request")
    assert ("text" in message or "input" in message, len(message) < 300) == (True, True)


@EACH
@pytest.mark.parametrize("value", ["1e999", "-1e999", "NaN", "Infinity", "1" * 400, "1e308", '"1"', "true", "[1]"])
@pytest.mark.parametrize("field", ["speed", "seed"])
async def test_a_number_that_is_none_or_too_large(path: str, body: Body, value: str, field: str):
    """400 that names it: also what is as large as no number of the machine."""
    service = LocalService()
    sent = body("Hello.")
    inner = sent["input"] if isinstance(sent.get("input"), dict) else sent
    if path.startswith(TALK) and field == "speed":
        inner = inner.setdefault("voice_settings", {})
    inner[field] = "@"
    status, code, message = await answered(service, path, json.dumps(sent).replace('"@"', value))
    assert (status, code) == (400, "invalid_request")
    assert (field in message, len(message) < 600) == (True, True)
    assert service.engine.calls == []


@EACH
@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"\xff\xfe", b"[" * 100_000, b'{"input":' * 50_000, b'"text"', b"[]", b"null", b'{"input": "a"'],
    ids=["nothing", "nul", "utf-16", "deep list", "deep object", "text", "list", "null", "cut off"],
)
async def test_a_body_that_is_none(path: str, body: Body, content: bytes):
    """400 in the dialect's form."""
    status, code, message = await answered(LocalService(), path, content)
    assert (status, code) == (400, "invalid_request")
    assert ("body" in message, len(message) < 300) == (True, True)


@EACH
@pytest.mark.parametrize("unknown", [{f"x{at}": at for at in range(1000)}, {"x" * 100_000: 1}], ids=["many", "long"])
async def test_a_body_of_fields_that_there_are_not(path: str, body: Body, unknown: dict[str, int]):
    """400 that names the first, and is no book."""
    sent = body("Hello.")
    (sent["input"] if isinstance(sent.get("input"), dict) else sent).update(unknown)
    status, code, message = await answered(LocalService(), path, json.dumps(sent))
    assert (status, code, len(message) < 2000) == (400, "invalid_request", True)
    assert next(iter(unknown))[:80] in message


@EACH
@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded", "x"])
async def test_a_body_that_says_that_it_is_something_else(path: str, body: Body, kind: str):
    """400 that names the header and what it is to be."""
    answer = await LocalService().client.post(path, content=json.dumps(body("a")), headers={"content-type": kind})
    assert answer.status_code == 400
    assert "application/json" in answer.text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([("name", b"anna"), ("name", b"bert")], ["name", "2 times"]),
        ([("name", b"anna"), ("ref_txt", b"Hello.")], ["ref_txt", "no field", "ref_text"]),
        ([("name", b"anna"), ("name\0", b"x")], ["name", "no field"]),
        ([("name", b"an\0na")], ["name", "letters"]),
        ([("name", b"\xff")], ["name"]),
        ([("name", b"anna"), ("labels", b"[" * 100_000)], ["labels"]),
        ([("name", b"anna"), ("labels", b'{"a": NaN}')], ["labels"]),
    ],
)
async def test_a_form_with_a_field_that_is_unknown_or_there_twice(fields: list[tuple[str, bytes]], words: list[str]):
    """400 that names it, and nothing is stored."""
    service = LocalService()
    files = [*((name, (None, value)) for name, value in fields), ("audio_sample", ("a.wav", sample()))]
    answer = await service.client.post("/v1/audio/voices", files=files)
    told = answer.json()["error"]
    assert (answer.status_code, [word for word in words if word not in told["message"]]) == (400, []), told
    assert service.store.list("").items == []


async def test_a_form_with_two_recordings():
    """None of them is chosen in silence."""
    service = LocalService()
    files = [("name", (None, b"anna")), *[("audio_sample", ("a.wav", sample()))] * 2]
    answer = await service.client.post("/v1/audio/voices", files=files)
    assert (answer.status_code, "audio_sample comes 2 times" in answer.text) == (400, True)
