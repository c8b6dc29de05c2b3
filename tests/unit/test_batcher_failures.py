"""Whatever fails in a batch fails for its own callers, and nobody is left waiting."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from serve_app.batcher import Batcher
from serve_app.domain import Pcm
from serve_app.engine.fake import FakeEngine
from serve_app.engine.protocol import BatchLimits, EngineInput, one_by_one
from serve_app.errors import DeviceLost, EngineError, InvalidText, OutOfMemory
from tests.support.batching import Held, alone, item
from tests.support.deadline import DEADLINE_S


async def test_a_bad_unit_fails_alone() -> None:
    """After a failed batch its units run one by one, and only the bad one's caller sees an error."""
    async with Held(fail_on={"bad!"}) as held:
        await held.submit("good", "bad!", "fine")
        outcomes = await held.release()
        assert held.engine.calls[1:] == [("good", "bad!", "fine"), ("good",), ("bad!",), ("fine",)]
        np.testing.assert_array_equal(outcomes[1], alone("good"))
        np.testing.assert_array_equal(outcomes[3], alone("fine"))
        assert isinstance(outcomes[2], EngineError)
        assert outcomes[2].message == (
            "the engine failed on unit 0 of the text: RuntimeError: the fake engine was told to fail on 'bad!'"
        )
        assert held.batcher.stats().units_failed == 1


async def test_a_unit_whose_caller_left_is_not_tried_again() -> None:
    """When a batch failed, those who left meanwhile are not run one by one."""
    gate = threading.Event()

    class Engine(FakeEngine):
        def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
            self.calls.append(tuple(each.unit.text for each in items))
            self.started.release()
            if len(items) > 1:
                assert gate.wait(DEADLINE_S)
                raise RuntimeError("too many")
            return one_by_one(lambda _: np.zeros(256, np.float32), items)

    engine = Engine()
    batcher = Batcher(engine)
    tasks = [asyncio.create_task(batcher.submit(item(text))) for text in ("aaaa", "bbbb")]
    assert await asyncio.to_thread(engine.started.acquire, timeout=DEADLINE_S)
    tasks[1].cancel()
    await asyncio.sleep(0)
    gate.set()
    await tasks[0]
    await batcher.close()
    assert engine.calls == [("aaaa", "bbbb"), ("aaaa",)]
    assert batcher.stats().units_abandoned == 1


async def test_errors_of_the_service_pass_unchanged() -> None:
    """InvalidText from the engine reaches the caller as it is."""
    batcher = Batcher(FakeEngine())
    with pytest.raises(InvalidText, match="text is ' '"):
        await batcher.submit(item(" "))
    await batcher.close()


async def test_other_errors_become_engine_errors_and_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The cause's class and text go to the caller, its traceback to the log."""
    batcher = Batcher(FakeEngine(fail_on={"bad"}))
    with pytest.raises(EngineError, match=r"RuntimeError: the fake engine was told") as error:
        await batcher.submit(item("bad"))
    await batcher.close()
    assert isinstance(error.value.__cause__, RuntimeError)
    (record,) = [record for record in caplog.records if record.getMessage() == "engine_failed"]
    assert record.exc_info is not None
    assert record.exc_info[1] is error.value.__cause__


class Miscounting(FakeEngine):
    """Loses the last waveform of each call."""

    def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
        return super().synthesize(items)[:-1]


async def test_a_wrong_number_of_waveforms_is_an_engine_error() -> None:
    """No caller ever gets another's audio: a miscount fails every unit of the call."""
    async with Held(Miscounting) as held:
        await held.submit("aaaa", "bbbb")
        outcomes = await held.release()
        for outcome in outcomes:
            assert isinstance(outcome, EngineError)
            assert outcome.message.startswith("Miscounting returned 0 waveforms for 1 units")


class Exhausted(FakeEngine):
    """Raises the one exception that asyncio cannot put into a future."""

    def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
        raise StopIteration


class Unmeasurable(FakeEngine):
    def frames(self, item: EngineInput) -> int:
        raise KeyError(item.unit.text)


class Unlimited(FakeEngine):
    @property
    def batch_limits(self) -> BatchLimits:
        raise ZeroDivisionError("no limits")


@pytest.mark.parametrize(
    ("engine", "message"),
    [(Exhausted(), "StopIteration"), (Unmeasurable(), "KeyError: 'hi'"), (Unlimited(), "ZeroDivisionError: no limits")],
)
async def test_no_caller_is_left_waiting(engine: FakeEngine, message: str) -> None:
    """Whatever an engine raises, wherever it raises it, its caller gets an EngineError, and so does the next."""
    batcher = Batcher(engine)
    for _ in range(2):
        with pytest.raises(EngineError, match=message):
            await batcher.submit(item("hi"))
    await batcher.close()


class Small(FakeEngine):
    """Has memory for `holds` units in a call."""

    holds = 2

    def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
        if len(items) > self.holds:
            self.calls.append(tuple(item.unit.text for item in items))
            raise OutOfMemory(f"{len(items)} units do not fit")
        return super().synthesize(items)


class Full(Small):
    holds = 0


