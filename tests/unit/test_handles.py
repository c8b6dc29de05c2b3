"""Where Ray's errors become ours; handles are stood in for, no Ray runs."""

import asyncio
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from serve_app.deployments.handles import ATTEMPTS, JobsHandle, SynthesizerHandle
from serve_app.deployments.jobs import Jobs
from serve_app.domain import BUILTIN, Unit, VoiceRef
from serve_app.errors import DeviceLost, InvalidText, OutOfMemory, Overloaded, ReplicaLost, Unavailable
from serve_app.jobs import JobRef, Marker
from tests.support.jobs import job_id_of

UNIT = Unit(0, "Hello.", VoiceRef("heart", BUILTIN), 1.0, 7, 10, "r1")
OF_A_JOB = replace(UNIT, index=4, job_id="j1")
DIED, NOBODY = ActorDiedError(), DeploymentUnavailableError("d")


class Response:
    """What a handle's remote() returns: awaitable and cancellable."""

    def __init__(self, outcome: object) -> None:
        self.outcome = outcome
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def __await__(self):
        if isinstance(self.outcome, asyncio.Event):
            yield from self.outcome.wait().__await__()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Handle:
    """A DeploymentHandle whose calls end as told, one after the other."""

    def __init__(self, *outcomes: object) -> None:
        self.responses = [Response(outcome) for outcome in outcomes]
        self.calls = 0
        self.units: list[Unit | None] = []
        self.synthesize = self.health = self

    def remote(self, unit: Unit | None = None) -> Response:
        self.calls += 1
        self.units.append(unit)
        return self.responses[self.calls - 1]


async def test_an_answer_is_passed_on():
    """What the replica returns is what the caller gets."""
    assert await SynthesizerHandle(Handle("wave"), "m", 7).synthesize(UNIT) == "wave"


async def test_a_full_queue_is_429_with_retry_after():
    """Backpressure is Overloaded, and is not tried again here."""
    handle = Handle(BackPressureError(5, 5))
    with pytest.raises(Overloaded, match="'m'") as caught:
        await SynthesizerHandle(handle, "m", 7).synthesize(UNIT)
    assert (caught.value.status, caught.value.retry_after_s, handle.calls) == (429, 7, 1)


@pytest.mark.parametrize("unit", [UNIT, OF_A_JOB])
@pytest.mark.parametrize("error", [NOBODY, RayTaskError("synthesize", "Traceback", DeviceLost("cuda failed"))])
async def test_a_unit_that_no_replica_takes_is_sent_again_as_it_is(error, unit):
    """It is deterministic and did no harm; after some attempts it is Unavailable, of a job or not."""
    handle = Handle(error, "wave")
    assert await SynthesizerHandle(handle, "m", 7).synthesize(unit) == "wave"
    assert handle.units == [unit, unit]
    handle = Handle(*[error] * ATTEMPTS)
    with pytest.raises(Unavailable) as caught:
        await SynthesizerHandle(handle, "m", 7).synthesize(unit)
    assert (handle.calls, caught.value.code == "replica_lost") == (ATTEMPTS, False)


@pytest.mark.parametrize("error", [DIED, ActorUnavailableError("gone", b"0" * 16)])
async def test_a_dead_replicas_unit_is_sent_once_more_and_alone(error):
    """It may be what killed the replica: the next one has it in no batch of others."""
    handle = Handle(error, "wave")
    assert await SynthesizerHandle(handle, "m", 7).synthesize(UNIT) == "wave"
    assert handle.units == [UNIT, replace(UNIT, alone=True)]


async def test_a_poison_unit_takes_two_replicas_at_most():
    """The second death is the answer, and says which unit it was."""
    handle = Handle(DIED, DIED, "wave")
    with pytest.raises(ReplicaLost, match=r"'m' ended while it had unit 0 of the text") as caught:
        await SynthesizerHandle(handle, "m", 7).synthesize(UNIT)
    assert (caught.value.status, caught.value.code, caught.value.unit_index) == (503, "replica_lost", 0)
    assert handle.units == [UNIT, replace(UNIT, alone=True)]


