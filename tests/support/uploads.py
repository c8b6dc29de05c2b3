"""Recordings that clients upload, and an upload."""

import httpx
import numpy as np

from serve_app.audio import encode
from tests.support.service import LocalService

__all__ = ["sample", "upload"]


def sample(seconds: float = 1.0) -> bytes:
    """A tone as a WAV."""
    time_s = np.arange(int(24_000 * seconds)) / 24_000
    return encode((0.3 * np.sin(2 * np.pi * 200 * time_s)).astype(np.float32), "wav")


async def upload(service: LocalService, name: str = "anna", **form: str) -> httpx.Response:
    """The answer to an upload of `sample()` by OpenAI's dialect."""
    data = {"name": name, "ref_text": "Hello there."} | form
    return await service.client.post("/v1/audio/voices", data=data, files={"audio_sample": ("a.wav", sample())})
