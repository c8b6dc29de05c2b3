"""A name that does not exist is told with those that may have been meant."""

import re

import pytest

from serve_app import keys
from serve_app.domain import DEFAULT_TENANT
from serve_app.errors import StorageDenied
from serve_app.near import near_names
from serve_app.storage import MemoryStore, Page
from serve_app.voices.near import near_voices
from tests.support.service import LocalService
from tests.support.uploads import upload

SPEECH = "/v1/audio/speech"
VOICES = "/v1/audio/voices"


class Listed(MemoryStore):
    """Remembers how often, and how much of it, it was listed."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[int] = []

    def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        page = super().list(prefix, after=after, limit=limit)
        self.pages.append(len(page.items))
        return page


class Unlisted(MemoryStore):
    """Its keys may read, and not list."""

    def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        raise StorageDenied("ListBucket is not allowed: allow it")


async def told(service: LocalService, body: dict[str, str]) -> tuple[str, list[str]]:
    """Code and near names of the refusal of `body`."""
    answer = await service.client.post(SPEECH, json={"input": "Hi."} | body)
    assert answer.status_code == 404
    return answer.json()["error"]["code"], near(answer.text)


def near(text: str) -> list[str]:
    found = re.search(r"(does not exist|is not deployed) \(near it: (.*?)\)", text)
    return found[2].split(", ") if found else []


def put(store: MemoryStore, name: str) -> None:
    store.put(keys.voice_audio(DEFAULT_TENANT, name), b"-", content_type="audio/wav")
    store.put(keys.voice_text(DEFAULT_TENANT, name), b"-", content_type="text/plain")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ana", ["anna", "hanna"]),
        ("ANNA", ["anna", "hanna"]),
        ("Bertt", ["Bert"]),
        ("zzzz", []),
        ("", []),
        ("anna" * 100_000, []),
    ],
)
def test_near_names_are_found(name: str, found: list[str]):
    """By their letters, whatever their case; nothing for what is like none."""
    assert near_names(name, ["hanna", "anna", "Bert"]) == found


def test_three_names_are_told_at_most():
    """A list of all would help nobody."""
    assert near_names("anna", [f"anna{at}" for at in range(9)]) == ["anna8", "anna7", "anna6"]


async def test_an_unknown_voice_is_told_with_near_ones():
    """Stored ones, those of the model, and aliases; nothing is said where none is near, nor of another model's."""
    service = LocalService()
    for name in ("anna", "hanna"):
        assert (await upload(service, name)).status_code == 201
    for voice, names in (("ana", ["anna", "hanna"]), ("natur", ["nature"]), ("aloy", ["alloy"]), ("hearts", [])):
        assert await told(service, {"voice": voice, "model": "f5"}) == ("voice_not_found", names)
    assert await told(service, {"voice": "hearts", "model": "preview"}) == ("voice_not_found", ["heart"])


async def test_the_routes_of_voices_tell_near_ones_too():
    """Who looks for a voice, or deletes it, is helped as who speaks with it."""
    service = LocalService()
    await upload(service, "anna")
    for method in ("GET", "DELETE"):
        answer = await service.client.request(method, f"{VOICES}/Ana")
        assert (answer.status_code, near(answer.text)) == (404, ["anna"])


async def test_an_unknown_model_is_told_with_near_ones():
    """Models and their aliases; a name as long as a body is shown in part."""
    service = LocalService()
    assert await told(service, {"model": "F-5"}) == ("model_not_found", ["f5"])
    assert await told(service, {"model": "tts1"}) == ("model_not_found", ["tts-1"])
    assert near((await service.client.get("/v1/models/previw")).text) == ["preview"]
    answer = await service.client.post(SPEECH, json={"input": "Hi.", "model": "x" * 100_000})
    assert (answer.status_code, len(answer.text) < 500) == (404, True)


def test_a_store_of_many_voices_is_listed_twice_at_most():
    """And a name is found that begins as the unknown one does, wherever it lies."""
    store = Listed()
    for at in range(1500):
        put(store, f"a{at:04}")
    put(store, "zoe")
    assert near_voices(store, DEFAULT_TENANT, "zoey") == ["zoe"]
    assert store.pages == [1000, 2]


def test_a_small_store_is_listed_once():
    """All that there is was in that listing."""
    store = Listed()
    put(store, "zoe")
    assert near_voices(store, DEFAULT_TENANT, "Oe", ["noe"]) == ["zoe", "noe"]
    assert store.pages == [2]


def test_voices_of_other_tenants_are_not_told():
    """Their names are theirs."""
    store = MemoryStore()
    put(store, "anna")
    assert near_voices(store, "other", "ana") == []


async def test_a_store_that_cannot_be_listed_makes_no_other_error():
    """That no voice has the name is known without a listing."""
    assert await told(LocalService(store=Unlisted()), {"voice": "natur"}) == ("voice_not_found", ["nature"])
