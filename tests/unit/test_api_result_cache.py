"""What was spoken before is served from the store, without a call of the engine; and nothing else is."""

import time

import pytest

from serve_app import keys
from serve_app.errors import StorageUnreachable
from serve_app.jobs import Collector
from tests.support.jobs import nothing_older
from tests.support.service import LocalService

TEXT = "The birch canoe slid on the smooth planks."
SPOKEN = ("audio/", "references/", "results/", "jobs/")
SEEDED = {"input": TEXT, "seed": 5}


@pytest.fixture
async def service() -> LocalService:
    """Has spoken TEXT with seed 5, and published what its model runs on."""
    service = LocalService()
    first = await spoken(service, SEEDED)
    publish(service, first["made_by"])
    return service


def publish(service: LocalService, made_by: str) -> None:
    service.runtimes.publish("f5", made_by)


async def spoken(service: LocalService, body: dict) -> dict:
    job_id = (await service.client.post("/v1/jobs", json=body)).json()["id"]
    await service.run_jobs()
    form = (await service.client.get(f"/v1/jobs/{job_id}")).json()
    assert form["state"] == "completed"
    return form


async def test_an_equal_request_with_a_seed_is_not_spoken_again(service):
    """The second job has ended when its id is known; same audio, no engine call."""
    before = (await service.client.get("/v1/jobs")).json()["data"][0]["id"]
    first = (await service.client.get(f"/v1/jobs/{before}")).json()
    job_id = (await service.client.post("/v1/jobs", json=SEEDED)).json()["id"]
    second = (await service.client.get(f"/v1/jobs/{job_id}")).json()
    assert (first["state"], first["cached"]) == ("completed", False)
    assert (second["state"], second["cached"], second["attempts"]) == ("completed", True, 0)
    assert second["audio"]["sha256"] == first["audio"]["sha256"]
    assert (second["made_by"], second["units"]) == (first["made_by"], first["units"])
    assert len(service.engine.calls) == 1


async def test_the_dialects_share_what_was_spoken(service):
    """RunPod's form hits what ours has spoken, and the old worker's file is there all the same."""
    answer = (await service.client.post("/runsync", json={"input": {"text": TEXT, "seed": 5}})).json()
    assert (answer["status"], answer["output"]["cached"], answer["attempts"]) == ("COMPLETED", True, 0)
    audio = service.store.list("audio/").items
    assert len(audio) == 1
    assert service.store.get(f"output/{answer['id']}.wav").body == service.store.get(audio[0].key).body
    assert len(service.engine.calls) == 1


@pytest.mark.parametrize("path", ["/v1/jobs", "/run"])
async def test_cache_false_has_it_spoken_again(service, path):
    """In both forms."""
    body = SEEDED | {"cache": False}
    sent = body if path == "/v1/jobs" else {"input": {"text": TEXT, "seed": 5, "cache": False}}
    job_id = (await service.client.post(path, json=sent)).json()["id"]
    await service.run_jobs()
    form = (await service.client.get(f"/v1/jobs/{job_id}")).json()
    assert (form["state"], form["cached"]) == ("completed", False)
    assert len(service.engine.calls) == 2


async def test_a_returned_seed_finds_what_it_made(service):
    """A request without a seed is always spoken; sent again with the seed it was told, it is found."""
    body = {"input": "Glue the sheet to the dark blue background."}
    first, other = await spoken(service, body), await spoken(service, body)
    assert first["seed"] != other["seed"]
    assert len(service.engine.calls) == 3
    again = await spoken(service, body | {"seed": first["seed"]})
    assert (again["cached"], again["audio"]["sha256"]) == (True, first["audio"]["sha256"])
    assert len(service.engine.calls) == 3


@pytest.mark.parametrize(
    "change",
    [{"seed": 6}, {"input": "Something else."}, {"speed": 1.5}, {"nfe_steps": 20}, {"cross_fade_s": 0.3}],
    ids=lambda change: next(iter(change)),
)
async def test_whatever_changes_the_audio_is_spoken(service, change):
    """A result is found by all that decides how it sounds."""
    assert (await spoken(service, SEEDED | change))["cached"] is False
    assert len(service.engine.calls) == 2


