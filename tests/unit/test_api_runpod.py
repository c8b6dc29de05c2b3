"""RunPod's dialect and the old worker's payloads over the whole service in one process."""

import base64
import json
import logging

import pytest

from serve_app.api.services import PartStatus
from serve_app.audio import decode
from serve_app.engine.fake import FakeEngine
from serve_app.errors import Unavailable
from serve_app.settings import LimitSettings
from tests.support.jobs import Clock
from tests.support.service import LocalService
from tests.unit.test_api_openai import sample

TEXT = "The birch canoe slid on the smooth planks."


@pytest.fixture
def service() -> LocalService:
    return LocalService()


async def post(service: LocalService, path: str, payload: dict, **params):
    return await service.client.post(path, json={"input": payload}, params=params)


async def spoken(service: LocalService, **payload) -> dict:
    return (await post(service, "/runsync", {"text": TEXT} | payload)).json()


@pytest.mark.parametrize("prefix", ["", "/v2/my-endpoint"])
async def test_run_accepts_a_job_that_status_then_finds(service, prefix):
    """202's promise: the id that /run answers leads to the audio, bare and under /v2/{endpoint_id}."""
    accepted = (await post(service, f"{prefix}/run", {"text": TEXT})).json()
    assert accepted == {"id": accepted["id"], "status": "IN_QUEUE"}
    task = next(iter(service.runner._tasks.values()))
    await task
    answer = (await service.client.get(f"{prefix}/status/{accepted['id']}")).json()
    assert answer["status"] == "COMPLETED"
    assert answer["output"]["job_id"] == accepted["id"]
    assert {"delayTime", "executionTime"} <= set(answer)


async def test_runsync_answers_with_the_second_forms_fields(service):
    """The output holds every field that the old worker's second form had, and the model that spoke."""
    answer = await spoken(service, seed=5, local_voice=None, return_word_timings=True, timing_format="srt")
    output = answer["output"]
    assert answer["status"] == "COMPLETED"
    assert set(output) >= {
        "audio_url", "duration", "text", "status", "job_id", "seed", "timing_files", "timing_format",
        "timing_method", "word_count", "timing_confidence",
    }  # fmt: skip
    assert (output["text"], output["seed"], output["word_count"], output["status"]) == (TEXT, 5, 8, "completed")
    assert (output["model"], output["draft"]) == ("f5", False)
    assert output["warnings"] != []


async def test_the_audio_url_reads_without_credentials_until_altered(service):
    """A signed URL gives the WAV; another key, filename or expiry is refused."""
    url = (await spoken(service))["output"]["audio_url"]
    answer = await service.client.get(url)
    assert answer.headers["content-type"] == "audio/wav"
    assert len(decode(answer.content)) > 0
    for altered in (url.replace("expires=", "expires=9"), url.replace("audio/", "voices/"), url.split("?")[0]):
        assert (await service.client.get(altered)).status_code == 403


async def test_the_first_forms_calls_follow_a_job(service):
    """`status` and `result` inside `input` answer about the job_id of a speech answer."""
    job_id = (await spoken(service))["output"]["job_id"]
    status = (await post(service, "/runsync", {"endpoint": "status", "job_id": job_id})).json()
    result = (await post(service, "/runsync", {"endpoint": "result", "job_id": job_id})).json()
    assert status["output"] == {"job_id": job_id, "status": "COMPLETED"}
    assert set(result["output"]) >= {"audio_url", "word_timings", "duration"}
    download = (await post(service, "/runsync", {"endpoint": "download", "job_id": job_id})).json()
    assert download["output"]["status"] == "ready"
    assert len(decode((await service.client.get(download["output"]["audio_url"])).content)) > 0


async def test_status_and_result_never_synthesise(service):
    """However often a job is asked for, in whatever form, the engine is not called again."""
    job_id = (await spoken(service))["output"]["job_id"]
    calls = list(service.engine.calls)
    for _ in range(3):
        await service.client.get(f"/status/{job_id}")
        for endpoint in ("status", "result", "download"):
            await post(service, "/runsync", {"endpoint": endpoint, "job_id": job_id})
            await post(service, "/run", {"endpoint": endpoint, "job_id": job_id})
    assert service.engine.calls == calls
    assert len(calls) == 1


async def test_the_old_workers_files_are_written(service):
    """output/{job_id}.wav holds the same bytes as the content-addressed audio."""
    job_id = (await spoken(service))["output"]["job_id"]
    audio = service.store.list("audio/").items
    assert service.store.get(f"output/{job_id}.wav").body == service.store.get(audio[0].key).body


@pytest.mark.parametrize("path", ["/run", "/runsync"])
async def test_an_unknown_endpoint_is_refused_never_spoken(service, path):
    """4xx that lists the endpoints; no job, no synthesis."""
    answer = await post(service, path, {"endpoint": "speek", "text": TEXT})
    assert answer.status_code == 400
    assert "speek" in answer.json()["error"]
    assert "list_voices" in answer.json()["message"]
    assert (service.engine.calls, list(service.store.list("").items)) == ([], [])


