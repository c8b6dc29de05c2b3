"""What clients that people have really send, and what they read of the answers: tests/golden/clients.

The names that they send are those of deploy.yaml's aliases.
"""

import json
from pathlib import Path

import httpx
import openai
import pytest
import yaml

from serve_app.api import create_app
from serve_app.audio import decode
from tests.support.service import LocalService
from tests.support.uploads import upload

ROOT = Path(__file__).parents[2]
CLIENTS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "tests/golden/clients").glob("*.json"))}
REQUESTS = [
    pytest.param(asked, id=f"{name} {number} {asked['method']} {asked['path']}")
    for name, client in CLIENTS.items()
    for number, asked in enumerate(client["requests"])
]
ALIASES = yaml.safe_load((ROOT / "deploy.yaml").read_text())["applications"][0]["args"]["aliases"]
TYPES = {"str": str, "int": int}


@pytest.fixture
async def service() -> LocalService:
    """Has a stored voice beside the built-in ones."""
    service = LocalService(model_aliases=ALIASES["models"], voice_aliases=ALIASES["voices"])
    await upload(service, "anna")
    return service


def has_form(answer: object, form: object) -> bool:
    """Whether all that the client reads is there, of its type, and no list is empty."""
    if isinstance(form, dict):
        return isinstance(answer, dict) and all(has_form(answer.get(key), each) for key, each in form.items())
    if isinstance(form, list):
        return isinstance(answer, list) and bool(answer) and all(has_form(each, form[0]) for each in answer)
    return isinstance(answer, TYPES[form])


@pytest.mark.parametrize("asked", REQUESTS)
async def test_their_requests_are_answered_as_they_read_it(service, asked):
    """200, with all fields that the client reads, or with audio of the type that it expects."""
    answer = await service.client.request(
        asked["method"], asked["path"], headers=asked.get("headers"), json=asked.get("json")
    )
    assert answer.status_code == 200, answer.text
    if "reads" in asked:
        assert has_form(answer.json(), asked["reads"])
        return
    assert answer.headers["content-type"] == asked["hears"]
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers.get("x-ignored-fields") == ("instructions" if "instructions" in asked["json"] else None)
    if asked["hears"] != "audio/pcm":
        assert len(decode(answer.content)) > 0


async def test_lists_have_all_that_can_be_asked_for(service):
    """Open WebUI offers aliases as models, and built-in and stored voices; each of them can be spoken with."""
    models = (await service.client.get("/v1/audio/models")).json()["models"]
    voices = (await service.client.get("/v1/audio/voices")).json()["voices"]
    assert {model["id"] for model in models} == {"preview", "f5", *ALIASES["models"]}
    assert [voice["id"] for voice in voices] == ["heart", "nature", "anna"]
    for model in models:
        answer = await service.client.post("/v1/audio/speech", json={"input": "Hi.", "model": model["id"]})
        assert answer.status_code == 200


async def test_home_assistants_requests_are_those_of_the_sdk(service):
    """What is replayed is what the openai SDK sends, called as Home Assistant calls it; it hears the audio."""
    sent: list[tuple[str, str, object]] = []

    async def note(request: httpx.Request) -> None:
        body = (await request.aread()).decode()
        sent.append((request.method, request.url.path, json.loads(body) if body else None))

    transport = httpx.ASGITransport(app=create_app(service.services))
    http = httpx.AsyncClient(transport=transport, event_hooks={"request": [note]})
    async with openai.AsyncOpenAI(api_key="sk-none", base_url="http://127.0.0.1/v1", http_client=http) as client:
        listed = await client.models.list()
        assert "tts-1" in [model.id for model in listed.data]
        for asked in CLIENTS["home_assistant"]["requests"][1:]:
            async with client.audio.speech.with_streaming_response.create(**asked["json"]) as answer:
                heard = b"".join([piece async for piece in answer.iter_bytes()])
            assert answer.headers["content-type"] == asked["hears"]
            assert len(heard) == int(answer.headers["content-length"]) > 0
    asked = [(each["method"], each["path"], each.get("json")) for each in CLIENTS["home_assistant"]["requests"]]
    assert sent == asked
