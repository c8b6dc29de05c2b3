"""The old worker's payloads over the whole service in one process."""

import base64
import json

import pytest

from serve_app import keys
from serve_app.audio import decode
from tests.support.older import put_older
from tests.support.runpod import TEXT, post, spoken
from tests.support.service import LocalService
from tests.support.uploads import sample


@pytest.fixture
def service() -> LocalService:
    return LocalService()


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


@pytest.mark.parametrize("state", ["failed", "cancelled", "expired"])
@pytest.mark.parametrize("endpoint", ["result", "download"])
async def test_a_job_that_ended_without_a_reason_is_a_409(service, state, endpoint):
    """As an older version may have recorded it: there is nothing to hand out, and no reason to tell."""
    ref = put_older(service.store, 0xA, state="failed")
    key = keys.job("default", ref.job_id, "failed.v1.json")
    record = json.loads(service.store.get(key).body) | {"error": None, "state": state, "expires_at": 2.0**40}
    service.store.delete(key)
    name = keys.job("default", ref.job_id, f"{state}.v1.json")
    service.store.put(name, json.dumps(record).encode(), content_type="application/json")
    answer = await post(service, "/runsync", {"endpoint": endpoint, "job_id": ref.job_id})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert f"{state}: no reason is recorded" in answer.json()["error"]
    told = (await service.client.get(f"/status/{ref.job_id}")).json()
    assert (told["code"], told["error"]) == (state, f"the job is {state}")


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


async def test_calls_that_are_answered_at_once_leave_nothing_behind(service):
    """Polling with the old worker's `status` payload writes no object."""
    job_id = (await spoken(service))["output"]["job_id"]
    before = [info.key for info in service.store.list("").items]
    for endpoint in ("status", "result", "list_voices"):
        payload = {"endpoint": endpoint} | ({} if endpoint == "list_voices" else {"job_id": job_id})
        assert (await post(service, "/runsync", payload)).status_code == 200
    assert [info.key for info in service.store.list("").items] == before


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
        ({"text": "Hello \ud83d there"}, 400, ["input.text has half a character"]),
        ({"text": TEXT, "local_voice": "a b"}, 400, ["input.local_voice 'a b'"]),
        ({"endpoint": "upload", "voice_name": "a b", "voice_file": "AA=="}, 400, ["input.voice_name 'a b'"]),
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
    headers = {"content-type": "application/json"}  # half a character has no UTF-8
    answer = await service.client.post("/runsync", content=json.dumps({"input": payload}), headers=headers)
    body = answer.json()
    assert answer.status_code == status
    assert set(body) == {"error", "type", "code", "message", "request_id"}
    assert [word for word in words if word not in body["error"]] == []
    assert service.engine.calls == []