async def test_a_batch_that_does_not_fit_is_split_once() -> None:
    """The device's memory is short: the two halves are tried, and every caller is answered."""
    async with Held(Small) as held:
        await held.submit("aaaa", "bbbb", "cccc")
        outcomes = await held.release()
        assert held.engine.calls[1:] == [("aaaa", "bbbb", "cccc"), ("aaaa", "bbbb"), ("cccc",)]
        for outcome, text in zip(outcomes, ("first", "aaaa", "bbbb", "cccc"), strict=True):
            np.testing.assert_array_equal(outcome, alone(text))


async def test_what_does_not_fit_in_halves_is_refused() -> None:
    """It is tried no third time: its callers are told to come again (503); so is a unit that is alone."""
    async with Held(Small) as held:
        await held.submit(*(name * 4 for name in "abcdef"))
        outcomes = await held.release()
        assert [len(call) for call in held.engine.calls[1:]] == [6, 3, 3]
        assert [type(outcome) for outcome in outcomes[1:]] == [OutOfMemory] * 6
    engine = Full()
    batcher = Batcher(engine)
    with pytest.raises(OutOfMemory, match="1 units do not fit") as refused:
        await batcher.submit(item("alone"))
    await batcher.close()
    assert (refused.value.status, refused.value.retry_after_s) == (503, 5)
    assert engine.calls == [("alone",)] * 2


async def test_a_lost_device_is_not_asked_unit_by_unit() -> None:
    """Every later call in the process would fail too: all callers of the batch are told at once."""

    class Lost(FakeEngine):
        def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
            if len(items) > 1:
                self.calls.append(tuple(each.unit.text for each in items))
                raise DeviceLost("cuda failed")
            return super().synthesize(items)

    async with Held(Lost) as held:
        await held.submit("aaaa", "bbbb")
        outcomes = await held.release()
        assert held.engine.calls[1:] == [("aaaa", "bbbb")]
        assert [type(outcome) for outcome in outcomes[1:]] == [DeviceLost] * 2


class Decoding(FakeEngine):
    """Answers when `decoded` is set, long after it has taken the next call."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pending: list[tuple[Future[Pcm], Future[Pcm]]] = []

    def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
        later: list[Future[Pcm]] = [Future() for _ in items]
        self.pending += zip(later, super().synthesize(items), strict=True)
        return later

    def decode(self) -> None:
        for later, spoken in self.pending:
            if (error := spoken.exception()) is not None:
                later.set_exception(error)
            else:
                later.set_result(spoken.result())


async def test_the_next_batch_begins_while_the_last_is_decoded() -> None:
    """The engine is given work as soon as it takes it; callers wait for their own waveform, close for all of them."""
    engine = Decoding()
    batcher = Batcher(engine)
    first = asyncio.create_task(batcher.submit(item("first")))
    assert await asyncio.to_thread(engine.started.acquire, timeout=DEADLINE_S)
    second = asyncio.create_task(batcher.submit(item("second")))
    blank = asyncio.create_task(batcher.submit(item(" ")))
    assert await asyncio.to_thread(engine.started.acquire, timeout=DEADLINE_S)
    assert await asyncio.to_thread(engine.started.acquire, timeout=DEADLINE_S)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    assert not any(task.done() for task in (first, second, blank, closing))
    engine.decode()
    np.testing.assert_array_equal(await first, alone("first"))
    np.testing.assert_array_equal(await second, alone("second"))
    with pytest.raises(InvalidText):
        await blank
    await closing
    assert batcher.stats().running == 0


async def test_a_defect_strands_nobody_whose_audio_is_still_to_come() -> None:
    """What cannot be cut or called fails at once; what the engine has taken is answered by the engine."""

    class Forgetful(Decoding):
        forgotten = False

        @property
        def batch_limits(self) -> BatchLimits:
            if self.forgotten:
                raise ZeroDivisionError("no limits")
            return super().batch_limits

    engine = Forgetful()
    batcher = Batcher(engine)
    first = asyncio.create_task(batcher.submit(item("first")))
    assert await asyncio.to_thread(engine.started.acquire, timeout=DEADLINE_S)
    engine.forgotten = True
    with pytest.raises(EngineError, match="no limits"):
        await batcher.submit(item("second"))
    assert not first.done()
    engine.decode()
    np.testing.assert_array_equal(await first, alone("first"))
    await batcher.close()
    assert (batcher.stats().units_done, batcher.stats().units_failed, batcher.stats().units_abandoned) == (1, 1, 0)


async def test_an_error_in_on_call_reaches_no_caller() -> None:
    """A metric that cannot be counted goes to the event loop's handler; the unit is spoken."""
    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: seen.append(context["exception"]))
    error = RuntimeError("no such metric")

    def on_call(frames: int, computed_frames: int) -> None:
        raise error

    batcher = Batcher(FakeEngine(), on_call=on_call)
    np.testing.assert_array_equal(await batcher.submit(item("hello")), alone("hello"))
    await batcher.close()
    assert seen == [error]


async def test_an_items_own_error_leaves_the_rest_of_its_batch() -> None:
    """Nothing is run again for it."""
    async with Held() as held:
        await held.submit("aaa", " ", "bbb")
        outcomes = await held.release()
        assert len(held.engine.calls) == 3
        assert isinstance(outcomes[2], InvalidText)
        np.testing.assert_array_equal(outcomes[3], alone("bbb"))
