"""What a stranger does: `make run`, then the curl line that it prints. No torch, no bucket, no GPU."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.running import ROOT, RunningService, ended, environment, free_port, running, until
from tests.support.transcribe import error_rate_over_sentences, transcribe, word_error_rate

MAX_WER = 0.06


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    port = free_port()
    env = environment(DATA_DIR=str(tmp_path_factory.mktemp("data")))
    with running(["make", "run", f"PORT={port}"], port, env) as service:
        yield service


def test_the_printed_curl_line_writes_a_wav_that_says_the_text(service: RunningService, tmp_path: Path):
    """Copying the line that `make run` printed gives a WAV in which its text is heard."""
    line = re.search(r"curl .*?-o hello\.wav", service.printed, re.DOTALL).group().replace("\\\n", " ")
    subprocess.run(shlex.split(line), cwd=tmp_path, check=True, capture_output=True)
    text = re.search(r'"input": "(.*?)"', line).group(1)
    assert word_error_rate([text], [transcribe((tmp_path / "hello.wav").read_bytes())]) == 0


def test_the_base_environment_has_no_torch():
    """What `make run` installs stays lean."""
    names = {path.name for path in (ROOT / ".venv").glob("lib/python3.11/site-packages/*")}
    assert {"ray", "hibari"} <= names
    assert names & {"torch", "torchaudio", "f5_tts", "nvidia"} == set()


def test_ten_sentences_through_speech_are_understood(service: RunningService, client: httpx.Client):
    """/v1/audio/speech speaks the text: WER at most 6 %."""

    def speak(text: str) -> bytes:
        answer = client.post(
            f"{service.url}/v1/audio/speech", json={"input": text, "response_format": "wav", "seed": 1}
        )
        answer.raise_for_status()
        assert (answer.headers["x-model"], answer.headers["x-draft"]) == ("preview", "true")
        return answer.content

    assert error_rate_over_sentences(speak) <= MAX_WER


def test_ten_sentences_through_jobs_are_understood(service: RunningService, client: httpx.Client):
    """/run, /status and the signed URL give the same: WER at most 6 %."""

    def speak(text: str) -> bytes:
        job_id = client.post(f"{service.url}/run", json={"input": {"text": text, "seed": 1, "cache": False}}).json()[
            "id"
        ]
        answer = until(lambda: ended(client.get(f"{service.url}/status/{job_id}").json()), "job ends")
        assert answer["status"] == "COMPLETED", answer
        return client.get(answer["output"]["audio_url"]).raise_for_status().content

    assert error_rate_over_sentences(speak) <= MAX_WER


def test_only_serves_internal_port_leaves_loopback(service: RunningService):
    """Everything listens on 127.0.0.1, but for the port that Serve opens in each replica (docs/security.md)."""
    family = [psutil.Process(service.process.pid), *psutil.Process(service.process.pid).children(recursive=True)]
    listening = [
        (process.name(), connection.laddr.ip)
        for process in family
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    outside = [name for name, ip in listening if ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")]
    assert [name for name in outside if not name.startswith("ray::ServeRepli")] == []
    assert len(outside) <= 3  # Ingress, Jobs, preview: one port each
    assert len(listening) > len(outside)


def test_the_dashboard_asks_for_the_token(service: RunningService):
    """Ray's token auth is on, and only this user can read the token."""
    assert httpx.get(f"{service.dashboard}/api/serve/applications/").status_code in (401, 403)
    assert service.applications()["speech"]["status"] == "RUNNING"
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    assert token.stat().st_mode & 0o077 == 0
