"""OpenAI's dialect over the whole service in one process."""

import json

import pytest

from serve_app.api.services import PartStatus
from serve_app.settings import LimitSettings
from tests.support.service import LocalService
from tests.support.uploads import upload

SPEECH = "/v1/audio/speech"


@pytest.fixture
def service() -> LocalService:
    return LocalService()


async def test_every_answer_names_the_model_and_says_draft(service):
    """f5 is the default where it is deployed; preview says that it is a draft."""
    default = await service.client.post(SPEECH, json={"input": "Hi.", "model": "tts-1", "voice": "alloy", "seed": 3})
    preview = await service.client.post(SPEECH, json={"input": "Hi.", "model": "preview"})
    assert [default.headers[name] for name in ("x-model", "x-draft", "x-seed")] == ["f5", "false", "3"]
    assert [preview.headers[name] for name in ("x-model", "x-draft")] == ["preview", "true"]


async def test_the_seed_decides_the_audio(service):
    """Same seed, same bytes; the seed that was drawn is told, so that it can be sent again."""
    first = await service.client.post(SPEECH, json={"input": "Hi.", "response_format": "pcm"})
    seed = int(first.headers["x-seed"])
    again = await service.client.post(SPEECH, json={"input": "Hi.", "response_format": "pcm", "seed": seed})
    other = await service.client.post(SPEECH, json={"input": "Hi.", "response_format": "pcm", "seed": seed ^ 1})
    assert first.content == again.content
    assert first.content != other.content


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({"input": "  "}, 400, "invalid_text", ["input", "empty"]),
        ({}, 400, "invalid_request", ["input", "required"]),
        ({"input": "?!"}, 400, "invalid_text", ["input", "?!"]),
        ({"input": "half \ud83d"}, 400, "invalid_text", ["half a character"]),
        ({"input": "Hi.", "model": "gpt-9"}, 404, "model_not_found", ["gpt-9", "preview", "tts-1"]),
        ({"input": "Hi.", "voice": "nobody"}, 404, "voice_not_found", ["voice", "nobody", "GET /v1/audio/voices"]),
        ({"input": "Hi.", "voice": "../etc"}, 400, "invalid_voice_name", ["../etc"]),
        ({"input": "Hi.", "speed": 9}, 400, "invalid_request", ["speed", "9", "0.25 to 4"]),
        ({"input": "Hi.", "seed": -1}, 400, "invalid_request", ["seed", "-1"]),
        ({"input": "Hi.", "response_format": "aiff"}, 422, "unsupported_format", ["response_format", "aiff", "opus"]),
        (
            {"input": "Hi.", "response_format": "opus", "sample_rate": 44100},
            422,
            "unsupported_format",
            ["sample_rate", "44100", "48000"],
        ),
        ({"input": "Hi.", "sample_rate": False}, 400, "invalid_request", ["sample_rate"]),
        ({"input": "Hi.", "bit_rate": 1}, 422, "unsupported_format", ["bit_rate", "8000 to 160000"]),
        ({"input": "Hi.", "stream_format": "chunks"}, 400, "invalid_request", ["stream_format", "chunks", "sse"]),
        ({"input": "Hi.", "nonsense": 1}, 400, "invalid_request", ["nonsense"]),
    ],
)
async def test_bad_input_is_refused_with_the_field_the_value_and_the_remedy(service, body, status, code, words):
    """Nothing is synthesised, and the error says what to change."""
    answer = await service.client.post(SPEECH, content=json.dumps(body), headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert [word for word in words if word not in error["message"]] == []
    assert set(error) == {"type", "code", "message", "request_id"}
    assert service.engine.calls == []


@pytest.mark.parametrize(("path", "body"), [(SPEECH, {"input": "x" * 21}), ("/run", {"input": {"text": "x" * 21}})])
async def test_a_text_over_the_limit_is_refused(path, body):
    """413 with both numbers, for a job as for a call; one character less is taken."""
    small = LocalService(limits=LimitSettings(max_text_chars=20))
    answer = await small.client.post(path, json=body)
    error = answer.json() if path == "/run" else answer.json()["error"]
    assert (answer.status_code, error["code"]) == (413, "payload_too_large")
    assert [word for word in ("21", "20", "in parts") if word not in error["message"]] == []
    assert (await small.client.post(path, json=json.loads(json.dumps(body).replace("xx", "x", 1)))).status_code == 200


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_refused(announced):
    """Whether its length was announced or not, the body is not taken."""
    small = LocalService(limits=LimitSettings(body_bytes=1024))
    content = b'{"input": "' + b"x" * 2048 + b'"}'

    async def pieces():
        yield content

    answer = await small.client.post(
        SPEECH, content=content if announced else pieces(), headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")


async def test_the_engine_failing_is_a_500_without_its_insides():
    """An unexpected error is opaque and carries the request id."""
    service = LocalService()

    async def broken(request):
        raise ZeroDivisionError("secret detail")

    service.speaker.stream = broken
    answer = await service.client.post(SPEECH, json={"input": "Hi."}, headers={"x-request-id": "abc"})
    assert answer.status_code == 500
    assert answer.json()["error"]["request_id"] == "abc"
    assert "secret" not in answer.text


async def test_the_request_id_is_taken_or_made(service):
    """A caller's id is echoed, and made where there is none or one that is no id."""
    taken = await service.client.get("/nothing", headers={"x-request-id": "abc 1"})
    assert (taken.headers["x-request-id"], taken.json()["error"]["request_id"]) == ("abc 1", "abc 1")
    for given in ({}, {"x-request-id": "x" * 200}):
        made = await service.client.get("/nothing", headers=given)
        assert len(made.headers["x-request-id"]) == 36
        assert made.headers["x-request-id"] == made.json()["error"]["request_id"]


async def test_models_lists_the_deployed_and_the_aliases(service):
    """Clients that check the model against the list find both."""
    data = (await service.client.get("/v1/models")).json()
    assert data["object"] == "list"
    assert [(model["id"], model["draft"]) for model in data["data"]] == [
        ("preview", True),
        ("f5", False),
        ("tts-1", False),
    ]
    assert (await service.client.get("/v1/models/tts-1")).json()["id"] == "tts-1"
    assert (await service.client.get("/v1/models/gpt-9")).status_code == 404


async def test_a_voice_lives_from_upload_to_delete(service):
    """Create, list, speak, delete, gone."""
    created = await upload(service)
    assert (created.status_code, created.json()["id"]) == (201, "anna")
    listed = (await service.client.get("/v1/audio/voices")).json()["voices"]
    assert [(voice["id"], voice["builtin"]) for voice in listed] == [("heart", True), ("nature", True), ("anna", False)]
    spoken = await service.client.post(SPEECH, json={"input": "Hi.", "voice": "anna"})
    assert spoken.status_code == 200
    deleted = await service.client.delete("/v1/audio/voices/anna")
    assert deleted.json() == {"id": "anna", "object": "audio.voice", "deleted": True}
    assert (await service.client.delete("/v1/audio/voices/anna")).status_code == 404
    assert (await service.client.post(SPEECH, json={"input": "Hi.", "voice": "anna"})).status_code == 404


async def test_voices_are_paged(service):
    """Pages neither lose nor repeat a voice; built-in ones stand on the first page only."""
    for name in ("a", "b", "c"):
        await upload(service, name)
    first = (await service.client.get("/v1/audio/voices?limit=2")).json()
    rest = (await service.client.get(f"/v1/audio/voices?limit=2&after={first['next_after']}")).json()
    assert [voice["id"] for voice in first["voices"]] == ["heart", "nature", "a", "b"]
    assert [voice["id"] for voice in rest["voices"]] == ["c"]
    assert rest["next_after"] is None


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({"name": "heart"}, 409, "name_reserved"),
        ({"name": "../x"}, 400, "invalid_voice_name"),
        ({"name": ""}, 400, "invalid_request"),
    ],
)
async def test_a_bad_voice_name_is_refused(service, form, status, code):
    """Built-in names are reserved, and a name can never be a path."""
    answer = await upload(service, **form)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_an_uploaded_voice_wins_over_an_alias(service):
    """Uploading `alloy` makes `alloy` mean that voice."""
    await upload(service, "alloy")
    before = len(service.engine.calls)
    answer = await service.client.post(SPEECH, json={"input": "Hi.", "voice": "alloy"})
    assert answer.status_code == 200
    assert len(service.engine.calls) == before + 1
    assert (
        await service.services.acceptance._voice("default", "alloy", "voice", service.services.catalog.default)
    ).name == "alloy"