async def test_a_poison_unit_takes_two_replicas_however_long_they_are_away():
    """Attempts that found no replica are counted apart, and forget nothing."""
    handle = Handle(NOBODY, DIED, NOBODY, DIED, "wave")
    with pytest.raises(ReplicaLost):
        await SynthesizerHandle(handle, "m", 7).synthesize(UNIT)
    assert [unit.alone for unit in handle.units] == [False, False, True, True]


@pytest.mark.parametrize("alone", [False, True])
async def test_a_jobs_unit_is_not_sent_again(alone):
    """Who runs the job keeps count of its suspects: the first death is the answer, with the unit's index."""
    handle = Handle(DIED, "wave")
    with pytest.raises(ReplicaLost) as caught:
        await SynthesizerHandle(handle, "m", 7).synthesize(replace(OF_A_JOB, alone=alone))
    assert (handle.calls, caught.value.unit_index) == (1, 4)


async def test_the_units_index_survives_pickling():
    """The error crosses processes; one that nobody has set says nothing."""
    with pytest.raises(ReplicaLost) as caught:
        await SynthesizerHandle(Handle(DIED), "m", 7).synthesize(OF_A_JOB)
    assert pickle.loads(pickle.dumps(caught.value)).unit_index == 4
    assert ReplicaLost("gone").unit_index is None


async def test_another_actors_death_is_not_the_units_fault():
    """What a living replica raises because an actor that it called died is Unavailable, and is tried again as that."""
    error = RayTaskError("synthesize", "Traceback", ActorDiedError()).as_instanceof_cause()
    handle = Handle(*[error] * ATTEMPTS)
    with pytest.raises(Unavailable) as caught:
        await SynthesizerHandle(handle, "m", 7).synthesize(OF_A_JOB)
    assert (caught.value.code, handle.calls) == ("unavailable", ATTEMPTS)


@pytest.mark.parametrize("error", [DIED, NOBODY])
async def test_health_of_a_dead_replica_is_unavailable(error):
    """No unit is to blame when a replica dies that is only asked how it is."""
    with pytest.raises(Unavailable, match="no replica that answers") as caught:
        await SynthesizerHandle(Handle(error), "m", 7).health()
    assert caught.value.code == "unavailable"


async def test_what_the_replica_raised_is_raised_here():
    """Our own error comes out of Ray's wrapping as itself."""
    wrapped = RayTaskError("synthesize", "Traceback", InvalidText("nothing to speak"))
    with pytest.raises(InvalidText, match="nothing to speak"):
        await SynthesizerHandle(Handle(wrapped), "m", 7).synthesize(UNIT)


async def test_a_unit_that_does_not_fit_is_not_sent_again():
    """The replica's batcher has tried it twice; the next replica has no more memory."""
    handle = Handle(*[RayTaskError("synthesize", "Traceback", OutOfMemory("does not fit"))] * ATTEMPTS)
    with pytest.raises(OutOfMemory, match="does not fit"):
        await SynthesizerHandle(handle, "m", 7).synthesize(UNIT)
    assert handle.calls == 1


async def test_a_caller_that_leaves_cancels_the_remote_call():
    """The unit is taken out of the replica's queue."""
    handle = Handle(asyncio.Event())
    task = asyncio.create_task(SynthesizerHandle(handle, "m", 7).synthesize(UNIT))
    while not handle.calls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handle.responses[0].cancelled


async def test_a_jobs_replica_is_told_of_several_jobs_in_one_call():
    """By the names of their markers, which tell whose turn is when; a name of another version is passed over."""
    handle, started = Handle(None), []

    class Runner:
        async def start(self, marker: Marker) -> None:
            started.append(marker)

    handle.start_named = handle
    markers = [Marker(JobRef("default", job_id_of(number)), 1, audio_s=number) for number in (1, 2)]
    await JobsHandle(handle).start(markers)
    await Jobs.start_named(SimpleNamespace(_runner=Runner()), ["what is this", *handle.units[0]])
    assert started == markers
