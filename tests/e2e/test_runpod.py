"""RunPod's own SDK, unmodified, and the replaced worker's examples, over the real service on a directory."""

import base64
from functools import partial

import httpx
import pytest
import runpod

from serve_app.audio import encode
from tests.support.deadline import DEADLINE_S
from tests.support.http_servers import serving_files
from tests.support.running import RunningService, ended, until
from tests.support.runpod import TEXT, heard
from tests.support.sentences import SENTENCES
from tests.support.speech import spoken
from tests.support.transcribe import transcribe, word_error_rate
from tests.support.worker_examples import EXAMPLES, Answer, example

MAX_WER = 0.06
MINUTES = " ".join(SENTENCES * 12)
"""Several minutes of speech, which take longer to speak than it takes until some units are kept."""
LONG = " ".join(SENTENCES * 60)
KEY = "rpa_ANY"


@pytest.fixture
def endpoint(service: RunningService, monkeypatch) -> runpod.Endpoint:
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{service.url}/v2")  # as RUNPOD_ENDPOINT_BASE_URL would
    return runpod.Endpoint("any-endpoint", api_key=KEY)


def status_of(client: httpx.Client, service: RunningService, job_id: str) -> dict:
    return client.get(f"{service.url}/status/{job_id}").json()


def test_the_sdk_runs_waits_and_looks(endpoint: runpod.Endpoint):
    """run, status, output, run_sync and health."""
    job = endpoint.run({"input": {"text": SENTENCES[0], "seed": 1}})
    output = job.output(timeout=DEADLINE_S)
    assert (output["status"], output["job_id"], job.status()) == ("completed", job.job_id, "COMPLETED")
    again = endpoint.run_sync({"text": SENTENCES[0], "seed": 1})
    assert (again["cached"], again["duration"]) == (True, output["duration"])
    health = endpoint.health()
    assert {"completed", "failed", "inProgress", "inQueue", "retried"} == set(health["jobs"])
    assert {"idle", "running"} == set(health["workers"])


def test_the_sdk_hears_a_long_text_in_pieces(endpoint: runpod.Endpoint, service: RunningService, client: httpx.Client):
    """Each as it comes, the first before the job has ended; together they are its audio, which says the text."""
    job = endpoint.run({"input": {"text": MINUTES, "seed": 2, "cross_fade_s": 0.1}})
    outputs, states = [], []
    for output in job.stream():
        outputs.append(output)
        states.append(status_of(client, service, job.job_id)["status"])
    *pieces, output = outputs
    assert (output["job_id"], states[0]) == (job.job_id, "IN_PROGRESS")
    assert output["duration"] > 60
    assert len(pieces) >= output["duration"] / 10
    file = client.get(output["audio_url"]).raise_for_status().content
    assert heard(pieces) == file[44:]
    first = base64.b64decode(pieces[0]["audio"])
    words = transcribe(first).split()
    said = " ".join(MINUTES.split()[: len(words)])
    assert word_error_rate([said], [" ".join(words)]) <= 0.2  # it may end within a word
    assert list(job.stream()) == []


async def test_the_sdks_asynchronous_client_works_too(service: RunningService, monkeypatch):
    """run, output, stream, cancel, health and purge; what it cannot stream raises, though it looks at no status."""
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{service.url}/v2")
    async with runpod.http_client.ClientSession() as session:
        endpoint = runpod.AsyncioEndpoint("any-endpoint", session, api_key=KEY)
        job = await endpoint.run({"text": SENTENCES[2], "seed": 1})
        output = await job.output(timeout=DEADLINE_S)
        *pieces, last = [output async for output in job.stream()]
        assert (last["job_id"], len(heard(pieces))) == (job.job_id, 2 * round(24_000 * output["duration"]))
        other = await endpoint.run({"text": LONG, "seed": 9, "cache": False})
        assert (await other.cancel())["status"] == "CANCELLED"
        with pytest.raises(KeyError, match="status"):
            await anext(other.stream())
        assert (await endpoint.purge_queue())["status"] == "completed"
        assert "jobs" in await endpoint.health()


def test_the_sdk_cancels_and_purges(endpoint: runpod.Endpoint, service: RunningService, client: httpx.Client):
    """What runs is cancelled, what waits is purged; a stream of either raises instead of going on for ever."""
    jobs = [endpoint.run({"input": {"text": LONG, "seed": seed, "cache": False}}) for seed in range(3, 7)]
    until(lambda: status_of(client, service, jobs[0].job_id)["status"] == "IN_PROGRESS", "one begins")
    answer = endpoint.purge_queue(timeout=DEADLINE_S)
    assert (answer["status"], set(answer)) == ("completed", {"removed", "status"})
    for job in jobs:
        assert job.cancel(timeout=DEADLINE_S)["status"] == "CANCELLED"
    assert {status_of(client, service, job.job_id)["status"] for job in jobs} == {"CANCELLED"}
    with pytest.raises(Exception, match="409"):
        next(jobs[0].stream())


def test_a_key_is_taken_as_runpods_page_sends_it(service: RunningService, client: httpx.Client):
    """Bare, where the SDK sends Bearer."""
    body = {"input": {"text": SENTENCES[1]}}
    answer = client.post(f"{service.url}/v2/mine/runsync", json=body, headers={"Authorization": KEY})
    assert (answer.status_code, answer.json()["status"]) == (200, "COMPLETED")
    assert word_error_rate(
        [SENTENCES[1]], [transcribe(client.get(answer.json()["output"]["audio_url"]).content)]
    ) <= MAX_WER  # fmt: skip


def test_the_replaced_workers_examples_are_answered(service: RunningService, client: httpx.Client, tmp_path):
    """Every documented payload, unchanged inside `input`, by /run and then /status; its voice is a recording."""
    recording, transcript = encode(spoken(SENTENCES[1]), "wav"), SENTENCES[1].encode()
    (tmp_path / "voice.wav").write_bytes(recording)
    (tmp_path / "voice.txt").write_bytes(transcript)
    values = {
        "voice": "anna",
        "voice_file": base64.b64encode(recording).decode(),
        "text_file": base64.b64encode(transcript).decode(),
    }
    call = partial(client.post, f"{service.url}/runsync")
    voice = {"endpoint": "upload", "voice_name": "anna"} | {each: values[each] for each in ("voice_file", "text_file")}
    assert call(json={"input": voice}).status_code == 200
    values["job_id"] = call(json={"input": {"text": TEXT}}).json()["output"]["job_id"]
    problems = {}
    with serving_files(tmp_path) as url:
        values |= {"voice_file_url": f"{url}/voice.wav", "text_file_url": f"{url}/voice.txt"}
        for name in EXAMPLES:
            said = example(name, values)
            answer = client.post(f"{service.url}/run", json={"input": said.input})
            if answer.status_code == 200:
                path = f"{service.url}/status/{answer.json()['id']}"
                until(lambda path=path: ended(client.get(path).json()), f"{name} ends")
                answer = client.get(path)
            if found := said.problems(Answer(answer.status_code, answer.json())):
                problems[name] = found
    assert problems == {}
