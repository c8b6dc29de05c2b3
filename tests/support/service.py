"""The whole service in one process: a memory store, fake engines, the real everything else. No Ray, no sockets."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx

from serve_app.api import Services, create_app
from serve_app.api.acceptance import Acceptance
from serve_app.api.policy import JobPolicyDefaults
from serve_app.api.services import PartStatus
from serve_app.catalog import Catalog, Model
from serve_app.domain import Sampling, VoiceRef, VoiceStats
from serve_app.engine.fake import FakeEngine
from serve_app.errors import InvalidUrl
from serve_app.job_client import JobClient
from serve_app.job_runner import JobRunner
from serve_app.jobs import Marker, Results
from serve_app.lexicon import Lexicons
from serve_app.parameters import Defaults
from serve_app.planning import PREVIEW_LIMITS
from serve_app.preparation import Preparer
from serve_app.runtimes import Runtimes
from serve_app.settings import LimitSettings
from serve_app.speech import Speaker, SpeakingModel
from serve_app.storage import MemoryStore, ObjectStore, UrlSigner
from serve_app.synthesis import SynthesisService
from serve_app.voice_cache import VoiceCache
from serve_app.voices import VoiceLibrary
from tests.support.jobs import runner_settings
from tests.support.preparing import PlainPreparer

VOICE_CACHE_BYTES = 64 * 1024 * 1024


class Voices:
    """The cache without its actor."""

    def __init__(self, library: VoiceLibrary) -> None:
        async def load(ref: VoiceRef):
            return library.load(ref)

        self._cache = VoiceCache(load, VOICE_CACHE_BYTES)
        self.get = self._cache.get

    async def stats(self, ref: VoiceRef) -> VoiceStats:
        return (await self.get(ref)).stats


class LocalRunners:
    """One JobRunner in this process. Not `told` of a new job, it finds it when a test has it sweep."""

    def __init__(self, runner: JobRunner, told: bool) -> None:
        self.runner = runner
        self.told = told

    async def start(self, markers: Sequence[Marker]) -> None:
        for marker in markers if self.told else ():
            await self.runner.start(marker)

    async def run(self, marker: Marker) -> None:
        await self.runner.start(marker)
        await self.runner.wait(marker.ref)


@dataclass
class LocalService:
    """`engine` counts what was synthesised; `client` speaks HTTP to the application in memory."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    signer: UrlSigner = field(default_factory=lambda: UrlSigner(b"k" * 32))
    limits: LimitSettings = field(default_factory=LimitSettings)
    not_ready: dict[str, PartStatus] = field(default_factory=dict)
    web: dict[str, bytes] = field(default_factory=dict)
    preparer: Preparer = field(default_factory=PlainPreparer)
    clock: Callable[[], float] = time.monotonic  # what a job's pauses between runs are measured by
    wall_clock: Callable[[], float] = time.time
    store: ObjectStore | None = None
    job_defaults: JobPolicyDefaults = field(default_factory=JobPolicyDefaults)
    told: bool = True  # False: what is accepted waits until `run_jobs`

    def __post_init__(self) -> None:
        self.store = self.store or MemoryStore(self.signer)
        self.runtimes = Runtimes(self.store)
        self.library = VoiceLibrary(self.store, self.preparer, reserved={"heart", "nature"})
        voices = Voices(self.library)
        self.speaker = Speaker(
            {
                name: SpeakingModel(SynthesisService(self.engine, voices, name), _limits, 0.0, draft=draft)
                for name, draft in (("preview", True), ("f5", False))
            },
            voices,
        )
        catalog = Catalog(
            [_model("preview", "heart", draft=True), _model("f5", "nature", draft=False)],
            model_aliases={"tts-1": "default"},
            voice_aliases={"alloy": "default"},
        )
        self.runner = JobRunner(
            self.store,
            self.speaker.speak,
            runner_settings(),
            clock=self.clock,
            wall_clock=self.wall_clock,
        )
        lexicons = Lexicons(self.store)
        self.services = Services(
            catalog=catalog,
            acceptance=Acceptance(catalog, self.library, self.limits, self.runtimes, lexicons),
            speaker=self.speaker,
            library=self.library,
            jobs=JobClient(
                self.store, LocalRunners(self.runner, self.told), self.clock, wall_clock=self.wall_clock, watch_s=0.0
            ),
            store=self.store,
            limits=self.limits,
            cluster=self,
            fetcher=self,
            results=Results(self.store, self.wall_clock),
            lexicons=lexicons,
            signer=self.signer,
            job_defaults=self.job_defaults,
            wall_clock=self.wall_clock,
        )
        transport = httpx.ASGITransport(app=create_app(self.services), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    async def run_jobs(self) -> None:
        """Until none runs: those that wait, twice looked at, since a new one is left for a turn."""
        for _ in range(2):
            await self.runner.sweep()
            for ref in list(self.runner._tasks):
                await self.runner.wait(ref)

    def fetch(self, url: str, *, field: str, max_bytes: int) -> bytes:
        """From `web`, by URL."""
        if url not in self.web:
            raise InvalidUrl(f"{field} {url!r} answers 404: send a URL that answers 200")
        return self.web[url]

    async def statuses(self) -> dict[str, PartStatus]:
        ready = {name: PartStatus("ready", replicas=1) for name in ("preview", "f5", "Jobs")}
        return ready | self.not_ready

    async def health(self, model: str) -> dict[str, object]:
        return SynthesisService(self.engine, None, model).health()


def _model(name: str, voice: str, *, draft: bool) -> Model:
    defaults = Defaults() if draft else Defaults(Sampling(nfe_steps=16), speed=1.0, cross_fade_s=0.15)
    return Model(name, "fake", draft, (voice,), voice, "Apache-2.0", ("en",), defaults)


def _limits(stats: VoiceStats | None, speed: float):
    return PREVIEW_LIMITS