async def test_upload_then_speak_then_list(service):
    """The old worker's upload payload makes a voice that local_voice finds with or without .wav."""
    payload = {
        "endpoint": "upload",
        "voice_name": "anna.wav",
        "voice_file": base64.b64encode(sample()).decode(),
        "text_file": base64.b64encode(b"Hello there.").decode(),
    }
    assert (await post(service, "/runsync", payload)).json()["output"]["status"] == "success"
    assert service.store.get("voices/anna.txt").body == b"Hello there."
    for name in ("anna", "anna.wav"):
        assert (await spoken(service, local_voice=name))["status"] == "COMPLETED"
    listed = (await post(service, "/runsync", {"endpoint": "list_voices"})).json()["output"]
    assert (listed["count"], listed["status"]) == (1, "success")
    assert set(listed["voices"][0]) == {"name", "voice_file", "text_file", "size", "last_modified"}
    assert listed["voices"][0]["name"] == "anna"


async def test_a_call_through_run_is_answered_by_status(service):
    """/run answers an id for calls that are no jobs too, and /status has their output."""
    accepted = (await post(service, "/run", {"endpoint": "list_voices"})).json()
    assert accepted["status"] == "IN_QUEUE"
    answer = (await service.client.get(f"/status/{accepted['id']}")).json()
    assert (answer["status"], answer["output"]["count"]) == ("COMPLETED", 0)


async def test_calls_that_are_answered_at_once_leave_nothing_behind(service):
    """Polling with the old worker's `status` payload writes no object."""
    job_id = (await spoken(service))["output"]["job_id"]
    before = [info.key for info in service.store.list("").items]
    for endpoint in ("status", "result", "list_voices"):
        payload = {"endpoint": endpoint} | ({} if endpoint == "list_voices" else {"job_id": job_id})
        assert (await post(service, "/runsync", payload)).status_code == 200
    assert [info.key for info in service.store.list("").items] == before


async def test_a_body_over_the_limit_is_refused_in_runpods_envelope():
    """`error` is a string there, as its SDK expects."""
    small = LocalService(limits=LimitSettings(body_bytes=1024))
    answer = await post(small, "/run", {"text": "x" * 2048})
    assert answer.status_code == 413
    assert answer.json()["error"] == answer.json()["message"]


async def test_an_upload_by_url(service):
    """Audio and text are fetched; the record says from where."""
    service.web = {"https://host/a.wav": sample(), "https://host/a.txt": "Grüße.".encode()}
    urls = {"voice_file_url": "https://host/a.wav", "text_file_url": "https://host/a.txt"}
    answer = await post(service, "/runsync", {"endpoint": "upload", "voice_name": "anna.wav", **urls})
    voice = answer.json()["output"]["voice"]
    assert (voice["id"], voice["text"], voice["source"]) == ("anna", "Grüße.", "https://host/a.wav")


async def test_a_voice_that_is_a_url_is_imported_once(service):
    """By its bytes: the same recording is prepared once, another behind the same URL is another voice."""
    url, names = "https://host/b.wav", []
    for recording in (sample(), sample(), sample(2.0)):
        service.web = {url: recording}
        answer = await post(service, "/runsync", {"text": TEXT, "local_voice": url, "seed": 1})
        assert answer.json()["status"] == "COMPLETED", answer.text
        names.append(service.engine.calls and len(service.library.list("default").items))
    assert names == [1, 1, 2]
    assert service.preparer.calls == 2


async def test_nothing_is_imported_for_a_bad_request(service):
    """The text and the parameters are checked before the URL is read."""
    service.web = {"https://host/b.wav": sample()}
    for wrong in ({"text": "?!"}, {"text": TEXT, "speed": 9}, {"text": TEXT, "model": "none"}):
        answer = await post(service, "/runsync", {"local_voice": "https://host/b.wav", **wrong})
        assert answer.status_code in (400, 404)
    assert service.library.list("default").items == ()


@pytest.mark.parametrize(
    ("payload", "status", "words"),
    [
        ({}, 400, ["input.text"]),
        ({"text": " "}, 400, ["input.text", "empty"]),
        ({"text": TEXT, "speed": "fast"}, 400, ["input.speed"]),
        ({"text": TEXT, "local_voice": "nobody"}, 404, ["input.local_voice", "nobody"]),
        ({"text": TEXT, "local_voice": "http://x/y.wav"}, 400, ["input.local_voice", "answers 404"]),
        ({"endpoint": "upload", "voice_name": "a", "voice_file_url": "http://x/y"}, 400, ["input.voice_file_url"]),
        ({"endpoint": "upload", "voice_name": "a", "voice_file": "AA", "voice_file_url": "http://x"}, 400, ["both"]),
        ({"text": TEXT, "timing_format": "doc"}, 400, ["input.timing_format"]),
        ({"text": TEXT, "nonsense": 1}, 400, ["input.nonsense"]),
        ({"endpoint": "upload", "voice_name": "a", "voice_file": "***"}, 422, ["input.voice_file", "base64"]),
        ({"endpoint": "upload", "voice_name": "a"}, 400, ["input.voice_file"]),
        ({"endpoint": ["tts"], "text": TEXT}, 400, ["input.endpoint"]),
        ({"endpoint": {"a": 1}, "text": TEXT}, 400, ["input.endpoint"]),
        ({"text": "!?"}, 400, ["input.text"]),
        ({"endpoint": "status"}, 400, ["input.job_id"]),
        ({"endpoint": "status", "job_id": "../../x"}, 404, ["../../x"]),
    ],
)
async def test_bad_input_is_refused_with_the_field(service, payload, status, words):
    """The same four fields, with `error` as the string that RunPod's SDK reads."""
    answer = await post(service, "/runsync", payload)
    body = answer.json()
    assert answer.status_code == status
    assert set(body) == {"error", "type", "code", "message", "request_id"}
    assert [word for word in words if word not in body["error"]] == []
    assert service.engine.calls == []


