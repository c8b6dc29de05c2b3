"""What time mends is waited for unit by unit: what else a job has at the replicas goes on."""

import asyncio
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from serve_app.domain import SAMPLE_RATE_HZ, SpokenUnit, Synthesizer, Unit
from serve_app.errors import Overloaded, ReplicaLost, StorageUnreachable, Unavailable
from serve_app.job_executor import PATIENCE_S
from serve_app.jobs import progress
from serve_app.patience import Patience, patiently
from serve_app.planning import UnitLimits
from serve_app.speech import Speaker, SpeakingModel
from serve_app.storage import MemoryStore, ObjectInfo
from serve_app.unit_speech import NO_PROGRESS
from tests.support.jobs import PAUSES, Clock, finish, job_request, job_store, runner, samples_of, submit, told, unit_of
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


def assert_jittered(pauses: list[float], count: int) -> None:
    """As many pauses, each at least half as long as PATIENCE_S has it, and no longer."""
    longest = [*PATIENCE_S, *[PATIENCE_S[-1]] * count][:count]
    assert len(pauses) == count
    assert [pause for pause, most in zip(pauses, longest, strict=True) if not most / 2 <= pause <= most] == []


class Away(MemoryStore):
    """Does not answer writes of what a run has spoken until `answers`."""

    def __init__(self, answers: Callable[["Away"], bool]) -> None:
        super().__init__()
        self.answers = answers
        self.failed = 0

    def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        if "/progress-" in key and not self.answers(self):
            self.failed += 1
            raise StorageUnreachable("no answer")
        return super().put(key, body, content_type=content_type)


class Slower:
    """Replicas that answer unit 0 at once, and the others `later_s` after the store has not answered."""

    def __init__(self, store: Away, later_s: float = 0.0) -> None:
        self.store, self.later_s = store, later_s
        self.asked: list[int] = []
        self.cancelled: list[int] = []

    async def synthesize(self, unit: Unit) -> SpokenUnit:
        self.asked.append(unit.index)
        try:
            if unit.index:
                await settle(lambda: self.store.failed > 0)
                await asyncio.sleep(self.later_s)
        except asyncio.CancelledError:
            self.cancelled.append(unit.index)
            raise
        return SpokenUnit(np.full(SAMPLE_RATE_HZ, unit.index / 10, np.float32), "test")


def speaker(replicas: Synthesizer) -> Speaker:
    model = SpeakingModel(replicas, lambda stats, speed: UnitLimits(20, 1.0), 0.0, draft=True)
    return Speaker({"preview": model}, Voices())


@pytest.mark.parametrize("error", PASSING)
async def test_a_unit_that_nothing_takes_is_sent_again_while_the_others_go_on(error):
    """Each of the others is spoken once, and none is cancelled; the pauses of the one grow."""
    PAUSES.clear()
    store, replicas = MemoryStore(), Refusing(error, 3)
    ref, r = submit(store, text=TEXT), runner(store, speaker(replicas).speak)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "completed"
    assert (replicas.cancelled, dict(replicas.asked)) == ([], {0: 1, 1: 4, 2: 1, 3: 1})
    assert_jittered(PAUSES, 3)
    assert job_store(store).status(ref).outcome.run == 1


async def test_a_unit_that_nothing_takes_for_five_minutes_ends_the_run_as_waiting():
    """Not for five minutes more: nothing else of the run is waited for after that."""
    PAUSES.clear()
    store, replicas = MemoryStore(), Refusing(Overloaded("full"), 10**9)
    ref, r = submit(store, text=TEXT), runner(store, speaker(replicas).speak)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "queued"
    assert_jittered(PAUSES[:-1], len(PAUSES) - 1)
    assert sum(PAUSES) == pytest.approx(sum(PATIENCE_S))
    found = job_store(store).standing(ref)
    assert (found.reason, replicas.asked[0], replicas.asked[1]) == ("waiting", 1, len(PAUSES) + 1)


