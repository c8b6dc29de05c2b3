"""Preview and f5 (a tiny random checkpoint) in one application over a real S3 store."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
import runpod
import yaml

from serve_app.audio import decode, encode
from serve_app.storage import S3Store
from tests.support.deadline import DEADLINE_S
from tests.support.running import RunningService, ended, environment, free_port, running, until
from tests.support.seaweedfs import SeaweedFS, run_seaweedfs
from tests.support.sentences import SENTENCES
from tests.support.speech import joined
from tests.support.tiny_f5 import write_tiny_f5
from tests.support.transcribe import error_rate_over_sentences, transcribe, word_error_rate
from tests.support.two_models import two_models

MAX_WER = 0.06
BUCKET = "speech"
GERMAN = "abcdefghijklmnopqrstuvwxyzäöüßABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?"
LONG_TEXT = " ".join(SENTENCES * 40)


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with run_seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture(scope="module")
def service(tmp_path_factory, s3: SeaweedFS):
    folder = tmp_path_factory.mktemp("cluster")
    write_tiny_f5(folder / "f5")
    port = free_port()
    config = folder / "deploy.yaml"
    config.write_text(yaml.safe_dump(two_models(folder / "f5", BUCKET)))
    command = [sys.executable, "-m", "serve_app.launcher", str(config), "--port", str(port)]
    german = write_tiny_f5(folder / "german", seed=1, depth=1, letters=GERMAN)
    bucket = S3Store(s3.config(BUCKET))
    bucket.put("models/german.safetensors", german.checkpoint.read_bytes(), content_type="application/octet-stream")
    bucket.put("models/german.txt", german.vocab.read_bytes(), content_type="text/plain")
    env = environment(
        S3_BUCKET=BUCKET,
        AWS_ACCESS_KEY_ID=s3.access_key_id,
        AWS_SECRET_ACCESS_KEY=s3.secret_access_key,
        AWS_REGION="us-east-1",
        AWS_ENDPOINT_URL=s3.endpoint_url,
        WEIGHTS_DIR=str(folder / "weights"),
    )
    with running(command, port, env) as service:
        yield service


def status_of(client: httpx.Client, service: RunningService, job_id: str) -> dict:
    return client.get(f"{service.url}/status/{job_id}").json()


def f5_replica(client: httpx.Client, service: RunningService) -> dict:
    """What it says of itself, once it answers: on a busy machine it may not in time."""
    return until(lambda: client.get(f"{service.url}/health").json()["models"]["f5"].get("replica"), "f5 answers")


def test_ten_sentences_over_s3_are_understood(service: RunningService, client: httpx.Client):
    """The same as on a directory: /run writes to the bucket, the presigned URL reads from it, WER at most 6 %."""

    def speak(text: str) -> bytes:
        job_id = client.post(f"{service.url}/run", json={"input": {"text": text, "seed": 1}}).json()["id"]
        answer = until(lambda: ended(status_of(client, service, job_id)), "job ends")
        assert answer["status"] == "COMPLETED", answer
        assert service.url not in answer["output"]["audio_url"]
        return client.get(answer["output"]["audio_url"]).raise_for_status().content

    assert error_rate_over_sentences(speak) <= MAX_WER


def test_openais_own_client_speaks_and_lists(service: RunningService):
    """The official SDK works with a changed base URL and nothing else."""
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none")
    speech = client.audio.speech.create(model="tts-1", voice="alloy", input=SENTENCES[0])
    assert len(decode(speech.content)) > 24_000
    assert {"preview", "f5", "tts-1"} <= {model.id for model in client.models.list()}


def test_runpods_own_client_runs_a_job(service: RunningService, monkeypatch):
    """The official SDK works with a changed base URL and nothing else."""
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{service.url}/v2")  # as RUNPOD_ENDPOINT_BASE_URL would
    endpoint = runpod.Endpoint("any-endpoint", api_key="none")
    job = endpoint.run({"input": {"text": SENTENCES[0], "seed": 1}})
    output = job.output(timeout=DEADLINE_S)
    assert (output["status"], output["job_id"], job.status()) == ("completed", job.job_id, "COMPLETED")
    assert endpoint.run_sync({"input": {"endpoint": "status", "job_id": job.job_id}})["status"] == "COMPLETED"


def test_the_request_id_is_one_in_header_body_and_log(service: RunningService, client: httpx.Client):
    """Whether the client sent one or not, the id that it sees finds the log lines."""
    for sent in ({}, {"x-request-id": "from the client 1"}):
        answer = client.post(f"{service.url}/v1/audio/speech", json={"input": " "}, headers=sent)
        request_id = answer.json()["error"]["request_id"]
        assert answer.headers.get_list("x-request-id") == [request_id]
        assert not sent or request_id == sent["x-request-id"]
        until(lambda wanted=f'"request_id": "{request_id}"': wanted in service.printed, "logged")


def test_a_full_queue_answers_429_with_retry_after(service: RunningService, client: httpx.Client):
    """More f5 requests at once than its queue takes: some are spoken, the rest are told when to come again."""
    body = {"input": SENTENCES[0], "model": "f5", "response_format": "pcm"}
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: client.post(f"{service.url}/v1/audio/speech", json=body), range(12)))
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (refused.headers["retry-after"], refused.json()["error"]["code"]) == ("7", "overloaded")


def test_a_synchronous_wait_that_ends_does_not_end_the_job(service: RunningService, client: httpx.Client):
    """/runsync answers when its wait is over; the job goes on in the same run."""
    answer = client.post(f"{service.url}/runsync?wait=1000", json={"input": {"text": LONG_TEXT, "seed": 2}}).json()
    assert answer["status"] in ("IN_QUEUE", "IN_PROGRESS")
    until(lambda: status_of(client, service, answer["id"])["status"] == "COMPLETED", "job ends")
    runs = [line for line in service.printed.splitlines() if answer["id"] in line and '"job_started"' in line]
    assert len(runs) == 1


def test_an_event_arrives_before_the_end_of_its_job(service: RunningService, client: httpx.Client):
    """Serve's proxy passes a stream on as it comes."""
    job_id = client.post(f"{service.url}/v1/jobs", json={"input": LONG_TEXT, "seed": 3}).json()["id"]
    with client.stream("GET", f"{service.url}/v1/jobs/{job_id}/events") as stream:
        assert next(line for line in stream.iter_lines() if line.startswith("event")) == "event: progress"
        state = status_of(client, service, job_id)["status"]
    client.post(f"{service.url}/cancel/{job_id}")
    assert (stream.headers["content-type"].split(";")[0], state[:3]) == ("text/event-stream", "IN_")


