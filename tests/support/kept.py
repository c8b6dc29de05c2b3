"""A job whose units are kept as they are spoken, and whoever listens to it meanwhile."""

from dataclasses import replace

import numpy as np

from serve_app.audio import cross_fade, encode
from serve_app.domain import Pcm, SpokenUnit, Unit
from serve_app.job_pieces import JobPiece, JobPieces
from serve_app.jobs import JobRequest, KeptProgress
from serve_app.jobs.progress import KEEP_FROM_S
from serve_app.storage import MemoryStore
from tests.support.jobs import Clock, job_request, job_store, speak_now, unit_of

__all__ = ["Kept", "noise"]


class Kept:
    """A job whose units are kept one by one. `waves` and `pauses_s`: of its units."""

    def __init__(
        self, waves: list[Pcm], pauses_s: list[float], overlap_s: float | None = 0.0, *, planned_s: float = KEEP_FROM_S
    ) -> None:
        request = job_request(audio_s=planned_s)
        speech = replace(request.speech, cross_fade_s=overlap_s)
        self.request: JobRequest = request.model_copy(update={"speech": speech})
        self.waves, self.pauses_s = waves, pauses_s
        self.audio = cross_fade(waves, overlap_s or 0.0, pauses_s)
        self.clock = Clock()
        self.store = MemoryStore(now=self.clock.date)
        self.jobs = job_store(self.store, self.clock)
        self.jobs.submit(self.request)
        self.progress = KeptProgress(self.store, self.request, 1, (), self.clock)
        self.heard: list[JobPiece] = []

    def unit(self, index: int) -> Unit:
        return replace(unit_of(self.request.speech, index), pause_s=self.pauses_s[index])

    async def keep(self, *indexes: int, made_by: str = "fake 1", waves: list[Pcm] | None = None) -> None:
        """These units end, and are written in one object."""
        self.progress.units = len(self.waves)
        for index in indexes:
            wave = (waves or self.waves)[index]
            await self.progress.spoken(self.unit(index), SpokenUnit(wave, made_by))
        await self.progress.flush()

    def end(self, audio: Pcm | None = None) -> None:
        speak_now(self.store, self.clock, self.request.ref, encode(self.audio if audio is None else audio, "wav"))

    def take(self, pieces: JobPieces | None = None) -> bool:
        """One call, by default at an ingress that knows nothing of the calls before; whether it was the last."""
        taken = (pieces or JobPieces(self.store, self.jobs)).take(self.jobs.status(self.request.ref))
        self.heard += taken.pieces
        return taken.ended

    def rest(self) -> None:
        while not self.take():
            pass

    def samples(self, pieces: list[JobPiece] | None = None) -> np.ndarray:
        """What was heard; index and beginning of each piece follow from those before it."""
        pieces = self.heard if pieces is None else pieces
        assert [piece.index for piece in pieces] == [*range(len(pieces))]
        ends = np.cumsum([0, *(len(piece.samples) for piece in pieces)])
        assert [piece.begins_at for piece in pieces] == [*ends[:-1]]
        return np.concatenate([piece.samples for piece in pieces])


def noise(samples: int, seed: int = 0) -> Pcm:
    return np.random.default_rng([samples, seed]).uniform(-0.9, 0.9, samples).astype(np.float32)
