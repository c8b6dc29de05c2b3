"""Builds the HTTP application from its services. Starlette underneath; FastAPI for validation and /docs."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from serve_app import __version__
from serve_app.api import elevenlabs, elevenlabs_voices, jobs, lexicon, native, openai, runpod, websocket
from serve_app.api.document import DocumentedApp
from serve_app.api.errors import add_error_handlers
from serve_app.api.middleware import BodyLimit, HostCheck, RequestId
from serve_app.api.services import Services
from serve_app.api.speaking import SPEECH_HEADERS
from serve_app.api.submitting import REPLAYED

__all__ = ["create_app"]

DESCRIPTION = """Text in, speech out. Speaks OpenAI's and ElevenLabs' speech APIs, RunPod's job API, and a job
API of its own (/v1/jobs).

The `preview` model is an English draft voice and never a clone; `f5` clones the voice it is given.
F5-TTS's code is MIT, its published weights are CC-BY-NC (no commercial use)."""

EXPOSED = (*SPEECH_HEADERS, *REPLAYED, "X-Request-Id", "Retry-After")
"""Headers that pages from elsewhere may read."""


def create_app(services: Services, *, echo_request_id: bool = True) -> FastAPI:
    """The ASGI application of one ingress replica. `echo_request_id`: see RequestId."""
    app = DocumentedApp(title="F5-TTS speech service", version=__version__, description=DESCRIPTION)
    app.state.services = services
    app.add_middleware(BodyLimit, limit_bytes=services.limits.body_bytes, frame_bytes=services.limits.frame_bytes)
    if services.cors_origins:  # inside of HostCheck, so that a rebound name is refused whatever its page's origin
        app.add_middleware(
            CORSMiddleware,
            allow_origins=services.cors_origins,
            allow_methods=("GET", "HEAD", "POST", "PUT", "DELETE"),
            allow_headers=("*",),
            expose_headers=EXPOSED,
        )
    app.add_middleware(HostCheck, allowed=services.allowed_hosts, origins=services.cors_origins)
    app.add_middleware(RequestId, echo=echo_request_id)  # added last, so it is outermost
    add_error_handlers(app)
    app.include_router(native.router)
    app.include_router(jobs.router)
    app.include_router(lexicon.router)
    app.include_router(openai.router)
    app.include_router(elevenlabs.router)
    app.include_router(elevenlabs_voices.router)
    app.include_router(websocket.router)
    app.include_router(runpod.router)
    app.include_router(runpod.router, prefix="/v2/{endpoint_id}", include_in_schema=False)
    return app
