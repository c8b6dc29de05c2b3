"""Calls in RunPod's dialect, as the old worker's clients make them."""

import asyncio
import base64
import io
import wave

from tests.support.service import LocalService

TEXT = "The birch canoe slid on the smooth planks."


async def post(service: LocalService, path: str, payload: dict, **params):
    return await service.client.post(path, json={"input": payload}, params=params)


async def spoken(service: LocalService, **payload) -> dict:
    return (await post(service, "/runsync", {"text": TEXT} | payload)).json()


def heard(pieces: list[dict]) -> bytes:
    """The samples of what /stream gave, in its order; each piece says where it begins."""
    samples = b""
    for number, piece in enumerate(pieces):
        with wave.open(io.BytesIO(base64.b64decode(piece["audio"]))) as reader:
            assert (piece["index"], round(24_000 * piece["start_s"])) == (number, len(samples) // 2)
            samples += reader.readframes(reader.getnframes())
    return samples


class SdkClient:
    """What RunPod's SDK asks through, in this process."""

    def __init__(self, service: LocalService) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()

    def get(self, endpoint: str, timeout: int = 10) -> dict:
        return self._answer(self._service.client.get(f"/v2/{endpoint}"))

    def post(self, endpoint: str, data: dict | None, timeout: int = 10) -> dict:
        return self._answer(self._service.client.post(f"/v2/{endpoint}", json=data))

    def _answer(self, call) -> dict:
        answer = asyncio.run_coroutine_threadsafe(call, self._loop).result(30)
        answer.raise_for_status()
        return answer.json()
