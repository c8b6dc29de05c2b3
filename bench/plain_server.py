"""The server that one writes in an hour: FastAPI around one engine, which a lock gives to one request at a time.

    python -m bench.plain_server {preview,simulated} --port 8001

What `bench/http.py` holds the service against. It plans nothing, so the engine gets the whole text as one unit, and
answers with the whole WAV.
"""

import argparse
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from sys import executable

import httpx
import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from bench.simulated import SimulatedEngine
from serve_app.audio import encode
from serve_app.domain import BUILTIN, Unit, VoiceRef
from serve_app.engine.preview import PreviewEngine
from serve_app.engine.protocol import Engine, EngineInput, speak
from serve_app.planning import PREVIEW_LIMITS
from tests.support.running import ROOT, environment, free_port, running, until

__all__ = ["ENGINES", "create_app", "plain_server"]

ENGINES: Mapping[str, Callable[[], Engine]] = {"preview": PreviewEngine, "simulated": SimulatedEngine}


class Body(BaseModel):
    """Of what OpenAI's clients send, the text."""

    input: str


def create_app(engine: Engine) -> FastAPI:
    """The application. Its route is a plain function, so that FastAPI calls it in a thread."""
    lock = threading.Lock()

    @asynccontextmanager
    async def ready(_: FastAPI) -> AsyncIterator[None]:
        engine.warm_up()
        print("Ready: warm", flush=True)
        yield

    app = FastAPI(lifespan=ready)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/audio/speech", response_class=Response)
    def speech(body: Body) -> Response:
        frames = math.ceil(len(body.input.encode()) * PREVIEW_LIMITS.frames_per_byte)
        unit = Unit(0, body.input, VoiceRef("heart", BUILTIN), 1.0, 1, frames, "plain")
        with lock:
            (audio,) = speak(engine, EngineInput(unit, None))
        return Response(encode(audio, "wav"), media_type="audio/wav")

    return app


@contextmanager
def plain_server(engine: str) -> Iterator[str]:
    """Its URL while it runs, as a process of its own."""
    port = free_port()
    command = [executable, "-m", "bench.plain_server", engine, "--port", str(port)]
    with running(command, port, environment(PYTHONPATH=str(ROOT))) as server:
        until(lambda: _answers(server.url), "the plain server answers")
        yield server.url


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.TransportError:  # it is warm, and does not listen yet
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    uvicorn.run(create_app(ENGINES[asked.engine]()), host="127.0.0.1", port=asked.port, log_level="warning")
