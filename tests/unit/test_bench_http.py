"""The yardsticks of bench/http.py measure what they say."""

import io
import os
import wave
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Lock

import httpx
import psutil
import pytest
from starlette.testclient import TestClient

from bench import http, listening, memory
from bench.load import Load
from bench.plain_server import create_app
from serve_app.domain import SAMPLE_RATE_HZ, Pcm
from serve_app.engine.fake import FakeEngine
from serve_app.engine.protocol import EngineInput

SAMPLE_BYTES = 2


@pytest.mark.parametrize("seconds", [4, 30, 60, 600])
def test_texts_are_whole_sentences_of_about_as_many_seconds(seconds: float) -> None:
    """At the pace that the preview model is planned by."""
    text = http.text_of(seconds)
    assert seconds <= len(text) / http.CHARACTERS_PER_S < seconds + 4
    assert text.endswith(".")


def test_the_engine_alone_speaks_what_the_service_plans() -> None:
    """The same units, in each of the calls."""
    engine, text = FakeEngine(), http.text_of(60)
    load = http.in_process(engine, text, calls=2)
    units = [(unit.text,) for unit in http.units_of(text)]
    assert (engine.calls, len(load.latencies_s)) == (units * 2, 2)
    assert sum(load.latencies_s) <= load.took_s


def test_the_first_turn_is_not_counted() -> None:
    """It warms up what is measured in the others."""
    loads = iter([Load([9.0], 9.0), Load([1.0], 1.0), Load([2.0], 2.0)])
    assert http.in_turns({"path": lambda: next(loads)}, turns=2) == {"path": Load([1.0, 2.0], 3.0)}


def test_the_plain_server_plans_nothing() -> None:
    """The engine gets the whole text at once, and the client what it said of it, as WAV."""
    engine, text = FakeEngine(), "One. Two, and three. " * 40
    with TestClient(create_app(engine)) as client:
        answer = client.post("/v1/audio/speech", json=http.body_of(text))
    assert (answer.status_code, engine.calls, engine.warm) == (200, [(text,)], True)
    with wave.open(io.BytesIO(answer.content)) as wav:
        assert wav.getframerate() == SAMPLE_RATE_HZ
        assert len(answer.content) == 44 + SAMPLE_BYTES * wav.getnframes()


class Watched(FakeEngine):
    """Knows whether two calls were ever in it at once; each waits a moment for another."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.met = Lock(), Event()

    def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
        if not self.inside.acquire(blocking=False):
            self.met.set()
            return super().synthesize(items)
        try:
            self.met.wait(0.05)
            return super().synthesize(items)
        finally:
            self.inside.release()


def test_the_plain_server_has_one_call_in_its_engine_at_once() -> None:
    """The others wait for the lock."""
    engine = Watched()
    with TestClient(create_app(engine)) as client, ThreadPoolExecutor(3) as pool:
        answers = pool.map(lambda text: client.post("/v1/audio/speech", json={"input": text}), ("a", "b", "c"))
        assert [answer.status_code for answer in answers] == [200] * 3
    assert (len(engine.calls), engine.met.is_set()) == (3, False)


async def test_a_listener_counts_all_bytes() -> None:
    """From the first piece to the last; `first_s` is no later than `full_s`, the pause lies between them."""
    paused = []

    async def pause() -> None:
        paused.append(True)

    async def pieces():
        yield b"12345"
        yield b"678"

    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=pieces()))
    async with httpx.AsyncClient(transport=transport) as client:
        heard = await listening.heard(client, "http://host", {}, pause)
    assert (heard.size_bytes, paused) == (8, [True])
    assert 0 < heard.first_s <= heard.full_s


async def test_a_listener_that_is_refused_says_so() -> None:
    """A measurement of refusals would be none."""
    transport = httpx.MockTransport(lambda request: httpx.Response(429, text="later"))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(RuntimeError, match="answered 429: b'later'"):
            await listening.heard(client, "http://host", {}, listening.at_once)


def test_peaks_are_of_each_kind() -> None:
    """However the others stand at that moment."""
    peak = memory.Peak()
    peak.take({"a": 5.0, "b": 1.0})
    peak.take({"a": 2.0, "b": 3.0})
    assert peak.mb == {"a": 5.0, "b": 3.0}


def test_memory_is_what_a_process_has_for_itself() -> None:
    """What was allocated and written is seen, in MB, by the one who looks and by the one who watches."""
    processes = {"this": [psutil.Process(os.getpid())]}
    before = memory.memory_mb(processes)
    with memory.watched(processes) as peak:
        held = bytearray(os.urandom(1)) * 100_000_000
        grown = memory.memory_mb(processes)
        del held
    assert grown["this"] - before["this"] == pytest.approx(100, abs=20)
    assert peak.mb["this"] >= memory.memory_mb(processes)["this"] - 20
    assert memory.OBJECTS in peak.mb
