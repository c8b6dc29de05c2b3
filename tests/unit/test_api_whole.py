"""Whole files over the whole service in one process: their sizes, headers, loudness, and what becomes of them."""

import asyncio
import json
import tempfile

import httpx
import numpy as np
import pytest

from serve_app import keys
from serve_app.api import create_app
from serve_app.api import whole as whole_module
from serve_app.audio import FORMATS, WholeFile, decode, encode, read_wav
from serve_app.engine.fake import FakeEngine
from serve_app.engine.protocol import BatchLimits, one_by_one
from tests.support.loudness import lufs
from tests.support.service import LocalService
from tests.support.uploads import upload

SPEECH = "/v1/audio/speech"
FILLER = "so that it has a unit of its own, " * 5
NUMBERS = ("one", "two", "three", "four")
SENTENCES = ["Sentence zero is what is heard first."]
SENTENCES += [f"Sentence {n} goes on for a while, {FILLER}and ends." for n in NUMBERS]
BODY = {"input": " ".join(SENTENCES), "model": "preview", "seed": 3, "response_format": "wav"}


@pytest.fixture
def service() -> LocalService:
    return LocalService()


@pytest.fixture
def files(monkeypatch, tmp_path) -> list[WholeFile]:
    """All that are made, in a temporary folder of their own."""
    made: list[WholeFile] = []

    class Watched(WholeFile):
        def __init__(self, *args: object, **named: object) -> None:
            super().__init__(*args, **named)
            made.append(self)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(whole_module, "WholeFile", Watched)
    return made


async def are_closed(files: list[WholeFile]) -> bool:
    """Once the threads are done that close them."""
    await asyncio.gather(*(asyncio.to_thread(lambda: None) for _ in range(40)))
    return all(file._file.closed and file._spool.closed for file in files)


@pytest.mark.parametrize("name", FORMATS)
async def test_a_whole_file_is_that_of_all_its_speech_with_its_size(service, files, name):
    """In every format the bytes that encoding it at once gives; nothing is left when it is sent."""
    wav = await service.client.post(SPEECH, json=BODY)
    answer = await service.client.post(SPEECH, json=BODY | {"response_format": name})
    assert answer.content == encode(read_wav(wav.content), name)
    assert answer.headers["content-length"] == str(len(answer.content))
    assert float(answer.headers["x-audio-seconds"]) == pytest.approx(len(read_wav(wav.content)) / 24_000, abs=0.001)
    assert len(files) == 2
    assert await are_closed(files)


async def test_headers_name_what_spoke(service):
    """Aliases of model and voice are resolved, and the model's own voice is named where none was sent."""
    await upload(service, "anna")
    asked = [("tts-1", "alloy"), ("preview", "alloy"), ("preview", None), ("f5", {"id": "anna"})]
    for form in ({}, {"stream_format": "audio"}):
        told = []
        for model, voice in asked:
            answer = await service.client.post(SPEECH, json={"input": "Hi.", "model": model, "voice": voice} | form)
            told.append((answer.headers["x-model"], answer.headers["x-voice"]))
        assert told == [("f5", "nature"), ("preview", "heart"), ("preview", "heart"), ("f5", "anna")]


@pytest.mark.parametrize("wanted", [-30, -16])
async def test_the_loudness_is_the_wanted_one(service, wanted):
    """Measured over the whole file, and told."""
    answer = await service.client.post(SPEECH, json=BODY | {"loudness": wanted})
    told = float(answer.headers["x-loudness"])
    assert lufs(decode(answer.content)) == pytest.approx(told, abs=0.5)
    assert told == pytest.approx(wanted, abs=0.05) or (told < wanted and np.max(np.abs(decode(answer.content))) > 0.8)
    assert "x-loudness" not in (await service.client.post(SPEECH, json=BODY)).headers


async def test_a_streams_loudness_is_estimated(service):
    """One gain for all of it: the samples are those of the stream without, times a constant."""
    plain = await service.client.post(SPEECH, json=BODY | {"stream_format": "audio", "response_format": "pcm"})
    answer = await service.client.post(
        SPEECH, json=BODY | {"stream_format": "audio", "response_format": "pcm", "loudness": -30}
    )
    said, number = answer.headers["x-loudness"].split(" ")[::-1]
    assert (said, float(number)) == ("estimated", pytest.approx(-30, abs=0.05))
    before, after = (np.frombuffer(each.content, "<i2").astype(float) for each in (plain, answer))
    factor = float(after @ before / (before @ before))
    assert len(after) == len(before)
    assert after == pytest.approx(before * factor, abs=3)