def test_a_cancelled_job_leaves_the_replica(service: RunningService, client: httpx.Client):
    """From when its run stops, what is being spoken ends and what waits is not spoken: the replica is free."""
    before = f5_replica(client, service)
    body = {"input": LONG_TEXT, "model": "f5", "seed": 4}
    job_id = client.post(f"{service.url}/v1/jobs", json=body).json()["id"]
    until(lambda: f5_replica(client, service)["units_done"] > before["units_done"] + 1, "some units are spoken")
    assert client.post(f"{service.url}/cancel/{job_id}").json()["status"] == "CANCELLED"
    stopped = [f'"{job_id}"', '"run_stopped"']
    until(lambda: any(all(word in line for word in stopped) for line in service.printed.splitlines()), "run stops")
    left = f5_replica(client, service)
    free = until(
        lambda: (now := f5_replica(client, service))["running"] + now["waiting"] == 0 and now, "replica is free"
    )
    assert free["units_done"] <= left["units_done"] + 1
    body = {"model": "f5", "input": SENTENCES[0], "seed": 4, "cache": False}
    client.post(f"{service.url}/v1/audio/speech", json=body).raise_for_status()  # it has the replica for itself
    assert f5_replica(client, service)["units_done"] == free["units_done"] + 1


def test_f5_speaks_with_an_uploaded_voice_beside_preview(service: RunningService, client: httpx.Client):
    """One application, two models: f5 takes an uploaded voice, says that it is no draft, and a seed decides."""
    sample = {"input": SENTENCES[1], "response_format": "wav", "seed": 1}
    reference = client.post(f"{service.url}/v1/audio/speech", json=sample).content
    created = client.post(
        f"{service.url}/v1/audio/voices",
        data={"name": "anna", "ref_text": SENTENCES[1], "consent": "synthetic"},
        files={"audio_sample": ("anna.wav", reference)},
    )
    assert created.status_code == 201, created.text
    body = {"input": SENTENCES[2], "model": "f5", "voice": "anna", "response_format": "pcm", "seed": 5, "cache": False}
    first, again = (client.post(f"{service.url}/v1/audio/speech", json=body) for _ in range(2))
    assert first.status_code == 200, first.text
    assert (first.headers["x-model"], first.headers["x-draft"]) == ("f5", "false")
    assert first.content == again.content
    assert len(first.content) > 2 * 24_000
    other = client.post(f"{service.url}/v1/audio/speech", json=body | {"seed": 6})
    assert other.content != first.content
    health = f5_replica(client, service)
    assert health["batching"] == "one unit at a time on 1 thread"
    assert health["computed_frames"] == health["frames"] > 0


