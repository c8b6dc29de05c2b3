"""What a voice costs: warm in the replica, warm through the actor, and cold for many callers at once beside each
downloading it for itself. One run, in turns, on a real S3 server and a Ray of two nodes: `python -m bench.voices`.
"""

import asyncio
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray reads it at import: bind loopback only
import ray
from ray.cluster_utils import Cluster

from serve_app.audio import encode
from serve_app.deployments.voice_cache import VoiceCacheArgs
from serve_app.domain import DEFAULT_TENANT, VoiceRef
from serve_app.preparation import RecordingPreparer
from serve_app.storage import S3Store
from serve_app.voices import Upload, VoiceLibrary
from tests.support.preparing import PlainPreparer
from tests.support.seaweedfs import run_seaweedfs
from tests.support.wire import WireProxy

BUCKET, ROOM, SECONDS = "voices", 256 * 1024 * 1024, 8.0
WARM_CALLS, ROUNDS, CALLERS = 2000, 5, 200


class Replica:
    """A process on a node of its own, with a client of the cache."""

    def connect(self, args: VoiceCacheArgs, store: S3Store) -> None:
        self._client, self._library = args.client(store), VoiceLibrary(store, args.preparer)

    async def warm(self, ref: VoiceRef) -> list[float]:
        """Seconds of each lookup that the replica's own cache answers."""
        await self._client.get(ref)
        return [await _timed(self._client.get(ref)) for _ in range(WARM_CALLS)]

    async def through_the_actor(self, ref: VoiceRef) -> list[float]:
        """Seconds of each lookup that goes to the actor, which has the voice."""
        return [await _timed(self._client._fetch(ref)) for _ in range(ROUNDS * 20)]

    async def storm(self, ref: VoiceRef) -> float:
        """Seconds until all callers of a cold voice have it, by the cache."""
        return await _timed(asyncio.gather(*(self._client.get(ref) for _ in range(CALLERS))))

    async def downloads(self, ref: VoiceRef) -> float:
        """Seconds until each caller has downloaded the voice for itself, 32 at a time."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(32) as pool:
            calls = [loop.run_in_executor(pool, self._library.load, ref) for _ in range(CALLERS)]
            return await _timed(asyncio.gather(*calls))


async def _timed(awaited: Any) -> float:
    began = time.perf_counter()
    await awaited
    return time.perf_counter() - began


def main() -> str:
    """The table in Markdown."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, round(24_000 * SECONDS)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="b") as folder, run_seaweedfs(Path(folder) / "s3") as s3:
        s3.create_bucket(BUCKET)
        library = VoiceLibrary(S3Store(s3.config(BUCKET)), PlainPreparer())
        refs = []
        for index in range(2 * ROUNDS + 1):
            library.create(DEFAULT_TENANT, f"v{index}", Upload(encode(noise, "wav"), f"Voice {index}."))
            refs.append(library.resolve(DEFAULT_TENANT, f"v{index}"))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1, resources={"other": 1})
        ray.init(address=cluster.address, log_to_driver=False)
        try:
            with WireProxy(s3.endpoint_url) as proxy:
                return _measured(S3Store(replace(s3.config(BUCKET), endpoint_url=proxy.url)), proxy, refs)
        finally:
            ray.shutdown()
            cluster.shutdown()


def _measured(store: S3Store, proxy: WireProxy, refs: list[VoiceRef]) -> str:
    args = VoiceCacheArgs("bench", ROOM, RecordingPreparer(None))
    replica = ray.remote(Replica).options(num_cpus=0, resources={"other": 0.1}).remote()
    ray.get(replica.connect.remote(args, store))
    warm = ray.get(replica.warm.remote(refs[0]))
    through = ray.get(replica.through_the_actor.remote(refs[0]))
    cold: dict[str, list[tuple[float, int]]] = {"cache": [], "each for itself": []}
    for index in range(ROUNDS):
        for offset, (name, method) in enumerate((("cache", "storm"), ("each for itself", "downloads"))):
            before = proxy.count("GET", ".wav")
            took = ray.get(getattr(replica, method).remote(refs[1 + 2 * index + offset]))
            cold[name].append((took, proxy.count("GET", ".wav") - before))
    head = (
        f"{os.cpu_count()} cores, Ray {version('ray')}, two nodes on one machine, voices of {SECONDS:g} s; cold: "
        f"{CALLERS} callers at once, {ROUNDS} rounds in turns\n"
    )
    rows = [_row("warm, in the replica", warm, 0), _row("warm, through the actor on another node", through, 0)]
    rows += [
        _row(f"cold, {name}", [took for took, _ in found], max(gets for _, gets in found))
        for name, found in cold.items()
    ]
    return "\n".join([head, "| lookup | p50 ms | p95 ms | GETs |", "|---|---|---|---|", *rows])


def _row(name: str, seconds: list[float], gets: int) -> str:
    p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1]
    return f"| {name} | {1000 * statistics.median(seconds):.4f} | {1000 * p95:.4f} | {gets} |"


if __name__ == "__main__":
    print(main())
