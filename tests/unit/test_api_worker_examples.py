"""Every documented example of the replaced worker, replayed in one process: by /run and by /runsync."""

import base64
import json

import pytest

from tests.support.runpod import TEXT, post, spoken
from tests.support.service import LocalService
from tests.support.uploads import sample
from tests.support.worker_examples import EXAMPLES, FOLDER, Answer, example

VOICE_URL, TEXT_URL = "https://host/voice.wav", "https://host/voice.txt"
TRANSCRIPT = b"Hello there."


@pytest.fixture
async def values() -> dict[str, str]:
    return {
        "voice": "anna",
        "voice_file": base64.b64encode(sample()).decode(),
        "text_file": base64.b64encode(TRANSCRIPT).decode(),
        "voice_file_url": VOICE_URL,
        "text_file_url": TEXT_URL,
    }


@pytest.fixture
async def service(values) -> LocalService:
    """There is a voice, files behind URLs, and a job that has completed."""
    service = LocalService(web={VOICE_URL: sample(), TEXT_URL: TRANSCRIPT})
    voice = {"endpoint": "upload", "voice_name": "anna"} | {each: values[each] for each in ("voice_file", "text_file")}
    assert (await post(service, "/runsync", voice)).status_code == 200
    values["job_id"] = (await spoken(service))["output"]["job_id"]
    return service


async def answer_of(service: LocalService, path: str, payload: dict) -> Answer:
    """By /runsync at once; by /run what /status says when the job has ended."""
    answer = await post(service, path, payload)
    if path.endswith("/run") and answer.status_code == 200:
        await service.run_jobs()
        answer = await service.client.get(f"/status/{answer.json()['id']}")
    return Answer(answer.status_code, answer.json())


@pytest.mark.parametrize("path", ["/run", "/runsync", "/v2/mine/runsync"])
@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_of_the_worker_is_answered_as_documented(service, values, name, path):
    """The fields, with their types, or the refusal."""
    said = example(name, values)
    answer = await answer_of(service, path, said.input)
    assert said.problems(answer) == []


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.startswith("speak") and "unknown" not in name])
async def test_one_answer_serves_both_forms(service, values, name):
    """The job of the second form's answer is what the first form's `status` and `result` ask for, and `download`."""
    output = (await answer_of(service, "/runsync", example(name, values).input)).body["output"]
    values |= {"job_id": output["job_id"]}
    calls = len(service.engine.calls)
    for asked in ("status", "result", "download"):
        said = example(asked, values)
        assert said.problems(await answer_of(service, "/runsync", said.input)) == []
    assert len(service.engine.calls) == calls


def test_every_endpoint_and_timing_format_has_an_example():
    """So that nothing documented is left out by a file that goes missing."""
    inputs = [json.loads((FOLDER / f"{name}.json").read_text())["input"] for name in EXAMPLES]
    endpoints = {each.get("endpoint") for each in inputs}
    assert endpoints == {None, "tts", "upload", "status", "result", "list_voices", "download", "speek"}
    assert {each["timing_format"] for each in inputs if "timing_format" in each} == {
        "srt", "vtt", "csv", "json", "ass", "doc",
    }  # fmt: skip
    assert {TEXT} == {each["text"] for each in inputs if "text" in each}


async def test_an_answer_that_is_not_as_documented_is_told(service, values):
    """A field of another type, one that is missing, a failed job, a refusal for another reason."""
    said = example("status", values)
    good = (await answer_of(service, "/runsync", said.input)).body
    assert said.problems(Answer(200, good)) == []
    for changed in ({"status": "QUEUED", "job_id": values["job_id"]}, {"status": "COMPLETED"}):
        assert said.problems(Answer(200, good | {"output": changed})) != []
    assert said.problems(Answer(200, {"status": "FAILED", "error": "x"})) != []
    refused = example("endpoint-unknown", values)
    for body in ({"error": {"message": "speek"}}, {"error": "input.endpoint", "code": "invalid_request"}):
        assert refused.problems(Answer(400, body)) != []
