"""One cache of voices for the cluster, in an actor, and the client that each replica has of it.

    replica -> VoiceCacheClient: its own cache -> (cold) the actor: the cluster's cache -> (cold) store: one GET

The actor has a name that holds the code's version, so that a rolling upgrade gets a new one. It is detached: it
outlives the application that made it, and a cluster that stays must kill those of older versions (`ray.kill`).
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, cast

import ray
from cachetools import TTLCache
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from serve_app import __version__, logs
from serve_app.deployments.unwrap import unwrap
from serve_app.domain import Voice, VoiceRef, VoiceStats
from serve_app.errors import ObjectCorrupt, StorageUnreachable, Unavailable, UnusableVoice
from serve_app.preparation import Preparer
from serve_app.storage import ObjectStore
from serve_app.voice_cache import SingleFlightCache, VoiceCache
from serve_app.voices import VoiceLibrary

__all__ = ["VoiceCacheActor", "VoiceCacheArgs", "VoiceCacheClient", "voice_cache_client"]

NAMESPACE = "tts"
MAX_CONCURRENCY = 2000
READERS, PREPARERS = 32, 4
UNUSABLE_KEPT_S = 60.0
STATS_KEPT = 20_000
"""Entries of about 400 bytes: more than there are voices, so that planning asks the actor once for each."""
READ_PAUSES_S = (0.1, 0.5)
"""Between attempts to read a voice. The store has tried three times in each; a 403 is tried once."""
RETRY_PAUSES_S = (0.1, 0.3, 1.0, 3.0)
"""Between attempts to reach the actor. Calls outlive its restarts by themselves; this is for an actor that is gone
for good, whose name Ray may go on giving to a dead one for a moment (ray-project/ray#44083)."""


class VoiceCacheActor:
    """The plain class in the actor. What it returns is copied: files, and references to objects that it owned, would
    be lost with its process or node."""

    def __init__(self, store: ObjectStore, max_bytes: int, preparer: Preparer) -> None:
        self._library = VoiceLibrary(store, preparer)
        self._cache = VoiceCache(self._load, max_bytes)
        self._unusable: TTLCache[VoiceRef, str] = TTLCache(STATS_KEPT, UNUSABLE_KEPT_S)
        # Apart, so that prepared voices are read beside recordings that take seconds.
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="readers")
        self._preparers = ThreadPoolExecutor(PREPARERS, thread_name_prefix="preparers")

    async def _load(self, ref: VoiceRef) -> Voice:
        """Read off the event loop; again where the store failed beyond its own retries, or a bit flipped on the way.

        A version that is unusable stays so: for a minute that is told without preparing it anew.
        """
        if (known := self._unusable.get(ref)) is not None:
            raise UnusableVoice(known)
        for pause_s in READ_PAUSES_S:
            try:
                return await self._loaded(ref)
            except UnusableVoice as error:
                self._unusable[ref] = error.message
                raise
            except (StorageUnreachable, ObjectCorrupt) as error:
                logs.failure("voice_read_again", error, voice=ref.name)
                await asyncio.sleep(pause_s)
        return await self._loaded(ref)

    async def _loaded(self, ref: VoiceRef) -> Voice:
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self._readers, self._library.load_prepared, ref)
        if prepared is not None:
            return prepared
        return await loop.run_in_executor(self._preparers, self._library.prepare, ref)

    async def get(self, ref: VoiceRef) -> Voice:
        """Raises what VoiceLibrary.load raises."""
        return await self._cache.get(ref)

    async def stats(self, ref: VoiceRef) -> VoiceStats:
        """Loads the voice too, for whoever asks for its stats is about to speak with it. Raises as `get`."""
        return (await self._cache.get(ref)).stats


class VoiceCacheClient:
    """A replica's own cache, with the actor behind it: a voice that is warm here is answered here.

    `connect` gives the actor, making it where there is none; it blocks. Used from a single event loop.
    """

    def __init__(
        self,
        connect: Callable[[], ActorHandle[VoiceCacheActor]],
        max_bytes: int,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connect = connect
        self._sleep = sleep
        self._actor = connect()
        self._voices = VoiceCache(self._fetch, max_bytes)
        self._stats: SingleFlightCache[VoiceStats] = SingleFlightCache(self._fetch_stats, STATS_KEPT, lambda _: 1)

    async def get(self, ref: VoiceRef) -> Voice:
        """The voice in exactly this version; its waveform is read-only.

        Raises VoiceNotFound, VoiceReplaced, UnusableVoice, a StorageError, Unavailable when the actor cannot be
        reached, and ValueError for a voice that is built in.
        """
        return await self._voices.get(ref)

    async def stats(self, ref: VoiceRef) -> VoiceStats:
        """What planning needs of the voice, without its audio. Raises as `get`."""
        return await self._stats.get(ref)

    async def _fetch(self, ref: VoiceRef) -> Voice:
        voice: Voice = await self._ask("get", ref)
        # A copy, because arrays from Ray keep their place in its object store, which is small, as long as they live.
        audio = voice.audio.copy()
        audio.flags.writeable = False
        return replace(voice, audio=audio)

    async def _fetch_stats(self, ref: VoiceRef) -> VoiceStats:
        stats: VoiceStats = await self._ask("stats", ref)
        return stats

    async def _ask(self, method: str, ref: VoiceRef) -> Any:
        for pause_s in RETRY_PAUSES_S:
            try:
                return await self._call(method, ref)
            except RayActorError:
                await self._sleep(pause_s)
                self._actor = await asyncio.to_thread(self._connect)
        try:
            return await self._call(method, ref)
        except RayActorError as error:
            logs.failure("voice_cache_unreachable", error, voice=ref.name)
            raise Unavailable(
                f"voice {ref.name!r} cannot be read, for the cache of voices does not answer: come again later"
            ) from error

    async def _call(self, method: str, ref: VoiceRef) -> Any:
        try:
            return await getattr(self._actor, method).remote(ref)
        except RayTaskError as error:
            raise unwrap(error) from None


@dataclass(frozen=True, slots=True)
class VoiceCacheArgs:
    """What replicas are given to make their clients with.

    `identity` tells one store, and the right to read it, from another: those who give the same one share an actor.
    `max_bytes` bounds the actor's cache, and that of each client. `preparer` makes voices of the old worker ready.
    """

    identity: str
    max_bytes: int
    preparer: Preparer

    @property
    def actor_name(self) -> str:
        """Differs where an actor of another release, store, bound or preparer must not be shared."""
        told = f"{self.identity}\n{self.max_bytes}\n{self.preparer!r}"
        return f"voice_cache-{__version__}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def client(self, store: ObjectStore) -> VoiceCacheClient:
        return voice_cache_client(store, self)


def voice_cache_client(store: ObjectStore, args: VoiceCacheArgs) -> VoiceCacheClient:
    """A client of the cluster's cache of this store; starts the actor where there is none. Ray must be running."""

    def connect() -> ActorHandle[VoiceCacheActor]:
        actor = ray.remote(VoiceCacheActor).options(
            name=args.actor_name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=MAX_CONCURRENCY,
        )
        return cast("ActorHandle[VoiceCacheActor]", actor.remote(store, args.max_bytes, args.preparer))

    return VoiceCacheClient(connect, args.max_bytes)
