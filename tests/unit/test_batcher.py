"""What runs together, in which order, and what happens when callers leave or units fail."""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app import logs
from serve_app.batcher import Batcher, BatcherStats
from serve_app.domain import Pcm, Sampling
from serve_app.engine.fake import FakeEngine
from serve_app.engine.protocol import BatchLimits, EngineInput
from serve_app.errors import Unavailable
from tests.support.batching import Held, alone, item
from tests.support.deadline import DEADLINE_S


async def test_a_first_unit_runs_at_once_and_alone() -> None:
    """An idle engine does not wait for a batch to fill."""
    async with Held() as held:
        assert held.engine.calls == [("first",)]
        assert held.batcher.depth == 0


async def test_what_waits_while_the_engine_is_busy_runs_together() -> None:
    """The next batch is cut when a call ends, from everything that waits then; each caller gets its own audio."""
    async with Held() as held:
        await held.submit("aaaa", "bbbb", "cccc")
        assert held.batcher.depth == 3
        outcomes = await held.release()
        assert held.engine.calls == [("first",), ("aaaa", "bbbb", "cccc")]
        for audio, text in zip(outcomes, ["first", "aaaa", "bbbb", "cccc"], strict=True):
            np.testing.assert_array_equal(audio, alone(text))


async def test_units_of_similar_length_run_together() -> None:
    """The oldest unit picks its batch: nothing over twice or under half its length; the others follow in order."""
    async with Held() as held:
        await held.submit("a" * 10, "b" * 21, "c" * 20, "d" * 4, "e" * 5)
        await held.release()
        assert [[len(text) for text in call] for call in held.engine.calls[1:]] == [[10, 5], [21, 20], [4]]


async def test_a_batch_keeps_the_engines_limits() -> None:
    """No more units than max_units, and no more padded frames than max_frames."""
    async with Held(limits=BatchLimits(max_units=3, max_frames=100)) as held:
        await held.submit("a" * 4, "b" * 4, "c" * 4, "d" * 4, "e" * 8, "f" * 8, "g" * 8)
        await held.release()
        assert ["".join(text[0] for text in call) for call in held.engine.calls[1:]] == ["abc", "de", "fg"]


async def test_a_unit_over_the_limit_runs_alone() -> None:
    """A unit longer than max_frames is spoken, by itself, and never refused or cut."""
    async with Held(limits=BatchLimits(max_units=8, max_frames=50)) as held:
        await held.submit("a" * 40, "b" * 40, "c")
        await held.release()
        assert held.engine.calls[1:] == [("a" * 40,), ("b" * 40,), ("c",)]


async def test_the_oldest_unit_is_never_passed_over() -> None:
    """A long unit is in the next batch, however many short ones fit together better."""
    async with Held(limits=BatchLimits(max_units=2, max_frames=30_000)) as held:
        await held.submit("b" * 90, *["short"] * 6)
        await held.release()
        assert held.engine.calls[1] == ("b" * 90,)


LIMITS = st.builds(BatchLimits, max_units=st.integers(1, 8), max_frames=st.integers(1, 8000))


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=25), limits=LIMITS)
def test_every_unit_is_answered_once(lengths: list[int], limits: BatchLimits) -> None:
    """Whatever the lengths and limits: each unit is spoken exactly once, and its caller gets its own audio."""

    async def speak_all() -> tuple[FakeEngine, list[Pcm]]:
        engine = FakeEngine(limits=limits)
        batcher = Batcher(engine)
        texts = [f"{index:02}" + "x" * length for index, length in enumerate(lengths)]
        audio = await asyncio.gather(*(batcher.submit(item(text)) for text in texts))
        await batcher.close()
        spoken = [text for call in engine.calls for text in call]
        assert sorted(spoken) == texts
        return engine, audio

    engine, audio = asyncio.run(speak_all())
    assert [len(wave) for wave in audio] == [(length + 2) * 5 * 256 for length in lengths]
    for call in engine.calls:
        longest = max(5 * len(text) for text in call)
        assert len(call) == 1 or (len(call) <= limits.max_units and len(call) * longest <= limits.max_frames)


async def test_a_unit_whose_caller_left_is_not_spoken() -> None:
    """Cancelled while it waits, it leaves the queue: the engine never sees it."""
    async with Held() as held:
        await held.submit("stays", "goes", "keeps")
        held.tasks[2].cancel()
        await asyncio.sleep(0)
        assert held.batcher.depth == 2
        outcomes = await held.release()
        assert held.engine.calls == [("first",), ("stays", "keeps")]
        assert isinstance(outcomes[2], asyncio.CancelledError)
        assert held.batcher.stats().units_abandoned == 1


async def test_a_caller_that_leaves_during_its_batch_harms_nobody() -> None:
    """Its result is thrown away; the others in the batch and those behind it get theirs."""
    async with Held() as held:
        await held.submit("aaaa", "bbbb")
        held.tasks[0].cancel()
        outcomes = await held.release()
        assert isinstance(outcomes[0], asyncio.CancelledError)
        np.testing.assert_array_equal(outcomes[1], alone("aaaa"))
        np.testing.assert_array_equal(outcomes[2], alone("bbbb"))
        stats = held.batcher.stats()
        assert (stats.units_done, stats.units_abandoned, stats.running) == (2, 1, 0)


