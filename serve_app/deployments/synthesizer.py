"""The Serve shell of a model: one replica holds one engine."""

from serve_app import logs
from serve_app.deployments.voice_cache import VoiceCacheArgs
from serve_app.domain import Pcm, Unit
from serve_app.models import load_engine
from serve_app.settings import ModelSettings
from serve_app.storage import ObjectStore
from serve_app.synthesis import SynthesisService

__all__ = ["Synthesizer"]


class Synthesizer:
    """Loads and warms its model in the constructor: a model that cannot load is a deployment that fails."""

    def __init__(self, model: ModelSettings, store: ObjectStore, voices: VoiceCacheArgs, log_level: str) -> None:
        logs.configure(log_level)
        self._service = SynthesisService(load_engine(model), voices.client(store), model.name)
        self._service.warm_up()
        logs.event("replica_ready", model=model.name)

    async def synthesize(self, unit: Unit) -> Pcm:
        """Speak one unit; many at once are batched."""
        return await self._service.synthesize(unit)

    async def __del__(self) -> None:
        await self._service.close()
