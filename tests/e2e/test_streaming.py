"""Speech that is heard while it is spoken, through Serve's proxy: one replica of the preview model on a directory."""

import httpx
import openai
import pytest

from serve_app.domain import BUILTIN, SpeechRequest, VoiceRef
from serve_app.planning import PREVIEW_LIMITS, plan
from tests.support.running import RunningService, until
from tests.support.sentences import SENTENCES
from tests.support.transcribe import transcribe, word_error_rate

TEXT = " ".join(SENTENCES)
LONG_TEXT = " ".join(SENTENCES * 250)
UNITS = len(plan(SpeechRequest(LONG_TEXT, "preview", VoiceRef("heart", BUILTIN), 1.0, 0, ""), PREVIEW_LIMITS))
BODY = {"model": "preview", "voice": "heart", "response_format": "pcm"}
MAX_WER = 0.06


def replica(client: httpx.Client, service: RunningService) -> dict:
    """What it says of itself, once it answers: on a busy machine it may not in time."""
    return until(lambda: client.get(f"{service.url}/health").json()["models"]["preview"].get("replica"), "it answers")


def listening(client: httpx.Client, service: RunningService, **body: object):
    return client.stream("POST", f"{service.url}/v1/audio/speech", json=BODY | {"stream_format": "audio"} | body)


def test_openais_own_client_hears_the_speech(service: RunningService):
    """To the sample what is not streamed."""
    speaks = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none").audio.speech
    body = {**BODY, "input": " ".join(SENTENCES * 5), "extra_body": {"seed": 5, "cache": False}}
    with speaks.with_streaming_response.create(**body, stream_format="audio") as answer:
        heard = answer.read()
    assert heard == speaks.create(**body).content


@pytest.mark.parametrize("response_format", ["wav", "mp3", "opus", "aac", "flac"])
def test_a_stream_says_the_text(service: RunningService, client: httpx.Client, response_format: str):
    """In every format that has a header."""
    body = BODY | {"input": TEXT, "response_format": response_format, "stream_format": "audio", "seed": 1}
    file = client.post(f"{service.url}/v1/audio/speech", json=body).raise_for_status().content
    assert word_error_rate([TEXT], [transcribe(file)]) <= MAX_WER


def test_a_stream_that_breaks_is_no_whole_file(service: RunningService, client: httpx.Client):
    """Of a text that the model cannot go on with: the connection ends before the body does, or an event says so."""
    text = f"{TEXT} 我不会说英语。"
    heard: list[bytes] = []
    with listening(client, service, input=text) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            heard.extend(answer.iter_bytes())
    assert sum(map(len, heard)) > 48_000
    with listening(client, service, input=text, stream_format="sse") as answer:
        events = answer.read().decode()
    assert '"speech.audio.delta"' in events
    assert '"invalid_text"' in events.rstrip().splitlines()[-1]
    assert '"speech.audio.done"' not in events


def test_a_listener_hears_at_once_and_frees_the_replica_when_it_leaves(service: RunningService, client: httpx.Client):
    """Of a text that takes most of a minute to speak, the first bytes are there after some units; when the listener has
    left, what is being spoken ends, and most of the text is never spoken."""
    before = replica(client, service)
    with listening(client, service, input=LONG_TEXT) as answer:
        next(answer.iter_bytes())
        heard = replica(client, service)
    free = until(lambda: (now := replica(client, service))["running"] + now["waiting"] == 0 and now, "it is free")
    assert before["units_done"] < heard["units_done"] < before["units_done"] + UNITS / 2
    assert free["units_abandoned"] > before["units_abandoned"]
    assert free["units_done"] < before["units_done"] + UNITS / 2