def test_the_parameters_of_a_request_are_heard(service: RunningService, client: httpx.Client):
    """Steps and guidance change what f5 says; by either dialect the same parameters say the same."""
    body = {"input": SENTENCES[2], "model": "f5", "response_format": "wav", "seed": 5}
    plain, finer, freer = (
        client.post(f"{service.url}/v1/audio/speech", json=body | changed).content
        for changed in ({}, {"nfe_steps": 8}, {"nfe_steps": 8, "cfg_strength": 0.5})
    )
    assert len({plain, finer, freer}) == 3
    speech = {"text": SENTENCES[2], "model": "f5", "seed": 5, "nfe_steps": 8, "cache": False}
    job = client.post(f"{service.url}/runsync", json={"input": speech}).json()
    assert client.get(job["output"]["audio_url"]).content == finer
    refused = client.post(f"{service.url}/v1/audio/speech", json=body | {"nfe_steps": 65})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")
    assert "nfe_steps is 65" in refused.json()["error"]["message"]


def test_a_checkpoint_for_another_language_is_served_beside(service: RunningService, client: httpx.Client):
    """A second f5 model from the bucket, with its own size and vocabulary, has its own replica, licence and words."""
    body = {"input": "Das Mädchen grüßt.", "response_format": "pcm", "seed": 1}
    told = client.post(f"{service.url}/v1/audio/speech", json=body | {"model": "f5-german"})
    assert (told.status_code, told.headers.get("x-model")) == (200, "f5-german"), told.text
    models = {model["id"]: model for model in client.get(f"{service.url}/v1/models").json()["data"]}
    german = {"license": "code MIT; weights CC-BY-4.0", "languages": ["de"], "state": "ready", "replicas": 1}
    assert german.items() <= models["f5-german"].items()
    assert models["f5"]["languages"] == ["en"]
    refused = client.post(f"{service.url}/v1/audio/speech", json=body | {"model": "f5-german", "input": "Привет."})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_text")
    assert "П" in refused.json()["error"]["message"]


def test_a_recording_without_text_is_transcribed(service: RunningService, client: httpx.Client):
    """Once, at its arrival: the answer tells transcript and grade, the preview is heard, and f5 speaks with it."""
    spoken = {"input": SENTENCES[1], "response_format": "wav", "seed": 1}
    sample = client.post(f"{service.url}/v1/audio/speech", json=spoken).content
    created = client.post(
        f"{service.url}/v1/audio/voices", data={"name": "mute"}, files={"audio_sample": ("m.wav", sample)}
    )
    assert created.status_code == 201, created.text
    voice = client.get(f"{service.url}/v1/audio/voices/mute").json()
    told = {key: created.json()[key] for key in created.json() if key != "preview_url"}
    assert told.items() <= voice.items()
    assert (voice["transcript"], voice["language"], voice["text_checked"]) == ("transcribed", "en", True)
    assert word_error_rate([SENTENCES[1]], [voice["text"]]) <= 0.1
    heard = client.get(voice["preview_url"]).content
    assert word_error_rate([SENTENCES[1]], [transcribe(heard)]) <= 0.1
    answer = client.post(f"{service.url}/v1/audio/speech", json={"input": "Hello.", "model": "f5", "voice": "mute"})
    assert answer.status_code == 200, answer.text


