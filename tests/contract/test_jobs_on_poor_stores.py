"""A whole job life over a real S3 server, with what poor stores do: no conditions, conditions ignored, replies lost.

Two runners both believe that they own the job, and a client cancels it as it completes: whatever the store, the job has
one state that does not change any more, the right audio, and nothing pending.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from serve_app.jobs import OUTCOMES, JobRef
from serve_app.storage import ConditionalStore, S3Config, S3Store, conditions_hold
from tests.support.jobs import Clock, SpeakUnits, job_request, job_store, lists_of, runner, told
from tests.support.seaweedfs import SeaweedFS
from tests.support.wire import CutAnswer, Fault, IgnoreConditions, WireProxy, WireRequest, refuse_conditions

WRITES = {"PUT", "DELETE"}


@pytest.fixture
def s3_config(seaweedfs: SeaweedFS, request: pytest.FixtureRequest) -> S3Config:
    """A bucket of the test's own: the layout has fixed keys."""
    bucket = f"jobs-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"
    seaweedfs.create_bucket(bucket)
    return seaweedfs.config(bucket)


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[WireProxy]:
    with WireProxy(seaweedfs.endpoint_url) as wire:
        yield wire


@pytest.fixture
def wired(s3_config: S3Config, proxy: WireProxy) -> S3Store:
    return S3Store(replace(s3_config, endpoint_url=proxy.url))


async def live(store: S3Store, *, exclusive: bool, number: int = 0xA, cancels: bool = True) -> JobRef:
    """Submit, two owners at once, a cancel as they end, and sweeps until nothing is left to do."""
    request, clock = job_request(number, audio_s=40.0, worker_output=True), Clock()
    jobs = job_store(store, clock, exclusive=exclusive)
    await asyncio.to_thread(jobs.submit, request)
    marker = told(store, request.ref)
    speaks = SpeakUnits(3), SpeakUnits(3)
    owners = [runner(store, speak, clock, name, exclusive=exclusive) for speak, name in zip(speaks, "ab", strict=True)]
    for owner in owners:
        await owner.beat()
    await asyncio.gather(*(owner.start(marker) for owner in owners))
    if cancels:
        while not any(speak.spoken for speak in speaks):
            await asyncio.sleep(0)
        await asyncio.to_thread(jobs.cancel, request.ref)
    await asyncio.gather(*(owner.wait(request.ref) for owner in owners))
    for _ in range(3):
        clock.now += 5.0
        for owner in owners:
            await owner.sweep()
            await owner.wait(request.ref)
    return request.ref


def check(store: S3Store, ref: JobRef, *, exclusive: bool) -> str:
    """The state of the job, after everything that must hold of it."""
    folder = f"jobs/{ref.job_id[-1]}/{ref.job_id}/"
    names = [info.key.removeprefix(folder) for info in store.list(folder).items]
    outcomes = [name.split(".")[0] for name in names if name.split(".")[0] in OUTCOMES]
    status = job_store(store).status(ref)
    assert status.state == min(outcomes, key=OUTCOMES.index)
    assert len(outcomes) == 1 or not exclusive
    assert not [name for name in names if name.startswith("progress-")]
    if status.state == "completed":
        audio = status.outcome.audio
        assert hashlib.sha256(store.get(audio.key).body).hexdigest() == audio.sha256
        assert store.get(f"output/{ref.job_id}.wav").body == store.get(audio.key).body
    else:
        assert status.outcome.error.code == "cancelled"
    assert store.list(f"pending/{ref.job_id[-1]}/").items == []
    assert lists_of(store, ref.job_id) == [status.state]
    assert job_store(store).status(ref) == status
    return status.state


def as_it_is(config: S3Config) -> Callable[[WireRequest], Fault | None]:
    return lambda _: None


def without_conditions(config: S3Config) -> Callable[[WireRequest], Fault | None]:
    return refuse_conditions


def ignoring_conditions(config: S3Config) -> Callable[[WireRequest], Fault | None]:
    keys = IgnoreConditions(config.access_key_id or "", config.secret_access_key or "")
    return lambda _: keys