async def test_units_that_are_sampled_differently_share_no_call() -> None:
    """Steps, guidance and sway belong to a whole call: the oldest unit's decide, and who waits longest comes first."""
    quick, fine = Sampling(nfe_steps=7), Sampling(nfe_steps=32)
    async with Held() as held:
        for text, sampling in (("a", quick), ("b", fine), ("c", quick), ("d", None), ("e", fine)):
            one = item(text)
            unit = replace(one.unit, sampling=sampling)
            held.tasks.append(asyncio.create_task(held.batcher.submit(EngineInput(unit, None))))
            await asyncio.sleep(0)
        await held.release()
        assert held.engine.calls == [("first",), ("a", "c"), ("b", "e"), ("d",)]


async def test_a_unit_that_is_to_be_alone_shares_no_call() -> None:
    """Neither as the oldest, which takes no other, nor behind one, which does not take it; nobody is passed over."""
    async with Held() as held:
        for text, by_itself in (("bbbb", True), ("aaaa", False), ("dddd", True), ("cccc", False), ("eeee", True)):
            unit = replace(item(text).unit, alone=by_itself)
            held.tasks.append(asyncio.create_task(held.batcher.submit(EngineInput(unit, None))))
            await asyncio.sleep(0)
        await held.release()
        assert held.engine.calls == [("first",), ("bbbb",), ("aaaa", "cccc"), ("dddd",), ("eeee",)]


async def test_close_lets_the_batch_end_and_fails_what_waits() -> None:
    """The running unit is answered, waiting ones get Unavailable, and nothing more is taken."""
    async with Held() as held:
        await held.submit("late")
        closing = asyncio.create_task(held.batcher.close())
        await asyncio.sleep(0)
        assert not closing.done()
        outcomes = await held.release()
        await closing
        np.testing.assert_array_equal(outcomes[0], alone("first"))
        assert isinstance(outcomes[1], Unavailable)
        assert held.engine.calls == [("first",)]
        with pytest.raises(Unavailable, match="closing"):
            await held.batcher.submit(item("later"))


async def test_a_cancelled_close_leaves_the_running_batch_alone() -> None:
    """Whoever gives up waiting for close takes nothing from the caller of the running unit."""
    async with Held() as held:
        closing = asyncio.create_task(held.batcher.close())
        await asyncio.sleep(0)
        closing.cancel()
        outcomes = await held.release()
        np.testing.assert_array_equal(outcomes[0], alone("first"))


async def test_close_stops_its_own_thread() -> None:
    """A batcher that is closed leaves no thread behind."""
    before = set(threading.enumerate())
    batcher = Batcher(FakeEngine())
    await batcher.submit(item("hello"))
    (thread,) = set(threading.enumerate()) - before
    await batcher.close()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


async def test_an_idle_batcher_has_no_task() -> None:
    """When everybody is answered or gone nothing runs; the next unit starts it again."""
    batcher = Batcher(FakeEngine())
    await batcher.submit(item("one"))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    np.testing.assert_array_equal(await batcher.submit(item("two")), alone("two"))
    await batcher.close()


async def test_stats_count_what_was_done() -> None:
    """Units, calls by size, and the engine's time by the injected clock: two calls of three seconds."""
    ticks = iter(range(0, 100, 3))
    engine = FakeEngine()
    batcher = Batcher(engine, clock=lambda: float(next(ticks)))
    await batcher.submit(item("one"))
    await asyncio.gather(batcher.submit(item("two")), batcher.submit(item("six")))
    await batcher.close()
    assert batcher.stats() == BatcherStats(
        waiting=0,
        running=0,
        units_done=3,
        units_failed=0,
        units_abandoned=0,
        calls={1: 1, 2: 1},
        busy_s=6.0,
        frames=45,
        computed_frames=45,
    )


async def test_on_start_is_called_when_the_engine_begins() -> None:
    """Not when the unit is submitted."""
    async with Held() as held:
        begun: list[str] = []
        waiting = asyncio.create_task(held.batcher.submit(item("second"), on_start=lambda: begun.append("second")))
        await asyncio.sleep(0)
        assert begun == []
        await held.release()
        await waiting
        assert begun == ["second"]


async def test_an_error_in_on_start_reaches_no_caller() -> None:
    """It goes to the event loop's handler; every unit of the batch is answered."""
    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: seen.append(context["exception"]))
    error = RuntimeError("the log is full")

    def on_start() -> None:
        raise error

    batcher = Batcher(FakeEngine())
    np.testing.assert_array_equal(await batcher.submit(item("hello"), on_start=on_start), alone("hello"))
    await batcher.close()
    assert seen == [error]


async def test_a_batch_does_not_run_under_the_first_callers_log_fields(caplog: pytest.LogCaptureFixture) -> None:
    """The task that serves all callers is started by one of them, and must not log under its request id."""
    held = Held(fail_on={"bad"})
    with logs.bind(request_id="someone else"):
        await held.submit("first")
    await held.running()
    await held.submit("good", "bad")
    await held.release()
    await held.batcher.close()
    (record,) = [record for record in caplog.records if record.getMessage() == "batch_failed"]
    assert record.fields == {"units": 2}  # type: ignore[attr-defined]  # set by logs through `extra`
