"""Single flight, and what is kept. The cases of Go's singleflight tests, and the gaps that others had to fix."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar

import numpy as np
import pytest

from serve_app.domain import BUILTIN, Voice, VoiceRef
from serve_app.errors import StorageDenied, Unavailable
from serve_app.voice_cache import CacheStats, VoiceCache

ANNA, BEN, CLEO = (VoiceRef(name, "v1") for name in ("anna", "ben", "cleo"))
SAMPLES = 250
VOICE_BYTES = 4 * SAMPLES
ROOM = 10 * VOICE_BYTES


@pytest.fixture(autouse=True)
async def _nothing_is_left_to_asyncio() -> AsyncIterator[None]:
    """Fails a test after which asyncio has something to report: an error in a callback, or one that nobody took."""
    reports: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    yield
    gc.collect()
    assert reports == []


def voice(ref: VoiceRef, samples: int = SAMPLES) -> Voice:
    return Voice(ref, np.zeros(samples, np.float32), "")


class Loads:
    """A loader that notes what it is asked and, where `held`, waits for `release`."""

    def __init__(self, *, held: bool = False, make: Callable[[VoiceRef], Voice] = voice) -> None:
        self.asked: list[VoiceRef] = []
        self.error: BaseException | None = None
        self.make = make
        self.released = asyncio.Event()
        if not held:
            self.released.set()

    async def __call__(self, ref: VoiceRef) -> Voice:
        self.asked.append(ref)
        await self.released.wait()
        if self.error is not None:
            raise self.error
        return self.make(ref)


async def begin(cache: VoiceCache, ref: VoiceRef, count: int) -> list[asyncio.Task[Voice]]:
    """Callers that all wait in `get` on return."""
    tasks = [asyncio.create_task(cache.get(ref)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_a_voice_is_loaded_and_returned() -> None:
    """Go's TestDo: the caller gets what the load gives."""
    loads = Loads()
    found = await VoiceCache(loads, ROOM).get(ANNA)
    assert (found.ref, loads.asked) == (ANNA, [ANNA])


async def test_callers_at_the_same_time_share_one_load() -> None:
    """Go's TestDoDupSuppress: a thousand callers, one load, one and the same voice."""
    loads = Loads(held=True)
    cache = VoiceCache(loads, ROOM)
    tasks = await begin(cache, ANNA, 1000)
    assert loads.asked == []  # all of them wait before the load has begun
    loads.released.set()
    voices = await asyncio.gather(*tasks)
    assert loads.asked == [ANNA]
    assert {id(each) for each in voices} == {id(voices[0])}
    assert cache.stats() == CacheStats(hits=0, misses=1000, loads=1, size=VOICE_BYTES)


async def test_callers_later_need_no_load() -> None:
    """What was loaded is kept, and counted as a hit."""
    loads = Loads()
    cache = VoiceCache(loads, ROOM)
    first, second = await cache.get(ANNA), await cache.get(ANNA)
    assert first is second
    assert loads.asked == [ANNA]
    assert cache.stats() == CacheStats(hits=1, misses=1, loads=1, size=VOICE_BYTES)


async def test_voices_are_told_apart_by_name_version_and_tenant() -> None:
    """Each of them has its own load, at the same time too."""
    refs = [ANNA, BEN, VoiceRef("anna", "v2"), VoiceRef("anna", "v1", "acme")]
    loads = Loads(held=True)
    cache = VoiceCache(loads, ROOM)
    tasks = [asyncio.create_task(cache.get(ref)) for ref in refs]
    await asyncio.sleep(0)
    loads.released.set()
    assert [found.ref for found in await asyncio.gather(*tasks)] == refs
    assert loads.asked == refs


async def test_an_error_reaches_all_and_is_not_kept() -> None:
    """Go's TestDoErr: every waiter gets it; whoever asks next begins a new load."""
    loads = Loads(held=True)
    loads.error = StorageDenied("refused")
    cache = VoiceCache(loads, ROOM)
    tasks = await begin(cache, ANNA, 20)
    loads.released.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes == [loads.error] * 20
    assert loads.asked == [ANNA]
    loads.error = None
    assert (await cache.get(ANNA)).ref == ANNA
    assert loads.asked == [ANNA, ANNA]


async def test_who_sees_an_error_and_asks_again_gets_a_new_load() -> None:
    """Go's TestForget: by the time a waiter goes on, the failed load is forgotten."""
    loads = Loads(held=True)
    loads.error = StorageDenied("refused")
    cache = VoiceCache(loads, ROOM)

    async def twice() -> Voice:
        with pytest.raises(StorageDenied):
            await cache.get(ANNA)
        loads.error = None
        return await cache.get(ANNA)

    tasks = [asyncio.create_task(twice()) for _ in range(5)]
    await asyncio.sleep(0)
    loads.released.set()
    assert [found.ref for found in await asyncio.gather(*tasks)] == [ANNA] * 5
    assert loads.asked == [ANNA, ANNA]


