"""Hours of speech are in memory once: what is assembled is let go as it is joined."""

import gc
import weakref

import numpy as np
import pytest

from serve_app import speech as speech_module
from serve_app.domain import SpokenUnit, Unit
from serve_app.errors import EngineError
from serve_app.jobs import KeptProgress
from serve_app.storage import MemoryStore
from tests.support.jobs import Clock, job_request, unit_of
from tests.support.speaking import Kept, Synthesizer, request, speaker


class Watched(Synthesizer):
    """Knows which of the units' waves are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.gate.set()
        self.waves: list[weakref.ref[np.ndarray]] = []

    async def synthesize(self, unit: Unit) -> SpokenUnit:
        spoken = await super().synthesize(unit)
        self.waves.append(weakref.ref(spoken.audio))
        return spoken

    @property
    def alive(self) -> int:
        gc.collect()
        return sum(wave() is not None for wave in self.waves)


async def test_units_are_let_go_as_they_are_joined(monkeypatch):
    """Of those that are joined the last one alone is still there, since it fades into the next."""
    synthesizer, alive, joined = Watched(), [], speech_module.joined

    def watched(waves, *rest):
        def each():
            for wave in waves:
                alive.append(synthesizer.alive)
                yield wave

        return joined(each(), *rest)

    whole = await speaker(synthesizer, overlap_s=0.25).speak(request(12))
    monkeypatch.setattr(speech_module, "joined", watched)
    synthesizer.waves.clear()
    again = await speaker(synthesizer, overlap_s=0.25).speak(request(12))
    assert np.array_equal(again.audio, whole.audio)
    assert alive == [12, *range(12, 1, -1)]
    assert synthesizer.alive == 0


async def test_progress_is_told_once_that_all_is_spoken():
    """And never of a speech that was not."""
    kept = Kept()
    await speaker(Watched()).speak(request(3), kept)
    assert kept.completed == 1
    broken, never = Watched(), Kept()
    broken.fail_at = 2
    with pytest.raises(EngineError):
        await speaker(broken).speak(request(3), never)
    assert never.completed == 0


async def test_a_job_holds_no_audio_that_it_has_written():
    """What is not written yet stays until it is."""
    store, job = MemoryStore(), job_request(audio_s=60.0)
    progress = KeptProgress(store, job, 1, (), Clock())
    units = [unit_of(job.speech, index, 0) for index in range(3)]
    await progress.planned(units)
    waves = []
    for unit in units:
        spoken = SpokenUnit(np.ones(2400, np.float32), "f5 v1")
        waves.append(weakref.ref(spoken.audio))
        await progress.spoken(unit, spoken)
        del spoken
    progress.complete()
    gc.collect()
    assert [wave() is not None for wave in waves] == [True] * 3
    await progress.flush()
    gc.collect()
    assert [wave() is not None for wave in waves] == [False] * 3
    assert sorted(await KeptProgress(store, job, 2, (), Clock()).planned(units)) == [0, 1, 2]
    assert progress.done == 3