async def test_events_of_a_levelled_stream_are_whole(service):
    """Server-sent events too; usage counts every frame."""
    ends = []
    for loudness in (None, -20):
        answer = await service.client.post(SPEECH, json=BODY | {"stream_format": "sse", "loudness": loudness})
        ends.append(json.loads(answer.text.removesuffix("\n\n").split("\n\n")[-1].removeprefix("data: ")))
    assert ends[0] == ends[1]
    assert ends[0]["type"] == "speech.audio.done"


@pytest.mark.parametrize("stream_format", [None, "audio"])
async def test_silence_has_no_loudness(service, stream_format):
    """It is sent as it is, and the header says so."""
    silence = np.zeros(24_000, np.float32)
    service.engine.synthesize = lambda items: one_by_one(lambda _: silence, items)
    body = BODY | {"loudness": -16, "stream_format": stream_format}
    answer = await service.client.post(SPEECH, json=body)
    assert (answer.status_code, answer.headers["x-loudness"]) == (200, "unmeasured")


async def test_what_is_found_is_ungained_and_gained_for_who_asks(service):
    """A result is kept as it was spoken: one result for every loudness, and the bytes are those of the first answer."""
    first = await service.client.post(SPEECH, json=BODY | {"loudness": -30})
    service.runtimes.publish("preview", first_made_by(service))
    calls = len(service.engine.calls)
    again = await service.client.post(SPEECH, json=BODY | {"loudness": -30})
    plain = await service.client.post(SPEECH, json=BODY)
    assert [each.headers["x-cached"] for each in (first, again, plain)] == ["false", "true", "true"]
    assert (again.content, again.headers["x-loudness"]) == (first.content, first.headers["x-loudness"])
    assert lufs(decode(plain.content)) != pytest.approx(-30, abs=1)
    assert len(service.engine.calls) == calls
    assert len(service.store.list("results/").items) == 1


def first_made_by(service: LocalService) -> str:
    [result] = service.store.list("results/").items
    return json.loads(service.store.get(result.key).body)["made_by"]


async def test_what_is_too_long_for_memory_is_neither_kept_nor_read(service, monkeypatch):
    """It is spoken again; what a job keeps is the job's."""
    monkeypatch.setattr("serve_app.audio.whole.KEPT_BYTES", 1000)
    await service.client.post(SPEECH, json=BODY)
    assert service.store.list("results/").items == []
    monkeypatch.undo()
    await service.client.post(SPEECH, json=BODY)
    service.runtimes.publish("preview", first_made_by(service))
    monkeypatch.setattr(whole_module, "KEPT_BYTES", 1000)
    assert (await service.client.post(SPEECH, json=BODY)).headers["x-cached"] == "false"


async def test_an_error_in_the_middle_leaves_no_file(files):
    """500 with the error's form, and nothing in the temporary folder or in memory."""
    service = LocalService(engine=FakeEngine(limits=BatchLimits(1, 30_000), fail_on=SENTENCES[3:4]))
    answer = await service.client.post(SPEECH, json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "synthesis_failed")
    assert len(files) == 1
    assert await are_closed(files)


@pytest.mark.parametrize("leaves_at", ["http.response.start", "http.response.body"])
async def test_a_client_that_leaves_leaves_no_file(service, files, leaves_at):
    """Whether the answer has begun or not."""
    app = create_app(service.services)
    transport = httpx.ASGITransport(app=_leaving(app, leaves_at), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        with pytest.raises(OSError, match="gone"):
            await client.post(SPEECH, json=BODY)
    assert len(files) == 1
    assert await are_closed(files)


def _leaving(app, at):
    async def wrapped(scope, receive, send):
        async def broken(message):
            if message["type"] == at:
                raise OSError("the client is gone")
            await send(message)

        await app(scope, receive, broken)

    return wrapped


async def test_a_call_that_is_cancelled_ends_its_speech_and_leaves_no_file(service, files):
    """As Serve cancels it when its client has left: the stream is closed, too."""
    closed, waits = asyncio.Event(), asyncio.Event()

    class Stream:
        draft, units, made_by = True, 1, ""

        def __aiter__(self):
            return self

        async def __anext__(self):
            waits.set()
            await asyncio.Event().wait()

        async def close(self):
            closed.set()

    async def stream(request, **named):
        return Stream()

    service.speaker.stream = stream
    task = asyncio.create_task(service.client.post(SPEECH, json=BODY))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
    assert await are_closed(files)


async def test_the_stored_result_is_the_speech(service):
    """Of a call with a seed: the WAV in the store has the samples that were sent."""
    answer = await service.client.post(SPEECH, json=BODY)
    [stored] = service.store.list(keys.audio("default", "")).items
    assert service.store.get(stored.key).body == answer.content
