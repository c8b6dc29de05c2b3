"""Speech that is heard while it is spoken, over the whole service in one process."""

import asyncio
import base64
import json
import logging
import threading

import numpy as np
import pytest

from serve_app.api import create_app
from serve_app.audio import FORMATS, Encoder, Encoding, decode
from serve_app.engine.fake import FakeEngine
from serve_app.engine.protocol import BatchLimits
from tests.support.deadline import DEADLINE_S
from tests.support.service import LocalService
from tests.support.speaking import settle

SPEECH = "/v1/audio/speech"
FILLER = "so that it has a unit of its own, " * 5
NUMBERS = ("one", "two", "three", "four")
SENTENCES = ["Sentence zero is what is heard first."]
SENTENCES += [f"Sentence {n} goes on for a while, {FILLER}and ends." for n in NUMBERS]
BODY = {"input": " ".join(SENTENCES), "model": "preview", "seed": 3}


@pytest.fixture
def service() -> LocalService:
    return LocalService()


def one_at_a_time(*fail_on: str, gate: threading.Event | None = None) -> LocalService:
    limits = BatchLimits(max_units=1, max_frames=30_000)
    return LocalService(engine=FakeEngine(limits=limits, fail_on=fail_on, gate=gate))


def keep_streams(service: LocalService) -> list[object]:
    """All that are made from now on, so that none is closed by being forgotten."""
    streams, make = [], service.speaker.stream

    async def kept(request, **named):
        streams.append(await make(request, **named))
        return streams[-1]

    service.speaker.stream = kept
    return streams


def events_of(body: str) -> list[dict]:
    assert body.endswith("\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in body.removesuffix("\n\n").split("\n\n")]


@pytest.mark.parametrize("name", FORMATS)
async def test_what_is_streamed_is_what_is_spoken(service, name):
    """In every format: the file that an encoder makes of the same speech as it comes."""
    whole = await service.client.post(SPEECH, json=BODY | {"response_format": "pcm"})
    answer = await service.client.post(SPEECH, json=BODY | {"response_format": name, "stream_format": "audio"})
    encoder = Encoder(Encoding.of(name))
    audio = np.frombuffer(whole.content, "<i2").astype(np.float32) / 32767
    assert answer.content == encoder.add(audio) + encoder.finish()
    assert answer.headers["content-type"] == Encoding.of(name).content_type
    assert [answer.headers[f"x-{header}"] for header in ("model", "draft", "seed")] == ["preview", "true", "3"]
    assert "content-length" not in answer.headers


async def test_events_are_openais(service):
    """Pieces of the file in base64, then what it came to."""
    audio = await service.client.post(SPEECH, json=BODY | {"stream_format": "audio"})
    answer = await service.client.post(SPEECH, json=BODY | {"stream_format": "sse"})
    assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
    *deltas, done = events_of(answer.text)
    assert len(deltas) >= len(SENTENCES)
    assert {(event["type"], *sorted(event)) for event in deltas} == {("speech.audio.delta", "audio", "type")}
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == audio.content
    frames = round(len(decode(audio.content)) / 256)
    characters = len(BODY["input"])
    assert done["usage"].pop("output_tokens") == pytest.approx(frames, abs=10)
    total = done["usage"].pop("total_tokens")
    assert total == pytest.approx(characters + frames, abs=10)
    assert done == {"type": "speech.audio.done", "usage": {"input_tokens": characters}}


@pytest.mark.parametrize("form", ["audio", "sse"])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"input": "?!"}, 400, "invalid_text"),
        ({"voice": "nobody"}, 404, "voice_not_found"),
        ({"response_format": "aiff"}, 422, "unsupported_format"),
        ({"stream_format": "chunks"}, 400, "invalid_request"),
    ],
)
async def test_a_refusal_is_no_stream(service, form, body, status, code):
    """It has its status, as if nothing had been streamed."""
    answer = await service.client.post(SPEECH, json=BODY | {"stream_format": form} | body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("form", ["audio", "sse"])
async def test_what_cannot_be_encoded_at_once_is_no_stream(form, monkeypatch):
    """Nor is anything spoken on for it."""
    service = LocalService(engine=(engine := _Steps()))
    replica = service.speaker._models["preview"].synthesizer
    kept = keep_streams(service)

    def broken(*_: object) -> bytes:
        raise ValueError("audio holds NaN or infinity")

    monkeypatch.setattr(Encoder, "add", broken)
    engine.steps.release()
    answer = await service.client.post(SPEECH, json=BODY | {"stream_format": form})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert (len(kept), replica.health()["waiting"]) == (1, 0)
    engine.steps.release(len(SENTENCES))


@pytest.mark.parametrize("form", ["audio", "sse"])
async def test_what_fails_before_the_first_audio_has_its_status(form):
    """Headers wait for something to hear."""
    service = one_at_a_time(SENTENCES[0])
    answer = await service.client.post(SPEECH, json=BODY | {"stream_format": form})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "synthesis_failed")


