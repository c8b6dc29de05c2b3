"""Speech of a text that is still being written, over the whole service in one process."""

import asyncio
import json

import numpy as np
import pytest

from serve_app.audio import FORMATS, Encoder, Encoding
from serve_app.settings import LimitSettings
from serve_app.unit_speech import LOOK_AHEAD
from tests.support.deadline import DEADLINE_S
from tests.support.service import LocalService
from tests.support.speaking import settle
from tests.support.speech_socket import Socket
from tests.unit.test_api_streaming import SENTENCES, SPEECH, _Steps, keep_streams, one_at_a_time

SENTENCE = "This is a sentence without a clause."
START = {"type": "start", "model": "preview", "seed": 3}
FLUSH, CLOSE, CANCEL = ({"type": what} for what in ("flush", "close", "cancel"))


def text(piece: str) -> dict:
    return {"type": "text", "text": piece}


@pytest.fixture
def service() -> LocalService:
    return LocalService()


async def whole(service: LocalService, spoken: str) -> bytes:
    body = {"input": spoken, "model": "preview", "seed": 3, "response_format": "pcm"}
    return (await service.client.post(SPEECH, json=body)).content


async def test_what_is_flushed_at_once_is_the_speech_of_the_text(service):
    """To the sample what the HTTP route gives; what it is and where its units lie is told."""
    socket = Socket(service, x_request_id="abc").send(START, text(SENTENCE), FLUSH, CLOSE)
    done = await socket.ended()
    audio = await whole(service, SENTENCE)
    assert socket.audio == audio
    assert socket.kinds == ["started", "unit", "binary", "flushed", "done"]
    started, unit = socket.frames[:2]
    told = {"request_id": "abc", "model": "preview", "seed": 3, "draft": True, "content_type": "audio/pcm"}
    assert started == {"type": "started"} | told
    seconds = len(audio) / 48_000
    assert unit == {"type": "unit", "index": 0, "text": SENTENCE, "start_s": 0, "end_s": pytest.approx(seconds)}
    chars, frames = len(SENTENCE), done["usage"]["output_tokens"]
    usage = {"input_tokens": chars, "output_tokens": frames, "total_tokens": chars + frames}
    assert frames == pytest.approx(seconds * 93.75, abs=1)
    assert done == {"type": "done", "cancelled": False, "audio_s": pytest.approx(seconds), "usage": usage}
    assert socket.closed_with == 1000


@pytest.mark.parametrize("name", FORMATS)
async def test_every_format_is_one_file(service, name):
    """What an encoder makes of the waves as they come, whatever was flushed in between; as JSON where asked for."""
    form = START | {"response_format": name, "audio": "base64"}
    socket = Socket(service).send(form, text(SENTENCES[0]), FLUSH, text(SENTENCES[1]), CLOSE)
    await socket.ended()
    encoder, expected = Encoder(Encoding.of(name)), b""
    plain = Socket(service).send(START, text(SENTENCES[0]), FLUSH, text(SENTENCES[1]), CLOSE)
    await plain.ended()
    expected += encoder.add(np.frombuffer(plain.audio, "<i2").astype(np.float32) / 32767) + encoder.finish()
    assert socket.audio == expected
    assert "binary" not in socket.kinds
    assert socket.frames[0]["content_type"] == Encoding.of(name).content_type


async def test_audio_comes_before_the_text_has_ended(service):
    """A sentence is spoken when the next one begins, word by word, and all of it has its units in order."""
    socket = Socket(service).send(START)
    for word in f"{SENTENCES[0]} And then".split(" "):
        socket.send(text(f"{word} "))
    await socket.until("binary", 2)
    spoken = "".join(unit["text"] + " " for unit in socket.told("unit"))
    assert f"{SENTENCES[0]} ".startswith(spoken)
    socket.send(text("it ends."), CLOSE)
    await socket.ended()
    units = socket.told("unit")
    assert " ".join(unit["text"] for unit in units) == f"{SENTENCES[0]} And then it ends."
    assert [unit["index"] for unit in units] == list(range(len(units)))
    assert [unit["start_s"] for unit in units[1:]] == [unit["end_s"] for unit in units[:-1]]


async def test_a_flush_is_answered_behind_the_audio_before_it(service):
    """Each of them, also where there is nothing new to speak; and a pause that has no letter is no text of its own."""
    socket = Socket(service).send(START, FLUSH, text("Yes"), FLUSH, FLUSH, text(" ... "), FLUSH, text("no"), CLOSE)
    await socket.ended()
    kinds = ["started", "flushed", "unit", "binary", "flushed", "flushed", "flushed", "unit", "binary", "done"]
    assert socket.kinds == kinds
    assert [unit["text"] for unit in socket.told("unit")] == ["Yes", "... no"]