def test_a_bucket_of_the_old_worker_works_untouched(service: RunningService, client: httpx.Client, s3: SeaweedFS):
    """A recording of over 12 s that lies there without text is made ready at its first use, and stays as it is."""
    recording = encode(joined(*SENTENCES[:6]), "wav")
    s3.client().put_object(Bucket=BUCKET, Key="voices/old.wav", Body=recording)
    body = {"input": "Hello.", "model": "f5", "voice": "old", "response_format": "pcm", "seed": 1, "cache": False}
    first, again = (client.post(f"{service.url}/v1/audio/speech", json=body) for _ in range(2))
    assert first.status_code == 200, first.text
    assert first.content == again.content
    voice = client.get(f"{service.url}/v1/audio/voices/old").json()
    assert (voice["source"], voice["transcript"]) == ("voices/old.wav", "transcribed")
    assert 4 < voice["duration_s"] <= 12 < voice["source_s"]
    assert s3.client().get_object(Bucket=BUCKET, Key="voices/old.wav")["Body"].read() == recording


def test_a_job_survives_its_jobs_replica(service: RunningService, client: httpx.Client):
    """SIGKILL of the Jobs replica in mid-job: another run completes it."""
    job_id = client.post(f"{service.url}/run", json={"input": {"text": LONG_TEXT, "seed": 1}}).json()["id"]
    until(lambda: status_of(client, service, job_id)["status"] == "IN_PROGRESS", "job begins")
    (replica,) = until(lambda: service.replicas("Jobs"), "Jobs runs")
    os.kill(replica["pid"], signal.SIGKILL)
    answer = until(lambda: ended(status_of(client, service, job_id)), "job ends")
    assert answer["status"] == "COMPLETED", answer
    assert answer["output"]["duration"] > 400
    runs = [line for line in service.printed.splitlines() if job_id in line and '"job_started"' in line]
    assert len(runs) == 2


def test_preview_and_jobs_scale_to_two_replicas_and_back(service: RunningService, client: httpx.Client):
    """Under load the dashboard shows two replicas of each, by open requests and by queued audio; when it ends, one."""
    parts = ("preview", "Jobs")

    def replicas() -> list[int]:
        return [len(service.replicas(part)) for part in parts]

    until(lambda: replicas() == [1, 1], "the earlier tests' load is over")
    jobs = [client.post(f"{service.url}/run", json={"input": {"text": LONG_TEXT}}).json()["id"] for _ in range(3)]
    until(lambda: replicas() == [2, 2], "both scale up")
    for job_id in jobs:
        until(lambda job_id=job_id: status_of(client, service, job_id)["status"] == "COMPLETED", "job ends")
    until(lambda: replicas() == [1, 1], "both scale down")


def test_status_calls_reach_no_model(service: RunningService, client: httpx.Client):
    """After a job, asking for it in every form logs no further unit."""
    job_id = client.post(f"{service.url}/runsync", json={"input": {"text": SENTENCES[3]}}).json()["id"]

    def units() -> int:
        return sum('"unit_started"' in line for line in service.printed.splitlines())

    until(lambda: any('"unit_done"' in line and job_id in line for line in service.printed.splitlines()), "logged")
    before = units()
    for _ in range(3):
        status_of(client, service, job_id)
        client.post(f"{service.url}/runsync", json={"input": {"endpoint": "result", "job_id": job_id}})
    until(
        lambda: sum('"answered_from_store"' in line and job_id in line for line in service.printed.splitlines()) >= 6,
        "logged",
    )
    assert units() == before


def test_nothing_of_the_f5_weights_is_in_the_ingress(service: RunningService):
    """Ingress and Jobs replicas never load torch."""
    for name in ("Ingress", "Jobs"):
        for replica in until(lambda name=name: service.replicas(name), f"{name} runs"):
            assert "libtorch" not in Path(f"/proc/{replica['pid']}/maps").read_text()
    (f5,) = service.replicas("f5")
    assert "libtorch" in Path(f"/proc/{f5['pid']}/maps").read_text()
