"""The cluster's cache of voices as its callers see it, with every request counted on the wire."""

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from serve_app.audio import encode
from serve_app.deployments.voice_cache import NAMESPACE, VoiceCacheArgs
from serve_app.domain import DEFAULT_TENANT, Pcm, Voice, VoiceRef
from serve_app.storage import S3Store
from serve_app.voice_cache import CacheStats
from serve_app.voices import Upload, VoiceLibrary
from tests.support.wire import Gate, WireProxy, WireRequest

BUCKET = "voices"
CALLERS = 4
ROOM = 64 * 1024 * 1024
TEXT = "What is said."


@dataclass
class Deployed:
    """A store behind a proxy, a library that writes past the proxy, and what makes clients of this test's actor."""

    proxy: WireProxy
    store: S3Store
    library: VoiceLibrary
    args: VoiceCacheArgs

    def create(self, name: str, hz: float = 220, seconds: float = 5) -> VoiceRef:
        self.library.create(DEFAULT_TENANT, name, Upload(encode(tone(hz, seconds), "wav"), TEXT))
        return self.library.resolve(DEFAULT_TENANT, name)

    def actor(self) -> Any:  # its handle: Ray's type for it does not know `__ray_call__`
        return ray.get_actor(self.args.actor_name, NAMESPACE)

    def actor_stats(self) -> CacheStats:
        stats: CacheStats = ray.get(self.actor().__ray_call__.remote(lambda actor: actor._cache.stats()))
        return stats

    def gets(self) -> list[int]:
        """GETs of audio and of text since the start."""
        return [self.proxy.count("GET", ".wav"), self.proxy.count("GET", ".txt")]

    def hold_audio(self) -> threading.Event:
        """GETs of audio wait at the proxy until the event is set."""
        opened = threading.Event()
        self.proxy.fault = lambda request: Gate(opened) if is_read(request, ".wav") else None
        return opened


class Caller:
    """A process as a replica is one, with a client of its own; the tests share it, for processes start slowly."""

    def connect(self, args: VoiceCacheArgs, store: S3Store) -> None:
        self.client = args.client(store)

    async def get(self, ref: VoiceRef, count: int, own_cache: bool) -> list[tuple[int, float, str] | str]:
        """`count` calls at once; of each voice samples, mean square and text, of each error the class."""
        call = self.client.get if own_cache else self.client._fetch
        outcomes = await asyncio.gather(*(call(ref) for _ in range(count)), return_exceptions=True)
        return [summary(each) if isinstance(each, Voice) else type(each).__qualname__ for each in outcomes]

    async def get_half(self, ref: VoiceRef, count: int) -> list[tuple[int, float, str] | str]:
        """As `get`; every second call is cancelled by `leave`."""
        self._tasks = [asyncio.create_task(self.client.get(ref)) for _ in range(count)]
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        return [summary(each) if isinstance(each, Voice) else type(each).__qualname__ for each in outcomes]

    async def leave(self) -> None:
        for task in self._tasks[::2]:
            task.cancel()

    async def waiting(self) -> int:
        return self.client._voices.stats().misses


def tone(hz: float, seconds: float) -> Pcm:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(24_000 * seconds)) / 24_000)).astype(np.float32)


def summary(voice: Voice) -> tuple[int, float, str]:
    return len(voice.audio), float(np.mean(voice.audio**2)), voice.text


def is_read(request: WireRequest, suffix: str) -> bool:
    return request.method == "GET" and request.path.endswith(suffix)


def node_ids() -> list[str]:
    """Of the nodes that live."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def caller_on(node_id: str) -> Any:
    """A Caller in a process on this node."""
    where = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(Caller).options(num_cpus=0, scheduling_strategy=where).remote()