async def test_another_version_of_the_model_speaks_it_anew(service):
    """Nothing is served that the models of now would not say."""
    publish(service, "fake 2 float16 flash_attn cuda")
    service.services.acceptance._runtimes._seen.clear()  # as after the seconds that it is cached
    assert (await spoken(service, SEEDED))["cached"] is False
    assert len(service.engine.calls) == 2


async def test_a_store_that_does_not_say_what_speaks_is_503(service, monkeypatch):
    """An acceptance that cannot be completed is refused, and nothing is promised."""

    def unreachable(model: str) -> str:
        raise StorageUnreachable("no answer")

    monkeypatch.setattr(service.runtimes, "made_by", unreachable)
    for path, body in (("/run", {"input": {"text": TEXT}}), ("/v1/jobs", SEEDED)):
        answer = await service.client.post(path, json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


@pytest.mark.parametrize("format", ["wav", "mp3", "pcm"])
async def test_speech_that_was_spoken_at_once_is_found_in_every_format(format):
    """The second answer is the first one to the byte, says so, and no engine was called for it."""
    service = LocalService()
    publish(service, (await spoken(service, {"input": "Other.", "seed": 1}))["made_by"])
    before = len(service.engine.calls)
    body = SEEDED | {"response_format": format}
    first, again = [await service.client.post("/v1/audio/speech", json=body) for _ in range(2)]
    assert (first.headers["x-cached"], again.headers["x-cached"]) == ("false", "true")
    assert first.content == again.content
    own = {"x-cached": "", "x-request-id": ""}
    assert {**first.headers, **own} == {**again.headers, **own}
    assert len(service.engine.calls) == before + 1


async def test_jobs_and_speech_at_once_share_what_was_spoken(service):
    """What a job has spoken is found by a synchronous call, in another format too."""
    body = SEEDED | {"response_format": "mp3", "model": "f5"}
    assert (await service.client.post("/v1/audio/speech", json=body)).headers["x-cached"] == "true"
    assert len(service.engine.calls) == 1


OTHERS = ({"cache": False}, {"seed": None}, {"seed": 6}, {"speed": 1.5}, {"voice": "nature"})


@pytest.mark.parametrize("changed", OTHERS)
async def test_other_speech_at_once_is_spoken(service, changed):
    """`cache: false`, no seed, another seed or parameter: the engine speaks (the default voice by name is the same)."""
    answer = await service.client.post("/v1/audio/speech", json=SEEDED | changed)
    same = changed == {"voice": "nature"}
    assert (answer.headers["x-cached"], len(service.engine.calls)) == ("true", 1) if same else ("false", 2)


async def test_a_store_that_does_not_answer_stops_no_speech(service, monkeypatch):
    """The cache is a help: without it speech is spoken."""

    def gone(key: str, *args: object, **kwargs: object) -> None:
        raise StorageUnreachable("no answer")

    monkeypatch.setattr(service.store, "get", gone)
    monkeypatch.setattr(service.store, "put", gone)
    answer = await service.client.post("/v1/audio/speech", json=SEEDED)
    assert (answer.status_code, answer.headers["x-cached"]) == (200, "false")


async def test_speech_at_once_is_removed_after_its_retention():
    """Nothing of it is left once its time is over; of the job beside it only what makes it answer 410."""
    service = LocalService(wall_clock=lambda: 1e6)
    publish(service, (await spoken(service, {"input": "Other.", "seed": 1}))["made_by"])
    await service.client.post("/v1/audio/speech", json=SEEDED)
    assert len(nothing_older(service.store).list("audio/").items) == 2
    later = Collector(service.store, wall_clock=lambda: time.time() + 40 * 86_400)
    for _ in range(3):
        for shard in keys.SHARDS:
            later.collect(shard)
    left = [info.key for info in service.store.list("").items]
    assert [key for key in left if key.startswith(SPOKEN) and "/gone." not in key] == []
