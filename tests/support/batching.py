"""Units for a batcher in front of the fake engine, and one that is held busy while others arrive."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from serve_app.batcher import Batcher
from serve_app.domain import BUILTIN, Pcm, Unit, VoiceRef
from serve_app.engine.fake import FakeEngine
from serve_app.engine.protocol import EngineInput, speak
from tests.support.deadline import DEADLINE_S

__all__ = ["Held", "alone", "item"]


def item(text: str, *, seed: int = 0, due_in_s: float | None = None) -> EngineInput:
    """A unit that occupies five frames a character of `text` in the fake engine."""
    frames = 5 * len(text)
    return EngineInput(Unit(0, text, VoiceRef("heart", BUILTIN), 1.0, seed, frames, "r1", due_in_s=due_in_s), None)


def alone(text: str, *, seed: int = 0) -> Pcm:
    """What the fake engine says for this text when nothing else is in the batch."""
    return speak(FakeEngine(), item(text, seed=seed))[0]


class Held:
    """A fake engine that is busy with the unit "first" until `release`; what is submitted meanwhile waits."""

    def __init__(
        self,
        engine: Callable[..., FakeEngine] = FakeEngine,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        self.gate = threading.Event()
        self.engine = engine(gate=self.gate, **options)
        self.batcher = Batcher(self.engine, clock=clock)
        self.tasks: list[asyncio.Task[Pcm]] = []

    async def __aenter__(self) -> "Held":
        await self.submit("first")
        await self.running()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        await self.batcher.close()

    async def submit(self, *texts: str, due_in_s: float | None = None) -> None:
        """Submit units in this order; on return they wait in the batcher (or, when it is idle, are about to run)."""
        for text in texts:
            self.tasks.append(asyncio.create_task(self.batcher.submit(item(text, due_in_s=due_in_s))))
        await asyncio.sleep(0)

    async def running(self) -> None:
        """Until the engine begins a call."""
        assert await asyncio.to_thread(self.engine.started.acquire, timeout=DEADLINE_S)

    async def release(self) -> list[Pcm | BaseException]:
        """Let the engine run; the outcomes of all units, in the order of submission."""
        self.gate.set()
        return await asyncio.gather(*self.tasks, return_exceptions=True)