async def test_nothing_said_is_nothing_spoken(service):
    """Closed without a text, or with white space, it is done; a text that cannot be spoken is refused."""
    for frames in ([CLOSE], [text(""), text(" \n"), FLUSH, CLOSE]):
        done = await Socket(service).send(START, *frames).ended()
        assert (done["type"], done["audio_s"], done["cancelled"]) == ("done", 0, False)
    error = await Socket(service).send(START, text("?!"), CLOSE).ended()
    assert error["error"]["code"] == "invalid_text"


async def test_cancelled_it_speaks_no_more():
    """Whatever waits, and whatever was sent before; the file has no end."""
    service = LocalService(engine=(engine := _Steps()))
    replica = service.speaker._models["preview"].synthesizer
    socket = Socket(service).send(START, text(" ".join(SENTENCES)), CLOSE)
    engine.steps.release()
    await socket.until("binary")
    socket.send(CANCEL)
    done = await socket.ended()
    assert (done["type"], done["cancelled"], socket.closed_with) == ("done", True, 1000)
    assert 0 < done["audio_s"] == round(len(socket.audio) / 48_000, 3)
    assert replica.health()["waiting"] == 0
    engine.steps.release(len(SENTENCES) + 1)


@pytest.mark.parametrize("reads", [True, False])
async def test_whoever_leaves_frees_the_replica(reads):
    """In mid-unit, and also where nothing is waited for but that the client takes what there is."""
    service = LocalService(engine=(engine := _Steps()))
    replica = service.speaker._models["preview"].synthesizer
    keep_streams(service)
    socket = Socket(service).send(START, text(" ".join(SENTENCES)))
    await socket.until("started")
    if not reads:
        socket.takes.clear()
    engine.steps.release()
    await socket.until("binary" if reads else "unit")
    async with asyncio.timeout(DEADLINE_S):
        await settle(lambda: replica.health()["waiting"] > 0)
        socket.leave()
        await socket.served
    assert replica.health()["waiting"] == 0
    assert (socket.closed_with, socket.told("error")) == (None, [])
    engine.steps.release(len(SENTENCES) + 1)


async def test_a_slow_client_keeps_units_from_being_spoken(service):
    """No more is asked for than what the look-ahead allows beyond what it has taken."""
    socket = Socket(service).send(START)
    await socket.until("started")
    socket.takes.clear()
    socket.send(*(text(f"{sentence} ") for sentence in SENTENCES * 8), CLOSE)
    await socket.until("unit")
    for _ in range(2000):
        await asyncio.sleep(0)
    assert 1 < sum(map(len, service.engine.calls)) <= 1 + LOOK_AHEAD
    socket.takes.set()
    await socket.ended()
    assert sum(map(len, service.engine.calls)) >= 8 * len(SENTENCES)


@pytest.mark.parametrize(
    ("frames", "code", "words"),
    [
        ([text("Hello.")], "invalid_request", ["text", "start"]),
        (["{"], "invalid_request", ["frame", "not JSON", "character 1"]),
        (["[1]"], "invalid_request", ["frame", "object"]),
        (["[" * 100_000], "invalid_request", ["frame", "nested too deep"]),
        ([b"\0"], "invalid_request", ["frame", "binary"]),
        ([{"type": "begin"}], "invalid_request", ["frame", "'begin'", "'start'"]),
        ([{"text": "x"}], "invalid_request", ["frame", "type"]),
        ([START | {"input": "x"}], "invalid_request", ["input", "not permitted"]),
        ([START | {"speed": 9}], "invalid_request", ["speed", "9"]),
        ([START | {"speed": "fast"}], "invalid_request", ["speed", "'fast'"]),
        ([START | {"nfe_steps": 8}], "invalid_request", ["nfe_steps", "preview"]),
        ([START | {"language": "Klingon?"}], "invalid_request", ["language", "Klingon?"]),
        ([START | {"normalize": "no"}], "invalid_request", ["normalize"]),
        ([START | {"audio": "json"}], "invalid_request", ["audio", "base64"]),
        ([START | {"voice": "nobody"}], "voice_not_found", ["voice", "nobody"]),
        ([START | {"model": "none"}], "model_not_found", ["none"]),
        ([START | {"response_format": "aiff"}], "unsupported_format", ["aiff", "pcm"]),
        ([START | {"sample_rate": 7}], "unsupported_format", ["sample_rate", "7"]),
        ([START, START], "invalid_request", ["start", "before"]),
        ([START, text("x") | {"more": 1}], "invalid_request", ["more", "not permitted"]),
        ([START, {"type": "text"}], "invalid_request", ["text", "required"]),
        ([START, {"type": "text", "text": 5}], "invalid_request", ["text", "5"]),
        ([START, CLOSE | {"now": True}], "invalid_request", ["now"]),
        ([START, text("Half \ud83d character."), CLOSE], "invalid_text", ["U+D83D"]),
    ],
)
async def test_what_is_wrong_with_a_frame_is_said(service, frames, code, words):
    """In a frame with the four fields, then the connection is closed as the client's fault."""
    socket = Socket(service, x_request_id="abc").send(*frames)
    error = (await socket.ended())["error"]
    assert (error["code"], error["type"], error["request_id"]) == (code, "invalid_request_error", "abc")
    assert [word for word in words if word not in error["message"]] == []
    assert socket.closed_with == 1008
    assert service.engine.calls == []


