"""Where Ray's errors become ours; handles are stood in for, no Ray runs."""

import asyncio

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from serve_app.deployments.handles import ATTEMPTS, SynthesizerHandle
from serve_app.domain import BUILTIN, Unit, VoiceRef
from serve_app.errors import InvalidText, OutOfMemory, Overloaded, Unavailable

UNIT = Unit(0, "Hello.", VoiceRef("heart", BUILTIN), 1.0, 7, 10, "r1")


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
        self.synthesize = self

    def remote(self, unit: Unit) -> Response:
        self.calls += 1
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


@pytest.mark.parametrize("error", [ActorDiedError(), DeploymentUnavailableError("d")])
async def test_a_dead_replicas_unit_is_spoken_by_another(error):
    """A unit is deterministic, so it is simply sent again; after some attempts it is Unavailable."""
    assert await SynthesizerHandle(Handle(error, "wave"), "m", 7).synthesize(UNIT) == "wave"
    handle = Handle(*[error] * ATTEMPTS)
    with pytest.raises(Unavailable):
        await SynthesizerHandle(handle, "m", 7).synthesize(UNIT)
    assert handle.calls == ATTEMPTS


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
