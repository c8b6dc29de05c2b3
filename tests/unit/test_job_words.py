"""What a Jobs replica does with the word of a new job, which comes with the job's marker."""

import asyncio

import pytest

from serve_app import keys
from serve_app.storage import MemoryStore, Page
from tests.support.interleaving import Hooked
from tests.support.jobs import Speak, runner, submit, told, until


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def test_what_a_full_replica_is_told_of_goes_before_low_priority(store):
    """As soon as a slot is free, and before any other look at the store."""
    speak = Speak()
    speak.gate.clear()
    r = runner(store, speak, max_running_jobs=1)
    running, low = submit(store, 0xA), submit(store, 0xB, low_priority=True)
    await r.start(told(store, running))
    for _ in range(2):
        await r.look()
    new = submit(store, 0xC, accepted_at=110.0)
    assert not await r.start(told(store, new))
    speak.gate.set()
    for ref in (running, new, low):
        await r.wait(ref)
        await r.fill()
    assert [request.job_id for request in speak.requests] == [ref.job_id for ref in (running, new, low)]


class LateStore(MemoryStore):
    """After the listing of the pending jobs of `shard`, and before its caller has it, `happens`."""

    shard, happens = "", staticmethod(lambda: None)

    def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        page = super().list(prefix, after=after, limit=limit)
        if prefix == keys.pending(self.shard):
            self.happens()
        return page


async def test_a_word_that_comes_during_a_look_is_kept():
    """The look has seen the job's shard before the job was there, and must not make it unknown again."""
    loop, store, speak, late = asyncio.get_running_loop(), LateStore(), Speak(), []
    speak.gate.clear()
    r = runner(store, speak, max_running_jobs=1)
    await r.start(told(store, submit(store, 0xA)))
    await until(lambda: speak.requests)

    def tell() -> None:
        store.shard = "none"
        late.append(submit(store, 0xB))
        asyncio.run_coroutine_threadsafe(r.start(told(store, *late)), loop).result()

    store.shard, store.happens = "b", tell
    await r.look()
    speak.gate.set()
    await until(lambda: not r._tasks)
    await r.fill()
    assert [*r._tasks] == late
    await r.wait(*late)


async def test_a_word_that_comes_while_the_job_is_looked_at_begins_it_once(store):
    """One run, which is watched and counted, and no second beside it."""
    loop, speak, words = asyncio.get_running_loop(), Speak(), []
    speak.gate.clear()

    def tell(operation: str, key: str) -> None:
        if key.startswith("jobs/") and not words:
            words.append(told(store, ref))
            asyncio.run_coroutine_threadsafe(r.start(*words), loop).result()

    r, ref = runner(Hooked(store, tell), speak), submit(store)
    for _ in range(2):
        await r.look()
    await r.fill()
    await until(lambda: speak.requests)
    assert len(words) == 1
    for _ in range(3):
        await r.sweep()
    assert ([*r._tasks], len(speak.requests), r._executor.run_of(ref).run) == ([ref], 1, 1)
    speak.gate.set()
    await r.wait(ref)


async def test_a_job_that_ended_is_looked_at_once_although_it_was_told_of(store):
    """By another replica, before the word came: it takes no turn of another, and counts as no speech that waits."""
    speak = Speak()
    speak.gate.clear()
    r = runner(store, speak, max_running_jobs=1)
    running, done = submit(store, 0xA), submit(store, 0xB)
    marker, other = told(store, done), runner(store, Speak(), name="b")
    await other.start(marker)
    await other.wait(done)
    await r.start(told(store, running))
    await r.start(marker)
    speak.gate.set()
    await r.wait(running)
    await r.fill()
    assert (r.audio_waiting()["unended_audio_s"], r._waiting._told) == (0.0, {})