async def test_an_error_in_mid_stream_is_an_event():
    """After what came before it, with all four fields; there is no `done`."""
    service = one_at_a_time(SENTENCES[2])
    answer = await service.client.post(
        SPEECH, json=BODY | {"stream_format": "sse", "response_format": "pcm"}, headers={"x-request-id": "abc"}
    )
    *deltas, last = events_of(answer.text)
    assert answer.status_code == 200
    assert len(deltas) == 2
    assert last["type"] == "error"
    assert (last["error"]["code"], last["error"]["request_id"]) == ("synthesis_failed", "abc")
    assert set(last["error"]) == {"type", "code", "message", "request_id"}


class Listener:
    """An HTTP client that takes the body piece by piece, and may leave."""

    def __init__(self, service: LocalService, **body: object) -> None:
        self.sent: list[dict] = []
        self.gone = asyncio.Event()
        self.takes = asyncio.Event()
        self.takes.set()
        self._asked = False
        self._body = json.dumps(BODY | body).encode()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": "POST",
            "path": SPEECH,
            "raw_path": SPEECH.encode(),
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        }
        self.answer = asyncio.create_task(create_app(service.services)(scope, self._receive, self._send))

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def ended(self) -> bool:
        return any(message.get("more_body") is False for message in self.sent)

    async def _receive(self) -> dict:
        if self._asked:
            await self.gone.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _send(self, message: dict) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            await self.takes.wait()


async def test_an_error_in_mid_stream_breaks_the_file_off():
    """The body has no end, so no client takes it for a whole file."""
    listener = Listener(one_at_a_time(SENTENCES[2]), stream_format="audio", response_format="pcm")
    with pytest.raises(RuntimeError):
        await listener.answer
    assert listener.sent[0]["status"] == 200
    assert len(listener.body) > 0
    assert not listener.ended


async def test_whoever_leaves_frees_the_replica():
    """Units that nobody will hear are not spoken."""
    gate = threading.Event()
    service = one_at_a_time(gate=gate)
    replica = service.speaker._models["preview"].synthesizer
    listener = Listener(service, stream_format="audio", response_format="pcm")
    async with asyncio.timeout(DEADLINE_S):
        await settle(lambda: replica.health()["waiting"] == len(SENTENCES) - 1)
        assert listener.sent == []
        listener.gone.set()  # before the first audio: nothing listens for that, the server cancels
        listener.answer.cancel()
        await asyncio.gather(listener.answer, return_exceptions=True)
        await settle(lambda: replica.health()["waiting"] == 0)
        gate.set()


async def test_whoever_leaves_in_mid_stream_frees_the_replica():
    """As the server says that the connection is gone."""
    service = LocalService(engine=(engine := _Steps()))
    replica = service.speaker._models["preview"].synthesizer
    listener = Listener(service, stream_format="audio", response_format="pcm")
    async with asyncio.timeout(DEADLINE_S):
        engine.steps.release()
        await settle(lambda: len(listener.sent) == 2)
        listener.gone.set()
        await listener.answer
        await settle(lambda: replica.health()["waiting"] == 0)
        assert not listener.ended
        engine.steps.release(len(SENTENCES))


async def test_whoever_leaves_without_reading_frees_the_replica(caplog):
    """Also where the stream waits for nothing but the client to take what there is."""
    service = LocalService(engine=(engine := _Steps()))
    replica = service.speaker._models["preview"].synthesizer
    keep_streams(service)
    listener = Listener(service, stream_format="audio", response_format="pcm")
    listener.takes.clear()
    async with asyncio.timeout(DEADLINE_S):
        engine.steps.release()
        await settle(lambda: len(listener.sent) == 2)
        assert replica.health()["waiting"] > 0
        listener.gone.set()
        with caplog.at_level(logging.INFO, "serve_app"):
            await listener.answer
        assert replica.health()["waiting"] == 0
        assert [record.message for record in caplog.records] == ["listener_left"]
        engine.steps.release(len(SENTENCES))


class _Steps(FakeEngine):
    """Speaks a unit for each step that it is given."""

    def __init__(self) -> None:
        super().__init__(limits=BatchLimits(max_units=1, max_frames=30_000))
        self.steps = threading.Semaphore(0)

    def synthesize(self, items):
        assert self.steps.acquire(timeout=DEADLINE_S)
        return super().synthesize(items)
