"""A model that takes nothing holds up its own jobs and no others."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from serve_app.domain import SAMPLE_RATE_HZ, Speech, SpeechRequest, SpokenUnit, Unit
from serve_app.errors import DeviceLost, Overloaded, Unavailable
from serve_app.job_models import GIVE_WAY_S, LONGEST_REST_S
from serve_app.job_runner import LOOKED_AT, JobRunner
from serve_app.jobs import JobRef
from serve_app.planning import UnitLimits
from serve_app.speech import Speaker, SpeakingModel
from serve_app.storage import MemoryStore
from serve_app.unit_speech import Progress
from tests.support.jobs import Clock, job_request, job_store, model_refused, runner_settings, unit_of, until
from tests.support.speaking import WORDS, Voices

STEPS = 2000
"""Turns of a replica, a second each, in which all must come to its end."""


SETTLED = 200
"""Turns of the event loop in which all is done that can be done now: more than a whole run takes."""


class Here(ThreadPoolExecutor):
    """Does at once what is for a thread, so that no more happens in a second of the test on a fast machine."""

    def submit(self, fn, /, *args, **kwargs):
        done = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


class Replicas:
    """Of one model: they refuse each unit with `error` until that is None, those of `refused` jobs for ever, and keep
    one that is `held` until it is let go. `order`: the jobs whose units were asked for, as they were first."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.refused: set[str] = set()
        self.held: set[int] = set()
        self.let_go = asyncio.Event()
        self.order: list[str] = []
        self.spoken: list[str] = []
        self.lost: list[int] = []

    async def synthesize(self, unit: Unit) -> SpokenUnit:
        if unit.job_id not in self.order:
            self.order.append(unit.job_id)
        if unit.index in self.held:
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                self.lost.append(unit.index)
                raise
        elif self.error is not None:
            raise copy(self.error)
        elif unit.job_id in self.refused:
            raise DeviceLost("whenever it is spoken")
        self.spoken.append(unit.job_id)
        return SpokenUnit(np.full(SAMPLE_RATE_HZ, 0.1, np.float32), "test")


class Service:
    """One Jobs replica and two models, in a time that the test moves."""

    def __init__(self, slots: int = 2, error: Exception | None = None) -> None:
        self.store, self.clock = MemoryStore(), Clock()
        self.f5, self.preview = Replicas(error or Unavailable("no replica")), Replicas()
        models = {
            name: SpeakingModel(replicas, lambda stats, speed: UnitLimits(20, 1.0), 0.0, draft=True)
            for name, replicas in (("f5", self.f5), ("preview", self.preview))
        }
        settings = runner_settings(max_running_jobs=slots)
        speak = Speaker(models, Voices()).speak
        self.runner = JobRunner(self.store, speak, settings, self.clock, self.clock.wall, self.sleep)

    async def sleep(self, seconds: float) -> None:
        due = self.clock.now + seconds
        await until(lambda: self.clock.now >= due)

    def submit(self, number: int, model: str, text: str = "Hello.", **changes: object) -> JobRef:
        request = job_request(number, text=text, accepted_at=100.0 + number, **changes)
        request = request.model_copy(update={"speech": replace(request.speech, model=model)})
        job_store(self.store).submit(request)
        return request.ref

    async def go_on(self, happened: Callable[[], bool]) -> None:
        """A second at a time, until `happened()`."""
        for _ in range(STEPS):
            if happened():
                return
            await self.second()
        raise AssertionError("it did not happen")

    async def second(self) -> None:
        """One, with all that it brings."""
        asyncio.get_running_loop().set_default_executor(Here())
        self.clock.now += 1.0
        await self.runner.look()
        await self.runner.fill()
        for _ in range(SETTLED):
            await asyncio.sleep(0)

    def states(self, refs: list[JobRef]) -> set[str]:
        return {job_store(self.store).standing(ref).state for ref in refs}


@pytest.mark.parametrize("many", [5, LOOKED_AT + 8])
async def test_a_model_that_takes_nothing_keeps_no_job_of_another_waiting(many):
    """Its older jobs wait and count no failure; the others are spoken in their order; when it speaks, so are they."""
    service = Service()
    f5 = [service.submit(number, "f5") for number in range(many)]
    preview = [service.submit(number, "preview") for number in range(0x100, 0x10A)]
    service.preview.held = {0}
    await service.go_on(lambda: len(service.preview.order) == 2)  # both slots are given up
    service.preview.held = set()
    service.preview.let_go.set()
    await service.go_on(lambda: service.states(preview) == {"completed"})
    assert service.preview.order == [ref.job_id for ref in preview]
    assert service.clock.now < 12 * GIVE_WAY_S  # by the clock of the test
    found = {ref: job_store(service.store).standing(ref) for ref in f5}
    assert {(each.outcome, each.failed, each.lost - (ref in service.runner._tasks)) for ref, each in found.items()} == {
        (None, 0, 0)
    }
    assert sum(each.waited for each in found.values()) >= 2
    service.f5.error, service.f5.order = None, []
    await service.go_on(lambda: service.states(f5) == {"completed"})
    assert sorted(service.f5.order) == [ref.job_id for ref in f5]
    await service.runner.close()