@pytest.mark.parametrize("times", [1, 4])
async def test_a_store_that_keeps_nothing_for_a_while_disturbs_no_unit(monkeypatch, times):
    """Those that are being spoken are not cancelled, and none is spoken twice."""
    monkeypatch.setattr(progress, "FLUSH_S", 0.0)
    store = Away(lambda store: store.failed >= times)
    replicas = Slower(store, later_s=0.05)
    ref, r = submit(store, text=TEXT, audio_s=60.0), runner(store, speaker(replicas).speak)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "completed"
    assert (replicas.cancelled, sorted(replicas.asked)) == ([], [0, 1, 2, 3])
    assert (job_store(store).status(ref).outcome.run, store.failed) == (1, times)


async def test_units_that_cannot_be_kept_wait_for_one_of_them(monkeypatch):
    """One asks the store again; when it answers, none of the others has a pause of its own to wait out."""
    monkeypatch.setattr(progress, "FLUSH_S", 0.0)
    pauses: list[float] = []
    over = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await over.wait()

    store, request = Away(lambda store: over.is_set()), job_request(audio_s=60.0)
    kept = progress.KeptProgress(store, request, 1, (), patience=Patience(sleep))
    units = [unit_of(request.speech, index) for index in range(5)]
    await kept.planned(units)
    keeping = [asyncio.ensure_future(kept.spoken(unit, SpokenUnit(samples_of(unit), "test"))) for unit in units[:4]]
    await settle(lambda: pauses)
    await asyncio.sleep(0.01)
    assert (len(pauses), store.failed, [each.done() for each in keeping]) == (1, 1, [False] * 4)
    over.set()
    await asyncio.gather(*keeping)
    assert (len(pauses), job_store(store).standing(request.ref).units_done) == (1, 4)


async def test_a_store_that_keeps_nothing_for_five_minutes_ends_the_run_as_waiting(monkeypatch):
    """What the other units became meanwhile is kept as soon as it answers: the next run speaks none again."""
    monkeypatch.setattr(progress, "FLUSH_S", 0.0)
    PAUSES.clear()
    store = Away(lambda store: sum(PAUSES) >= sum(PATIENCE_S) and store.failed > len(PAUSES))
    replicas, clock = Slower(store), Clock()
    ref, r = submit(store, text=" ".join(WORDS[:2]), audio_s=60.0), runner(store, speaker(replicas).speak, clock)
    await r.start(told(store, ref))
    assert await finish(store, r, ref) == "queued"
    found = job_store(store).standing(ref)
    assert (sum(PAUSES), found.reason, found.units_done) == (pytest.approx(sum(PATIENCE_S)), "waiting", 2)
    clock.now = 10.0
    await r.sweep()
    assert await finish(store, r, ref) == "completed"
    assert (replicas.cancelled, sorted(replicas.asked)) == ([], [0, 1])


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


@pytest.mark.parametrize(
    ("jitter", "first", "count"), [(0.0, (0.5, 1.0, 2.0), 15), (0.5, (0.75, 1.5, 3.0), 12), (1.0, (1.0, 2.0, 4.0), 10)]
)
async def test_pauses_are_jittered_and_come_to_five_minutes(jitter, first, count):
    """Each is half of its length and a random part of the other half; whatever is drawn, one waits as long in all."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    patience = Patience(sleep, lambda: 0.0, random=lambda: jitter)

    async def full() -> None:
        raise Overloaded("full")

    with pytest.raises(Overloaded):
        await patiently(full, patience)
    assert (tuple(pauses[:3]), len(pauses), sum(pauses)) == (first, count, sum(PATIENCE_S))


async def test_no_pause_is_longer_than_what_is_left_for_all():
    """Units that wait one after the other: all together five minutes, and no second more."""
    clock, pauses = Clock(), []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.now += seconds

    patience = Patience(sleep, clock, random=lambda: 0.5)

    async def wait_in_turn() -> None:
        for number in range(100):
            await patience.wait(number // 6, Overloaded("full"))

    with pytest.raises(Overloaded):
        await wait_in_turn()
    assert sum(pauses) == sum(PATIENCE_S)


async def test_units_that_are_refused_at_once_do_not_come_again_at_once():
    """Each draws its own pause."""
    pauses: list[float] = []
    drawn = iter([0.0, 0.25, 0.5, 0.75])

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    patience = Patience(sleep, lambda: 0.0, random=lambda: next(drawn))
    for unit in range(4):
        await patience.wait(unit, Overloaded("full"))
    assert pauses == [0.5, 0.625, 0.75, 0.875]


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
