"""What time mends is waited for unit by unit: what else a job has at the replicas goes on."""

import asyncio
from collections import Counter

import numpy as np
import pytest

from serve_app.domain import SAMPLE_RATE_HZ, SpokenUnit, Unit
from serve_app.errors import Overloaded, ReplicaLost, StorageUnreachable, Unavailable
from serve_app.job_executor import PATIENCE_S
from serve_app.patience import Patience
from serve_app.planning import UnitLimits
from serve_app.speech import NO_PROGRESS, Speaker, SpeakingModel
from serve_app.storage import MemoryStore
from tests.support.jobs import PAUSES, finish, job_request, job_store, runner, submit
from tests.support.speaking import WORDS, Voices, settle

TEXT = " ".join(WORDS[:4])
PASSING = [Overloaded("full"), Unavailable("restarting"), StorageUnreachable("no answer")]


class Refusing:
    """Replicas that answer a unit with `error` so often first; the others answer once unit 1 was refused."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times = error, times
        self.asked = Counter[int]()
        self.cancelled: list[int] = []
        self.spoken: list[int] = []

    async def synthesize(self, unit: Unit) -> SpokenUnit:
        self.asked[unit.index] += 1
        if unit.index == 1 and self.asked[1] <= self.times:
            raise self.error
        try:
            await settle(lambda: self.asked[1] > min(2, self.times))
        finally:
            if self.asked[1] <= min(2, self.times):
                self.cancelled.append(unit.index)
        self.spoken.append(unit.index)
        return SpokenUnit(np.full(SAMPLE_RATE_HZ, unit.index / 10, np.float32), "test")


def speaker(replicas: Refusing) -> Speaker:
    model = SpeakingModel(replicas, lambda stats, speed: UnitLimits(20, 1.0), 0.0, draft=True)
    return Speaker({"preview": model}, Voices())


@pytest.mark.parametrize("error", PASSING)
async def test_a_unit_that_nothing_takes_is_sent_again_while_the_others_go_on(error):
    """Each of the others is spoken once, and none is cancelled; the pauses of the one grow."""
    PAUSES.clear()
    store, replicas = MemoryStore(), Refusing(error, 3)
    ref, r = submit(store, text=TEXT), runner(store, speaker(replicas).speak)
    await r.start(ref)
    assert await finish(store, r, ref) == "completed"
    assert (replicas.cancelled, dict(replicas.asked)) == ([], {0: 1, 1: 4, 2: 1, 3: 1})
    assert tuple(PAUSES) == PATIENCE_S[:3]
    assert job_store(store).status(ref).outcome.run == 1


async def test_a_unit_that_nothing_takes_for_five_minutes_ends_the_run_as_waiting():
    """Not for five minutes more: nothing else of the run is waited for after that."""
    PAUSES.clear()
    store, replicas = MemoryStore(), Refusing(Overloaded("full"), 10**9)
    ref, r = submit(store, text=TEXT), runner(store, speaker(replicas).speak)
    await r.start(ref)
    assert await finish(store, r, ref) == "queued"
    assert tuple(PAUSES) == PATIENCE_S
    assert (job_store(store).standing(ref).reason, replicas.asked[0], replicas.asked[1]) == ("waiting", 1, 11)


async def test_a_lost_replica_is_no_refusal():
    """Whose unit it was is suspect, and the speech begins anew at once; see test_job_limits."""
    replicas = Refusing(ReplicaLost("the replica ended"), 10**9)
    with pytest.raises(ReplicaLost):
        await speaker(replicas).speak(job_request(text=TEXT).speech)
    assert replicas.asked[1] == 1


async def test_a_call_that_is_no_job_is_told_at_once():
    """Its client decides whether to wait."""
    replicas = Refusing(Overloaded("full"), 1)
    with pytest.raises(Overloaded):
        await speaker(replicas).speak(job_request(text=TEXT).speech, NO_PROGRESS)
    assert replicas.asked[1] == 1


async def test_waves_of_units_have_one_patience_together():
    """What any of them waited counts once, however many waited beside it; then the run ends as one that waits."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    patience = Patience(sleep, lambda: now)

    async def waves() -> None:
        for unit in range(1000):
            for _ in range(3):
                await patience.wait(unit, Overloaded("full"))

    with pytest.raises(Overloaded):
        await waves()
    assert sum(PATIENCE_S) <= now < sum(PATIENCE_S) + max(PATIENCE_S)


async def test_units_that_wait_side_by_side_count_once():
    """Eight that are refused together may wait as long as one."""
    now, slept = 0.0, asyncio.Event()

    async def sleep(seconds: float) -> None:
        await slept.wait()

    patience = Patience(sleep, lambda: now)
    waiting = [asyncio.ensure_future(patience.wait(unit, Overloaded("full"))) for unit in range(8)]
    await asyncio.sleep(0)
    now = sum(PATIENCE_S) - 1.0
    slept.set()
    await asyncio.gather(*waiting)
    await patience.wait("another", Overloaded("full"))