async def test_a_failed_job_says_failed_with_the_reason():
    """A job whose synthesis fails in every run is FAILED, never COMPLETED."""
    clock = Clock()
    service = LocalService(engine=FakeEngine(fail_on={TEXT}), clock=clock, wall_clock=clock)
    job_id = (await post(service, "/run", {"text": TEXT})).json()["id"]
    for _ in range(3):
        await service.run_jobs()
        clock.now += 60
    final = (await service.client.get(f"/status/{job_id}")).json()
    assert (final["status"], len(service.engine.calls)) == ("FAILED", 3)
    assert (final["attempts"], final["retries"]) == (3, 2)
    assert "told to fail" in final["error"]
    assert (final["type"], final["code"], final["message"]) == ("server_error", "synthesis_failed", final["error"])
    assert len(final["request_id"]) == 36
    assert "output" not in final
    asked = (await post(service, "/runsync", {"endpoint": "status", "job_id": job_id})).json()
    assert asked["output"] == {"job_id": job_id, "status": "ERROR"}
    result = await post(service, "/runsync", {"endpoint": "result", "job_id": job_id})
    assert (result.status_code, result.json()["code"]) == (409, "conflict")


async def test_no_runner_answering_still_accepts_the_job(service):
    """/run is durable by the store alone: a Jobs replica that cannot be told costs time, not the job."""

    async def unreachable(ref):
        raise Unavailable("no replica")

    service.services.jobs._runners.start = unreachable
    accepted = (await post(service, "/run", {"text": TEXT})).json()
    assert (await service.client.get(f"/status/{accepted['id']}")).json()["status"] == "IN_QUEUE"
    await service.run_jobs()
    assert (await service.client.get(f"/status/{accepted['id']}")).json()["status"] == "COMPLETED"


async def test_unknown_jobs_are_404(service):
    """An id that was never given out is not found."""
    for job_id in ("01939f00-0000-7000-8000-000000000000", "x"):
        answer = await service.client.get(f"/status/{job_id}")
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_health_counts_jobs(service):
    """RunPod's counters come from the heartbeats in the store."""
    await spoken(service)
    await service.runner.beat()
    health = (await service.client.get("/health")).json()
    assert health["jobs"] == {"completed": 1, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0}
    assert health["workers"] == {"idle": 1, "running": 0}


async def test_health_says_what_each_model_runs_on(service):
    """The attention path and its reason come from a replica; a model without one has only its state."""
    service.not_ready["f5"] = PartStatus("starting", message="loading")
    models = (await service.client.get("/health")).json()["models"]
    assert models["f5"] == {"state": "starting", "replicas": 0, "message": "loading"}
    assert models["preview"]["state"] == "ready"
    runtime = {"device": "cpu", "dtype": "float32", "attention": "none", "attention_reason": "a tone needs none"}
    assert runtime.items() <= models["preview"]["replica"].items()


async def test_one_grep_tells_whether_a_call_synthesised(service, caplog):
    """A job's id stands in every step's event; a later result call logs answered_from_store and no unit."""
    with caplog.at_level(logging.INFO, "serve_app"):
        job_id = (await spoken(service))["output"]["job_id"]
        spoke = [r.message for r in caplog.records if getattr(r, "fields", {}).get("job_id") == job_id]
        caplog.clear()
        await post(service, "/runsync", {"endpoint": "result", "job_id": job_id})
        asked = [r.message for r in caplog.records if getattr(r, "fields", {}).get("job_id") == job_id]
    assert spoke == ["accepted", "job_started", "planned", "unit_started", "unit_done", "stored", "job_finished"]
    assert asked == ["answered_from_store"]
    assert TEXT not in json.dumps([getattr(r, "fields", {}) for r in caplog.records])


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "/v1/models/f5", "/v1/audio/voices", "/health", "/status/01939f00-0000-7000-8000-00000000000a"],
)
async def test_every_call_is_logged_as_received(service, caplog, path):
    """A request id leads to a line that names dialect and endpoint, whatever was called."""
    with caplog.at_level(logging.INFO, "serve_app"):
        await service.client.get(path, headers={"x-request-id": "find-me"})
    (fields,) = [r.fields for r in caplog.records if r.message == "received"]
    assert fields["request_id"] == "find-me"
    assert {"dialect", "endpoint"} <= set(fields)