@pytest.mark.parametrize("which", [0, 3, 9], ids=["first", "middle", "last"])
async def test_a_cancelled_caller_harms_nobody(which: int) -> None:
    """Not even where it was the one that began the load: the others are answered by that same load."""
    loads = Loads(held=True)
    cache = VoiceCache(loads, ROOM)
    tasks = await begin(cache, ANNA, 10)
    tasks[which].cancel()
    await asyncio.wait({tasks[which]})
    loads.released.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes.pop(which), asyncio.CancelledError)
    assert [found.ref for found in outcomes if isinstance(found, Voice)] == [ANNA] * 9
    assert loads.asked == [ANNA]


async def test_a_cancelled_caller_does_not_drop_the_load() -> None:
    """Whoever comes after the cancellation joins the load that runs, though nobody waits for it any more."""
    loads = Loads(held=True)
    cache = VoiceCache(loads, ROOM)
    (first,) = await begin(cache, ANNA, 1)
    first.cancel()
    await asyncio.wait({first})
    (second,) = await begin(cache, ANNA, 1)
    loads.released.set()
    assert (await second).ref == ANNA
    assert loads.asked == [ANNA]


async def test_an_error_that_nobody_waits_for_is_forgotten() -> None:
    """When all callers left and the load fails, nothing is reported as never retrieved, and the next call loads."""
    loads = Loads(held=True)
    loads.error = StorageDenied("refused")
    cache = VoiceCache(loads, ROOM)
    (caller,) = await begin(cache, ANNA, 1)
    caller.cancel()
    await asyncio.wait({caller})
    loads.released.set()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait({task})
    loads.error = None
    assert (await cache.get(ANNA)).ref == ANNA
    assert loads.asked == [ANNA, ANNA]


async def test_a_load_that_is_broken_off_is_an_error_not_a_cancellation() -> None:
    """Go's TestGoexit: waiters who were not cancelled themselves get Unavailable, and the next call loads anew."""
    loads = Loads(held=True)
    loads.error = asyncio.CancelledError()
    cache = VoiceCache(loads, ROOM)
    tasks = await begin(cache, ANNA, 3)
    loads.released.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    loads.error = None
    assert (await cache.get(ANNA)).ref == ANNA


async def test_a_caller_that_is_cancelled_with_the_load_is_cancelled() -> None:
    """As at the end of a program, when both are: the caller's own cancellation is not turned into an error."""
    loads = Loads(held=True)
    loads.error = asyncio.CancelledError()
    cache = VoiceCache(loads, ROOM)
    (caller,) = await begin(cache, ANNA, 1)
    await asyncio.sleep(0)  # the load has begun
    loads.released.set()
    await asyncio.sleep(0)  # it has ended, and its callbacks are about to run
    caller.cancel()
    outcome = (await asyncio.gather(caller, return_exceptions=True))[0]
    assert isinstance(outcome, asyncio.CancelledError)


async def test_a_load_does_not_run_in_its_first_callers_context() -> None:
    """Go's context leak: the request id of whoever came first must not be logged for the others."""
    request_id: ContextVar[str] = ContextVar("request_id", default="none")
    seen: list[str] = []

    async def load(ref: VoiceRef) -> Voice:
        seen.append(request_id.get())
        return voice(ref)

    request_id.set("the first caller's")
    await VoiceCache(load, ROOM).get(ANNA)
    assert seen == ["none"]


async def test_the_least_recently_used_voice_goes_first() -> None:
    """Bytes are bounded; a voice that was asked for again stays."""
    loads = Loads()
    cache = VoiceCache(loads, 2 * VOICE_BYTES)
    for ref in (ANNA, BEN, ANNA, CLEO):
        await cache.get(ref)
    assert cache.stats() == CacheStats(hits=1, misses=3, loads=3, size=2 * VOICE_BYTES)
    for ref in (ANNA, CLEO, BEN):
        await cache.get(ref)
    assert loads.asked == [ANNA, BEN, CLEO, BEN]


async def test_the_bound_counts_bytes_of_audio_and_text() -> None:
    """Two voices fit by their audio, but not with their texts."""
    loads = Loads(make=lambda ref: Voice(ref, np.zeros(SAMPLES, np.float32), "é"))
    cache = VoiceCache(loads, 2 * VOICE_BYTES + 3)
    for ref in (ANNA, BEN):
        await cache.get(ref)
    assert cache.stats().size == VOICE_BYTES + 2


async def test_a_voice_over_the_bound_is_returned_but_not_kept() -> None:
    """It pushes nothing out, either."""
    loads = Loads(make=lambda ref: voice(ref, SAMPLES + (ref == BEN)))
    cache = VoiceCache(loads, VOICE_BYTES)
    await cache.get(ANNA)
    for _ in range(2):
        assert (await cache.get(BEN)).ref == BEN
    assert loads.asked == [ANNA, BEN, BEN]
    assert cache.stats().size == VOICE_BYTES
    await cache.get(ANNA)
    assert cache.stats().hits == 1


async def test_a_built_in_voice_is_a_defect_of_the_caller() -> None:
    """It is never loaded: its version would be the same in every store."""
    loads = Loads()
    with pytest.raises(ValueError, match="'heart' is built into an engine"):
        await VoiceCache(loads, ROOM).get(VoiceRef("heart", BUILTIN))
    assert loads.asked == []