async def test_it_is_tried_by_one_job_at_a_time_and_less_and_less_often():
    """By another each time. In the end that takes a few seconds of a slot in each minute."""
    service, running = Service(slots=1), []
    f5 = [service.submit(number, "f5") for number in range(5)]
    for number in range(300):  # another waits at all times
        service.submit(0x10 + number, "preview")
        await service.second()
        running.append([ref for ref in service.runner._tasks if ref in f5])
    assert {len(each) for each in running} == {0, 1}
    rounds = 2 * int(LONGEST_REST_S + GIVE_WAY_S)
    assert 2 * GIVE_WAY_S <= sum(map(len, running[-rounds:])) <= 4 * GIVE_WAY_S
    tries = [now for before, (now,) in pairwise([[], *filter(None, running)]) if before != [now]]
    assert len(tries) > 3
    assert all(before != now for before, now in pairwise(tries))
    await service.runner.close()


async def test_a_job_that_its_model_never_takes_keeps_no_other_of_it_waiting():
    """The oldest is refused for a reason of its own: the others try the model before it does again."""
    service = Service(slots=1)
    service.f5.error = None
    bad, *good = (service.submit(number, "f5") for number in range(4))
    service.f5.refused = {bad.job_id}
    await service.go_on(lambda: service.states(good) == {"completed"})
    await service.runner.close()


async def test_a_job_that_its_model_never_takes_keeps_its_pauses():
    """That others are spoken meanwhile is no reason to try it more often."""
    service = Service(slots=1)
    service.f5.error = None
    bad = service.submit(0, "f5")
    service.f5.refused = {bad.job_id}
    for number in range(200):  # others wait at all times
        service.submit(0x10 + 2 * number, "f5")
        service.submit(0x11 + 2 * number, "preview")
        await service.second()
    assert 3 <= job_store(service.store).standing(bad).waited <= 8
    await service.runner.close()


async def test_its_jobs_go_on_at_once_when_it_speaks_whatever_pause_they_have():
    """The first unit that is spoken is word enough: no other job waits for the end of that one, nor of its own pause,
    which here is a minute from another replica."""
    service, text = Service(slots=3), " ".join(WORDS[:2])
    f5 = [service.submit(number, "f5", text) for number in range(3)]
    jobs = job_store(service.store)
    jobs.begin(jobs.status(f5[0]).request, run=1, owner="gone", started_at=service.clock.wall())
    jobs.end_run(model_refused(service.clock.wall(), Overloaded("full"), f5[0]))
    service.preview.held = {0}
    preview = [service.submit(number, "preview") for number in range(0x10, 0x13)]
    await service.go_on(lambda: {*service.runner._tasks} == {*preview})  # the model rests
    service.f5.error, service.f5.held = None, {1}
    service.f5.order.clear()
    service.preview.let_go.set()
    await service.go_on(lambda: {*service.runner._tasks} == {*f5})
    assert service.f5.order == [ref.job_id for ref in f5]
    assert service.clock.now < LONGEST_REST_S
    await service.runner.close()


@pytest.mark.parametrize("beside", ["nothing", "its own"])
async def test_a_run_gives_its_slot_up_for_a_job_of_another_model_alone(beside):
    """Where nothing could use the slot it waits as long as ever."""
    service = Service(slots=1)
    first = service.submit(0, "f5")
    if beside == "its own":
        service.submit(1, "f5")
    await service.go_on(lambda: bool(service.f5.order))
    begun_at = service.clock.now
    await service.go_on(lambda: service.clock.now > begun_at + 10 * GIVE_WAY_S)
    assert [*service.runner._tasks] == [first]
    assert job_store(service.store).standing(first).runs == 1
    other = service.submit(0x10, "preview")
    await service.go_on(lambda: service.states([other]) == {"completed"})
    assert service.clock.now < begun_at + 15 * GIVE_WAY_S
    await service.runner.close()


async def test_a_run_of_which_the_model_has_a_unit_keeps_its_slot():
    """A full queue that refuses one unit while it speaks another is no model that takes nothing."""
    service = Service(slots=1, error=Overloaded("full"))
    service.f5.held = {0}
    ref = service.submit(0, "f5", text=" ".join(WORDS[:2]))
    service.submit(0x10, "preview")
    await service.go_on(lambda: bool(service.f5.order))
    begun_at = service.clock.now
    await service.go_on(lambda: service.clock.now > begun_at + 10 * GIVE_WAY_S)
    assert ([*service.runner._tasks], service.f5.lost, service.preview.order) == ([ref], [], [])
    await service.runner.close()


async def test_a_unit_that_is_spoken_in_the_moment_in_which_its_run_gives_way_ends_no_job():
    """The run ends as one that waits all the same, and not as one whose time is over; the job is run again."""
    service = Service(slots=1)
    ref = service.submit(0, "f5")
    service.submit(0x10, "preview")
    speak = service.runner._executor._speak

    async def spoken_late(request: SpeechRequest, progress: Progress) -> Speech:
        try:
            return await speak(request, progress)
        except asyncio.CancelledError:
            await progress.spoken(unit_of(request, 0), SpokenUnit(np.zeros(240, np.float32), "test"))
            raise

    service.runner._executor._speak = spoken_late
    await service.go_on(lambda: bool(service.preview.spoken))
    assert job_store(service.store).standing(ref).waited == 1
    service.f5.error = None
    await service.go_on(lambda: service.states([ref]) == {"completed"})
    await service.runner.close()


async def test_a_model_that_has_another_unit_does_not_rest():
    """One unit is refused until the run ends, beside one that is being spoken: the next job is begun at once."""
    service = Service(slots=1, error=Overloaded("full"))
    service.f5.held = {0}
    first, second = (service.submit(number, "f5", text=" ".join(WORDS[:2])) for number in range(2))
    await service.go_on(lambda: bool(service.f5.order))
    await service.go_on(lambda: first not in service.runner._tasks)
    assert job_store(service.store).standing(first).waited == 1
    await service.second()
    assert [*service.runner._tasks] == [second]
    await service.runner.close()