@pytest.mark.parametrize(
    ("kind", "holds"), [(as_it_is, True), (without_conditions, False), (ignoring_conditions, False)]
)
@pytest.mark.parametrize("cancels", [True, False])
async def test_two_owners_and_a_cancel_leave_one_end(
    s3_config: S3Config, wired: S3Store, proxy: WireProxy, kind: Callable, holds: bool, cancels: bool
) -> None:
    """What the probe found out decides how; the end is one either way, and where conditions hold it is written once."""
    proxy.fault = kind(s3_config)
    assert isinstance(wired, ConditionalStore)
    exclusive = await asyncio.to_thread(conditions_hold, wired)
    assert exclusive is holds
    conditional = sum(each.conditional for each in proxy.requests)
    states = set()
    for number in (0xA, 0x1B, 0x2C):
        ref = await live(wired, exclusive=exclusive, number=number, cancels=cancels)
        states.add(check(S3Store(s3_config), ref, exclusive=exclusive))
    assert states <= ({"completed", "cancelled"} if cancels else {"completed"})
    assert (sum(each.conditional for each in proxy.requests) > conditional) is holds


@pytest.mark.parametrize("exclusive", [True, False])
async def test_the_reply_to_each_write_is_lost_once(
    s3_config: S3Config, wired: S3Store, proxy: WireProxy, exclusive: bool
) -> None:
    """A write that happened and whose writer does not know it: the job is what it would have been."""
    lost: set[tuple[str, str]] = set()

    def lose(request: WireRequest) -> Fault | None:
        if request.method not in WRITES or (request.method, request.path) in lost:
            return None
        lost.add((request.method, request.path))
        return CutAnswer(forward=True)

    proxy.fault = lose
    ref = await live(wired, exclusive=exclusive, cancels=False)
    assert len(lost) > 10
    proxy.fault = None
    plain = S3Store(s3_config)
    assert check(plain, ref, exclusive=exclusive) == "completed"
    runs = [info.key for info in plain.list(f"jobs/a/{ref.job_id}/run-").items]
    assert len(runs) == 1  # a lost reply is no reason to run again


@pytest.mark.parametrize("exclusive", [True, False])
async def test_the_reply_to_one_write_is_lost_for_good(
    s3_config: S3Config, wired: S3Store, proxy: WireProxy, exclusive: bool
) -> None:
    """Each write in turn happens and is never confirmed, as for a process that is cut off: another makes its end."""
    written: list[tuple[str, str]] = []
    proxy.fault = lambda request: written.append((request.method, request.path)) if request.method in WRITES else None
    plain, speak = S3Store(s3_config), SpeakUnits(3)
    request = job_request(audio_s=40.0)
    job_store(plain).submit(request)
    only = runner(wired, speak, exclusive=exclusive)
    await only.start(told(plain, request.ref))
    await only.wait(request.ref)
    expected = job_store(plain).status(request.ref).outcome.audio
    steps = len(written)
    assert steps > 6
    for at in range(steps):
        number = 0x10 * (at + 1) + 0xA
        request, clock = job_request(number, audio_s=40.0), Clock()
        job_store(plain).submit(request)
        cut_off = _CutOff(wired, at)
        first = runner(cut_off, SpeakUnits(3), clock, "first", exclusive=exclusive)
        await first.start(told(plain, request.ref))
        await first.wait(request.ref)
        second = runner(plain, SpeakUnits(3), clock, "second", exclusive=exclusive)
        for _ in range(4):
            await second.sweep()
            await second.wait(request.ref)
            clock.now += 5.0
        outcome = job_store(plain).status(request.ref).outcome
        assert (outcome.state, outcome.audio) == ("completed", expected), at
        assert hashlib.sha256(plain.get(expected.key).body).hexdigest() == expected.sha256
        assert not [info for info in plain.list("pending/a/").items if request.job_id in info.key]


class _CutOff:
    """A way to a store that is lost for good at its `at`-th write, which still happens."""

    def __init__(self, store: S3Store, at: int) -> None:
        self._store, self._left = store, at

    def __getattr__(self, name: str) -> Callable:
        method = getattr(self._store, name)

        def call(*args: object, **kwargs: object) -> object:
            if self._left < 0:
                raise ConnectionError("cut off")
            result = method(*args, **kwargs)
            if name in ("put", "put_new", "delete"):
                self._left -= 1
                if self._left < 0:
                    raise ConnectionError("cut off")
            return result

        return call
