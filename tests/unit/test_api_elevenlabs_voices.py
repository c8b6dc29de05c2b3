"""ElevenLabs' voices over the whole service in one process."""

import json

import pytest

from serve_app.settings import LimitSettings
from tests.support.service import LocalService
from tests.support.uploads import sample, upload

ADD = "/v1/voices/add"
WAV = ("a.wav", sample())


@pytest.fixture
def service() -> LocalService:
    return LocalService()


async def add(service: LocalService, *files: tuple[str, bytes], **form: str):
    data = {"name": "anna", "ref_text": "Hello there."} | form
    return await service.client.post(ADD, data=data, files=[("files", file) for file in files or (WAV,)])


async def listed(service: LocalService, **query: object) -> list[str]:
    answer = await service.client.get("/v2/voices", params=query)
    assert answer.status_code == 200, answer.text
    return [voice["voice_id"] for voice in answer.json()["voices"]]


async def test_a_voice_lives_from_add_to_delete(service):
    """Add, list, tell, speak, delete, gone; in all dialects."""
    labels = {"accent": "Scottish", "language": "en"}
    added = await add(service, name="Anna B", description="Warm.", labels=json.dumps(labels))
    assert (added.status_code, added.json()) == (200, {"voice_id": "Anna-B", "requires_verification": False})
    voices = (await service.client.get("/v1/voices?show_legacy=true")).json()["voices"]
    assert [(voice["voice_id"], voice["category"]) for voice in voices] == [
        ("heart", "premade"),
        ("nature", "premade"),
        ("Anna-B", "cloned"),
    ]
    told = (await service.client.get("/v1/voices/Anna-B?with_settings=true")).json()
    assert (told["name"], told["description"], told["labels"]) == ("Anna-B", "Warm.", labels)
    assert (await service.client.get(told["preview_url"])).content[:4] == b"RIFF"
    assert (await service.client.get("/v1/audio/voices/Anna-B")).json()["language"] == "en"
    assert (await service.client.post("/v1/text-to-speech/Anna-B", json={"text": "Hi."})).status_code == 200
    assert (await service.client.delete("/v1/voices/Anna-B")).json() == {"status": "ok"}
    for method, path in (("GET", "/v1/voices/Anna-B"), ("DELETE", "/v1/voices/Anna-B")):
        gone = await service.client.request(method, path)
        assert (gone.status_code, gone.json()["detail"]["status"]) == (404, "voice_not_found")
        assert "Anna-B" in gone.json()["detail"]["message"]


async def test_a_built_in_voice_is_told(service):
    """It is premade, and cannot be deleted or replaced."""
    assert (await service.client.get("/v1/voices/heart")).json()["category"] == "premade"
    assert (await service.client.delete("/v1/voices/heart")).json()["detail"]["code"] == "name_reserved"
    assert (await add(service, name="heart")).json()["detail"]["code"] == "name_reserved"


async def test_adding_never_replaces(service):
    """There, two voices may have one name; here the second is refused, and the first speaks as before."""
    assert (await add(service)).status_code == 200
    before = (await service.client.get("/v1/audio/voices/anna")).json()["version"]
    again = await add(service, ("b.wav", sample(2.0)))
    assert (again.status_code, again.json()["detail"]["code"]) == (409, "conflict")
    assert "anna" in again.json()["detail"]["message"]
    assert (await service.client.get("/v1/audio/voices/anna")).json()["version"] == before


