"""Clients that read speech while it comes: one, or hundreds at once that are all open before any reads on."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

__all__ = ["SPEECH", "Heard", "at_once", "heard", "listen", "listen_together"]

SPEECH = "/v1/audio/speech"
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Heard:
    """Seconds from the sending of the request to the first byte of the body and to its end; the bytes of the body."""

    first_s: float
    full_s: float
    size_bytes: int


async def at_once() -> None:
    """No pause."""


def listen(url: str, body: Mapping[str, Any]) -> Heard:
    """One listener. Raises RuntimeError for another answer than 200, httpx.TransportError for one that breaks off."""

    async def alone() -> Heard:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            return await heard(client, url, body, at_once)

    return asyncio.run(alone())


def listen_together(
    url: str, body: Mapping[str, Any], listeners: int, *, opened: Callable[[], None], hold_s: float = 0.0
) -> list[Heard]:
    """So many at once, each of which waits after its first bytes until all have some, and for `hold_s` more. `opened`
    is called then, before anyone reads on. The first error, as of `listen`, ends all."""

    async def together() -> list[Heard]:
        barrier = asyncio.Barrier(listeners)

        async def all_open() -> None:
            place = await barrier.wait()
            await asyncio.sleep(hold_s)
            if place == 0:
                opened()

        limits = httpx.Limits(max_connections=None)
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            tasks = [group.create_task(heard(client, url, body, all_open)) for _ in range(listeners)]
        return [each.result() for each in tasks]

    return asyncio.run(together())


async def heard(
    client: httpx.AsyncClient, url: str, body: Mapping[str, Any], pause: Callable[[], Awaitable[None]]
) -> Heard:
    began = time.perf_counter()
    async with client.stream("POST", f"{url}{SPEECH}", json=body) as answer:
        if answer.status_code != 200:
            raise RuntimeError(f"POST {SPEECH} answered {answer.status_code}: {(await answer.aread())[:300]!r}")
        pieces = answer.aiter_raw()
        size_bytes = len(await anext(pieces))
        first_s = time.perf_counter() - began
        await pause()
        async for piece in pieces:
            size_bytes += len(piece)
    return Heard(first_s, time.perf_counter() - began, size_bytes)
