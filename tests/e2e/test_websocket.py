"""Speech of a text that is still being written, through Serve's proxy: one replica of the preview model."""

import json

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.deadline import DEADLINE_S
from tests.support.running import RunningService, until
from tests.support.sentences import SENTENCES
from tests.support.transcribe import transcribe, word_error_rate

TEXT = " ".join(SENTENCES)
LONG_TEXT = " ".join(SENTENCES * 250)
START = {"type": "start", "model": "preview", "voice": "heart", "seed": 5}
MAX_WER = 0.06


def opened(service: RunningService, **options: object) -> ClientConnection:
    url = f"{service.url.replace('http', 'ws', 1)}/v1/audio/speech/ws"
    return connect(url, open_timeout=DEADLINE_S, **options)


def say(socket: ClientConnection, *frames: dict) -> None:
    for frame in frames:
        socket.send(json.dumps(frame))


def received(socket: ClientConnection) -> dict | bytes:
    message = socket.recv(timeout=DEADLINE_S)
    return message if isinstance(message, bytes) else json.loads(message)


def replica(client: httpx.Client, service: RunningService) -> dict:
    """What it says of itself, once it answers: on a busy machine it may not in time."""
    return until(lambda: client.get(f"{service.url}/health").json()["models"]["preview"].get("replica"), "it answers")


def test_audio_begins_before_the_text_has_ended_and_says_it(service: RunningService):
    """Text word by word; what comes is one file that says it, with the answer to a flush, `done` and a normal close."""
    words = TEXT.split(" ")
    audio = bytearray()
    with opened(service) as socket:
        say(socket, START | {"response_format": "wav"})
        started = received(socket)
        say(socket, *({"type": "text", "text": f"{word} "} for word in words[:-3]))
        while not audio:
            frame = received(socket)
            audio += frame if isinstance(frame, bytes) else b""
        say(socket, *({"type": "text", "text": f"{word} "} for word in words[-3:]), {"type": "flush"})
        units, frame = [], {}
        while frame.get("type") != "flushed":
            message = received(socket)
            frame = message if isinstance(message, dict) else {}
            audio += message if isinstance(message, bytes) else b""
            units += [frame] if frame.get("type") == "unit" else []
        say(socket, {"type": "close"})
        done = received(socket)
        with pytest.raises(ConnectionClosed):
            received(socket)
        assert socket.close_code == 1000
    assert (started["type"], started["seed"], started["content_type"]) == ("started", 5, "audio/wav")
    assert (done["type"], done["cancelled"]) == ("done", False)
    assert done["audio_s"] == pytest.approx((len(audio) - 44) / 48_000, abs=0.001)
    assert units[-1]["end_s"] == pytest.approx(done["audio_s"], abs=0.002)
    assert word_error_rate([TEXT], [transcribe(bytes(audio))]) <= MAX_WER


def test_whoever_leaves_frees_the_replica(service: RunningService, client: httpx.Client):
    """Of a text that takes most of a minute to speak, most is never spoken."""
    before = replica(client, service)
    with opened(service) as socket:
        say(socket, START, {"type": "text", "text": LONG_TEXT}, {"type": "flush"})
        while not isinstance(received(socket), bytes):
            pass
    free = until(lambda: (now := replica(client, service))["running"] + now["waiting"] == 0 and now, "it is free")
    assert free["units_abandoned"] > before["units_abandoned"]
    spoken = free["units_done"] - before["units_done"]
    assert 0 < spoken < len(LONG_TEXT) / 300 / 2


def test_what_is_refused_is_told(service: RunningService):
    """A frame in an error and a close code; a page from elsewhere in the handshake."""
    with opened(service) as socket:
        say(socket, START | {"voice": "nobody"})
        error = received(socket)
        with pytest.raises(ConnectionClosed):
            received(socket)
        assert (error["error"]["code"], socket.close_code) == ("voice_not_found", 1008)
    with pytest.raises(InvalidStatus) as refused:
        opened(service, origin="http://evil.example")
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["error"]["code"] == "host_refused"