@pytest.mark.parametrize(
    ("files", "form", "status", "code", "words"),
    [
        ([WAV, WAV], {}, 400, "invalid_request", ["files", "2"]),
        ([("a.wav", b"not audio")], {}, 422, "invalid_audio", ["files"]),
        ([("a.wav", b"x" * 100_001)], {}, 413, "payload_too_large", ["files", "100000"]),
        ([WAV], {"remove_background_noise": "true"}, 400, "invalid_request", ["remove_background_noise"]),
        ([WAV], {"remove_background_noise": "maybe"}, 400, "invalid_request", ["remove_background_noise", "maybe"]),
        ([WAV], {"labels": "[1]"}, 400, "invalid_request", ["labels", "[1]"]),
        ([WAV], {"labels": "[" * 10_000}, 400, "invalid_request", ["labels"]),
        ([WAV], {"labels": '{"description": "a"}', "description": "b"}, 400, "invalid_request", ["labels.description"]),
        ([WAV], {"description": "x" * 1001}, 400, "invalid_request", ["description", "1001", "1000"]),
        ([WAV], {"name": "../x"}, 400, "invalid_voice_name", ["name", "../x"]),
        ([WAV], {"name": " "}, 400, "invalid_voice_name", ["name"]),
        ([WAV], {"nmae": "x"}, 400, "invalid_request", ["nmae", "ref_text"]),
    ],
)
async def test_what_cannot_be_kept_is_refused(files, form, status, code, words):
    """With the field and what to do; nothing is stored."""
    service = LocalService(limits=LimitSettings(voice_bytes=100_000))
    answer = await add(service, *files, **form)
    detail = answer.json()["detail"]
    assert (answer.status_code, detail["code"]) == (status, code), detail
    assert [word for word in words if word not in detail["message"]] == []
    assert service.store.list("").items == []


@pytest.mark.parametrize("missing", ["name", "files"])
async def test_what_is_missing_is_named(service, missing):
    """Both are required."""
    answer = await service.client.post(
        ADD, data={} if missing == "name" else {"name": "anna"}, files=[("files", WAV)] if missing == "name" else None
    )
    assert (answer.status_code, missing in answer.json()["detail"]["message"]) == (400, True)


@pytest.mark.parametrize("form", [{"labels": "null"}, {"labels": '{"language": "English"}'}, {"ref_text": ""}])
async def test_what_their_clients_send_is_taken(service, form):
    """`null` for no labels, a language in words, no text."""
    assert (await add(service, **form)).status_code == 200


async def test_search_filters_sorts_and_pages(service):
    """Pages neither lose nor repeat a voice, in either direction."""
    for name in ("bert", "Anna", "carl"):
        await upload(service, name)
    assert await listed(service) == ["heart", "nature", "Anna", "bert", "carl"]
    assert await listed(service, sort="name", sort_direction="desc") == ["nature", "heart", "carl", "bert", "Anna"]
    assert (await listed(service, sort="created_at_unix"))[:2] == ["heart", "nature"]
    assert await listed(service, search="AR") == ["heart", "carl"]
    assert await listed(service, voice_type="default") == ["heart", "nature"]
    assert await listed(service, voice_type="community") == []
    assert await listed(service, category="cloned") == await listed(service, voice_type="personal")
    assert await listed(service, voice_ids=["carl", "heart", "nobody"]) == ["heart", "carl"]
    for order in ({}, {"sort": "name"}, {"sort": "created_at_unix"}, {"sort": "name", "sort_direction": "desc"}):
        query, paged = {**order, "page_size": 2}, []
        while True:
            page = (await service.client.get("/v2/voices", params=query)).json()
            paged += [voice["voice_id"] for voice in page["voices"]]
            assert (page["total_count"], page["has_more"]) == (5, page["next_page_token"] is not None)
            if not page["has_more"]:
                break
            query["next_page_token"] = page["next_page_token"]
        assert paged == await listed(service, **order)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/v2/voices?page_size=101", "page_size"),
        ("/v2/voices?sort=age", "sort"),
        ("/v2/voices?gender=female", "gender"),
        ("/v2/voices?collection_id=1", "collection_id"),
        ("/v1/voices?page_size=1", "page_size"),
    ],
)
async def test_a_list_that_cannot_be_given_is_refused(service, path, word):
    """Rather than answered with another one."""
    answer = await service.client.get(path)
    assert (answer.status_code, answer.json()["detail"]["code"]) == (400, "invalid_request")
    assert word in answer.json()["detail"]["message"]


async def test_all_voices_are_in_the_first_versions_list(service, monkeypatch):
    """Which has no pages: however many the store gives at once."""
    monkeypatch.setattr("serve_app.api.elevenlabs_voices.AT_ONCE", 2)
    for name in ("a", "b", "c", "d", "e"):
        await upload(service, name)
    voices = (await service.client.get("/v1/voices")).json()["voices"]
    assert [voice["name"] for voice in voices] == ["heart", "nature", "a", "b", "c", "d", "e"]


async def test_runpods_paths_stay_runpods(service):
    """`/v2/{endpoint_id}` may be called `voices`."""
    answer = await service.client.get("/v2/voices/status/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
