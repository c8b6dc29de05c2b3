"""Why a job may not be begun yet, from what looks at it have found."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from serve_app.job_holds import TENDED_EVERY, Holds, Sweep, spread
from serve_app.job_retries import LONGEST_PAUSE_S
from serve_app.jobs import JobRef
from tests.support.jobs import Clock

REF = JobRef(tenant="default", job_id="0190a6f0-0000-7000-8000-000000000001")
FIRST = Sweep(5, frozenset({"a", "b"}))


def later(sweeps: int, *live: str) -> Sweep:
    return Sweep(FIRST.number + sweeps, frozenset(live or FIRST.live))


@dataclass
class World:
    """One replica, `a`, and what it knows of others and of models."""

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.dead: set[str] = set()
        self.own_time = False
        heartbeats = SimpleNamespace(is_dead=lambda owner: owner in self.dead)
        models = SimpleNamespace(has_own_time=lambda ref, end: self.own_time)
        self.holds = Holds(heartbeats, "a", models, self.clock, self.clock.wall)

    def take(self, owner: str | None = None, pause_s: float | None = None, sweep: Sweep = FIRST) -> bool:
        """Look at the job, which this replica or another has begun, or whose last run is over."""
        run = SimpleNamespace(owner=owner) if owner or pause_s is not None else None
        end = None if pause_s is None else SimpleNamespace(not_before=self.clock.wall() + pause_s)
        return self.holds.may_take(REF, SimpleNamespace(run=run, run_end=end), sweep)


@pytest.fixture
def world() -> World:
    return World()


def test_what_nobody_began_is_free(world: World):
    """And nothing is remembered of it."""
    assert world.holds.may_be_free(REF, FIRST)
    assert world.take()
    assert (REF in world.holds, len(world.holds)) == (False, 0)


def test_another_ones_run_is_left_alone_while_it_lives(world: World):
    """For some sweeps; at once when it is no more among the living; and taken when it is dead."""
    assert not world.take("b")
    assert world.holds.is_elsewhere(REF)
    assert not world.holds.may_be_free(REF, later(TENDED_EVERY + spread(REF) - 1))
    assert world.holds.may_be_free(REF, later(TENDED_EVERY + spread(REF)))
    assert world.holds.may_be_free(REF, later(1, "a"))
    assert not world.take("b", sweep=later(1, "a"))  # it goes, or is about to be judged dead
    assert not world.holds.is_elsewhere(REF)
    assert world.holds.may_be_free(REF, later(2, "a"))
    world.dead.add("b")
    assert world.take("b")
    assert REF not in world.holds


def test_a_pause_is_waited_for(world: World):
    """Unless it is longer than any can be, or the job has its model's own time."""
    assert not world.take(pause_s=10)
    assert not world.holds.may_be_free(REF, later(100))
    world.clock.now += 10
    assert world.holds.may_be_free(REF, FIRST)
    assert world.take(pause_s=LONGEST_PAUSE_S + 1)
    world.own_time = True
    assert world.take(pause_s=10)


def test_a_run_that_was_left_here_waits_for_its_time(world: World):
    """It is begun here again when that has come; another one's run since then is another's."""
    world.holds.leave(REF, world.clock() + 5)
    assert (REF in world.holds, set(world.holds.left())) == (True, {REF})
    assert not world.take("a")
    assert not world.holds.may_be_free(REF, FIRST)
    assert world.holds.may_be_free(REF, later(1))
    world.clock.now += 5
    assert world.take("a")
    assert not world.take("b")
    assert set(world.holds.left()) == set()


def test_what_is_past_is_forgotten(world: World):
    """What was found of jobs that wait no more, and runs of jobs that have ended."""
    world.take("b")
    world.holds.leave(REF, 0.0)
    world.holds.forget_found(but=[REF])
    world.holds.forget_left(but=[REF])
    assert len(world.holds) == 2
    world.holds.forget_found(but=[])
    assert len(world.holds) == 1
    world.holds.forget_left(but=[])
    assert len(world.holds) == 0
    world.holds.leave(REF, 0.0)
    world.holds.ended(REF)
    world.holds.hold(REF, 6)
    assert not world.holds.may_be_free(REF, FIRST)
    world.holds.release(REF)
    assert (world.holds.may_be_free(REF, FIRST), len(world.holds)) == (True, 0)