async def test_nothing_but_cancel_follows_close():
    """It is refused, and not left unread."""
    service = LocalService(engine=(engine := _Steps()))
    error = await Socket(service).send(START, text(SENTENCES[0]), CLOSE, text("more")).ended()
    assert "`close` was sent before" in error["error"]["message"]
    engine.steps.release(2)


async def test_a_text_over_the_limit_is_refused():
    """Of all frames together, also where each is short; and a frame over its own limit."""
    limits = LimitSettings(max_text_chars=100, frame_bytes=2048)
    service = LocalService(limits=limits)
    socket = Socket(service).send(START, *[text("ten chars ")] * 10)
    await socket.until("started")
    error = await socket.send(text("x")).ended()
    assert (error["error"]["code"], socket.closed_with) == ("payload_too_large", 1008)
    assert "101 characters" in error["error"]["message"]
    socket = Socket(service).send(START, json.dumps(text("x")) + " " * 2048)
    error = await socket.ended()
    assert (error["error"]["code"], socket.closed_with) == ("payload_too_large", 1008)


async def test_a_silent_client_is_told():
    """Whether it never began or has stopped in mid-sentence; not while it is spoken to."""
    limits = LimitSettings(idle_timeout_s=0.05)
    engine = _Steps()
    service = LocalService(limits=limits, engine=engine)
    for frames in ([], [START], [START, text("Half a sen")]):
        socket = Socket(service).send(*frames)
        error = await socket.ended()
        assert (error["error"]["code"], socket.closed_with) == ("idle_timeout", 1008)
    socket = Socket(service).send(START, text(SENTENCES[0]), FLUSH)
    await asyncio.wait({socket.served}, timeout=0.3)
    assert socket.kinds == ["started"]
    engine.steps.release(2)
    await socket.until("flushed")
    assert (await socket.ended())["error"]["code"] == "idle_timeout"


async def test_what_fails_is_an_error_behind_what_was_heard():
    """As our fault, with nothing of the rest."""
    socket = Socket(one_at_a_time("It breaks.")).send(START, text(f"{SENTENCE} "), FLUSH, text("It breaks."), CLOSE)
    error = await socket.ended()
    assert (error["error"]["code"], socket.closed_with) == ("synthesis_failed", 1011)
    assert "done" not in socket.kinds
    assert "binary" in socket.kinds


async def test_what_nobody_expected_is_told_without_its_message(monkeypatch):
    """The log has it, under the request id."""

    def broken(*_: object) -> bytes:
        raise ValueError("secret")

    monkeypatch.setattr(Encoder, "add", broken)
    socket = Socket(LocalService()).send(START, text("Hello."), CLOSE)
    error = await socket.ended()
    assert (error["error"]["code"], socket.closed_with) == ("internal_error", 1011)
    assert "secret" not in error["error"]["message"]


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}], ids=str
)
async def test_a_page_from_elsewhere_opens_no_socket(service, headers):
    """Browsers send the handshake across origins, so it is refused as any other request."""
    socket = Socket(service, **headers)
    await socket.served
    assert [(each["type"], each["code"], each["reason"]) for each in socket.messages] == [
        ("websocket.close", 1008, "host_refused")
    ]


async def test_a_server_that_can_answer_the_handshake_says_why(service):
    """With the status and the four fields of any other request."""
    socket = Socket(service, extensions=("websocket.http.response",), origin="http://evil.example")
    await socket.served
    start, body = socket.messages
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)
    error = json.loads(body["body"])["error"]
    assert (error["code"], sorted(error)) == ("host_refused", ["code", "message", "request_id", "type"])


async def test_the_services_own_page_opens_one(service):
    """And is told the request's id in the handshake."""
    socket = Socket(service, origin="http://127.0.0.1", x_request_id="abc").send(START, CLOSE)
    await socket.ended()
    assert socket.messages[0]["type"] == "websocket.accept"
    assert (b"x-request-id", b"abc") in socket.messages[0]["headers"]
    assert socket.closed_with == 1000
