"""The Serve shell of the job runner: how it ends, in the order in which Serve stops a replica. No Serve here."""

import asyncio
from types import SimpleNamespace

import pytest

from serve_app import app
from serve_app.deployments.jobs import STOP_LOOK_S, STOP_MARGIN_S, Jobs, stop_times
from serve_app.job_client import JobClient
from serve_app.job_runner import JobRunner
from serve_app.jobs import Marker
from serve_app.settings import JobsSettings
from serve_app.storage import MemoryStore
from tests.support.deadline import DEADLINE_S
from tests.support.jobs import Clock, Speak, SpeakUnits, job_store, runner, submit, told, until

PATIENCE_S = 0.04


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class Replica:
    """`Jobs` around a runner, without its constructor, which needs Serve. `run`: what an ingress calls."""

    def __init__(self, runner: JobRunner, patience_s: float = PATIENCE_S) -> None:
        wait_s, drain_s = stop_times(patience_s)
        background = asyncio.create_task(asyncio.Event().wait())
        self._jobs = SimpleNamespace(_runner=runner, _wait_s=wait_s, _drain_s=drain_s, _background=background)
        self.calls: list[asyncio.Task[None]] = []

    async def run(self, marker: Marker) -> None:
        self.calls.append(asyncio.create_task(Jobs.run_named(self._jobs, marker.name)))
        await self.calls[-1]

    async def stop(self) -> None:
        """As Serve does: it waits for the calls that are open, and then tells the replica."""
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*self.calls)
            await Jobs.__del__(self._jobs)


async def test_a_replica_is_stopped_though_somebody_waits_for_its_job(store):
    """The run is let go with what it has spoken, nothing more is begun, and the caller goes on waiting."""
    ref = submit(store, audio_s=60.0)
    r = runner(store, speak := SpeakUnits(4, stuck_at=2))
    await r.beat()
    replica, clock = Replica(r), Clock()
    client = JobClient(store, replica, clock, wall_clock=clock.wall)
    waiting = asyncio.create_task(client.run(ref, timeout_s=60))
    await until(lambda: speak.stuck)
    await replica.stop()

    found = job_store(store).standing(ref)
    assert (found.state, found.reason, found.failed, found.fruitless) == ("queued", "released", 0, 0)
    assert (found.units_done, found.units) == (2, 4)
    assert store.list("heartbeats/").items == []
    await r.start(told(store, submit(store, 0x1A)))
    for _ in range(5):
        await r.sweep()
    assert r._tasks == {}

    b = runner(store, second := SpeakUnits(4), name="b")
    await b.start(told(store, ref))
    async with asyncio.timeout(DEADLINE_S):
        assert (await waiting).state == "completed"
    assert second.spoken == [2, 3]
    assert len(replica.calls) == 1  # it was not handed to the replica again


async def test_a_call_lasts_as_long_as_a_short_job(store):
    """The caller hears of its end from the replica, not by looking."""
    ref = submit(store)
    await Replica(runner(store, Speak()), patience_s=DEADLINE_S).run(told(store, ref))
    assert job_store(store).standing(ref).state == "completed"


@pytest.mark.parametrize(
    ("patience_s", "wait_s", "drain_s"), [(120, 5, 104.5), (20, 5, 4.5), (15.5, 3.875, 1.125), (5, 1.25, 0)]
)
def test_jobs_are_let_go_before_serve_kills(patience_s, wait_s, drain_s):
    """However late in a call the stop begins; a short patience is for letting go alone, and has most of itself left."""
    assert stop_times(patience_s) == (wait_s, drain_s)
    latest_s = wait_s + STOP_LOOK_S + drain_s
    assert patience_s - latest_s >= min(STOP_MARGIN_S, patience_s / 2)


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
def test_serve_looks_as_often_as_the_times_say():
    """The pause between two looks for open calls is part of what a stop takes."""
    deployed = app.jobs_deployment(Jobs, JobsSettings(graceful_shutdown_timeout_s=77))._deployment_config
    assert (deployed.graceful_shutdown_wait_loop_s, deployed.graceful_shutdown_timeout_s) == (STOP_LOOK_S, 77)
