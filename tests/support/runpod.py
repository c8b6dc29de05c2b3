"""Calls in RunPod's dialect, as the old worker's clients make them."""

from tests.support.service import LocalService

TEXT = "The birch canoe slid on the smooth planks."


async def post(service: LocalService, path: str, payload: dict, **params):
    return await service.client.post(path, json={"input": payload}, params=params)


async def spoken(service: LocalService, **payload) -> dict:
    return (await post(service, "/runsync", {"text": TEXT} | payload)).json()