async def test_a_file_that_is_no_audio_is_refused(service):
    """422 that names the field; nothing is stored."""
    answer = await service.client.post(
        "/v1/audio/voices", data={"name": "anna"}, files={"audio_sample": ("a.wav", b"not audio")}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_audio")
    assert "audio_sample" in answer.json()["error"]["message"]
    assert (await service.client.get("/v1/audio/voices")).json()["voices"][2:] == []


async def test_models_are_listed_with_licence_and_state():
    """A model that cannot start says why; an alias has the state of what it means."""
    service = LocalService(not_ready={"f5": PartStatus("failed", message="no such wheel")})
    listed = {model["id"]: model for model in (await service.client.get("/v1/models")).json()["data"]}
    keys = ("state", "replicas", "message")
    told = {name: [listed[name][key] for key in keys] for name in ("preview", "f5", "tts-1")}
    failed = ["failed", 0, "no such wheel"]
    assert told == {"preview": ["ready", 1, ""], "f5": failed, "tts-1": failed}
    assert (listed["f5"]["license"], listed["f5"]["languages"]) == ("Apache-2.0", ["en"])
    assert (await service.client.get("/v1/models/f5")).json() == listed["f5"]


async def test_readiness_says_what_is_missing():
    """503 with the parts that are not ready, 200 when there are none."""
    service = LocalService(not_ready={"f5": PartStatus("starting", message="loading")})
    assert (await service.client.get("/readyz")).json()["waiting_for"] == {"f5": "loading"}
    assert (await service.client.get("/readyz")).status_code == 503
    service.not_ready.clear()
    assert (await service.client.get("/readyz")).status_code == 200
    assert (await service.client.get("/healthz")).status_code == 200


async def test_an_unknown_path_has_the_same_error_form(service):
    """Errors of the framework itself carry the four fields too."""
    answer = await service.client.get("/nothing")
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"type", "code", "message", "request_id"}


async def test_docs_are_served(service):
    """/docs shows every route of both dialects."""
    assert (await service.client.get("/docs")).status_code == 200
    paths = (await service.client.get("/openapi.json")).json()["paths"]
    assert {"/v1/audio/speech", "/run", "/runsync", "/status/{job_id}", "/v1/audio/voices"} <= set(paths)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8000"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1.evil.example"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "http://localhost"},
        {"origin": "http://["},
        {"host": "[::1"},
    ],
)
async def test_other_names_and_other_pages_are_refused(service, headers):
    """Neither a rebound name nor another site's page reaches the service through a browser."""
    answer = await service.client.post(SPEECH, json={"input": "Hi."}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_refused")
    assert "allowed_hosts" in answer.json()["error"]["message"]
    assert service.engine.calls == []


@pytest.mark.parametrize(
    "headers",
    [{"host": "localhost:8000"}, {"host": "[::1]:8000"}, {"host": "localhost:8000", "origin": "http://localhost:8000"}],
)
async def test_loopback_names_are_answered(service, headers):
    """The names of this machine itself are allowed, with any port."""
    assert (await service.client.post(SPEECH, json={"input": "Hi."}, headers=headers)).status_code == 200
