"""All units of a request spoken by one version of its model, however its replicas come and go.

What is spoken is told to a `Progress`, so that it can go on in another process. Knows nothing of texts, voices, HTTP,
Ray or the store.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from serve_app import logs
from serve_app.domain import SpokenUnit, Synthesizer, Unit, version_of
from serve_app.errors import ReplicaLost, ServiceError, Unavailable
from serve_app.patience import PASSING

__all__ = ["LOOK_AHEAD", "NO_PROGRESS", "NoProgress", "Progress", "of_one_version"]

LOOK_AHEAD = 16
"""Units of one request that may be at the replicas at once. Serve gives each to the shorter of two queues, so that it
takes about twice as many as there are replicas to have all of them at work."""
IN_A_ROW = 8
"""So many units by another version say that the one before speaks no more."""
TURNS = 4
"""How often a text may turn from one version of the model to another, before it is left for a while."""


class Progress(Protocol):
    """What is kept of a request while it is spoken, so that it can go on in another process."""

    async def planned(self, units: Sequence[Unit]) -> Mapping[int, SpokenUnit]:
        """Told once, before any is spoken. Those that were finished before, by index: they are not spoken again."""
        ...

    async def spoken(self, unit: Unit, spoken: SpokenUnit) -> None:
        """Told of each unit as it ends, several at once; of one that was outdated again. What it raises fails the
        speech."""
        ...

    async def refused(self, unit: Unit, error: ServiceError, asked: Collection[int] = ()) -> None:
        """Told of a unit that nothing took, for what time mends. Returns when it is to be sent again, or raises.
        `asked`: units that the model has, and what will be of that."""
        ...

    def outdated(self, indexes: Collection[int]) -> None:
        """Told of units that another version of the model spoke: they are spoken again."""
        ...

    def is_suspect(self, unit: Unit) -> bool:
        """Whether a replica died with this unit, so that it must be spoken alone."""
        ...

    def complete(self) -> None:
        """Told once, when all is spoken for good: its audio may be let go."""
        ...


class NoProgress:
    """Keeps nothing."""

    async def planned(self, units: Sequence[Unit]) -> Mapping[int, SpokenUnit]:
        return {}

    async def spoken(self, unit: Unit, spoken: SpokenUnit) -> None:
        pass

    async def refused(self, unit: Unit, error: ServiceError, asked: Collection[int] = ()) -> None:
        raise error

    def outdated(self, indexes: Collection[int]) -> None:
        pass

    def is_suspect(self, unit: Unit) -> bool:
        return False

    def complete(self) -> None:
        pass


NO_PROGRESS = NoProgress()


async def of_one_version(synthesizer: Synthesizer, units: Sequence[Unit], progress: Progress) -> list[SpokenUnit]:
    """Each unit spoken, now or before, all by one version of the model: no voice changes in mid-text because a rolling
    update came between. While two versions speak, the one that has more of the text stays, until IN_A_ROW units in
    a row were spoken by others; what they spoke is spoken again."""
    spoken = dict(await progress.planned(units))
    version, turns, by_others = "", 0, 0
    while turns < TURNS:
        missing = [unit for unit in units if unit.index not in spoken]
        now = await _speak_units(synthesizer, missing, progress)
        spoken |= now
        if not version:
            met = [version_of(each.made_by) for each in spoken.values()]
            version = max(reversed(met), key=Counter(met).__getitem__)
        for each in now.values():
            by_others = 0 if version_of(each.made_by) == version else by_others + 1
        if by_others >= IN_A_ROW:
            version, turns, by_others = version_of([*now.values()][-1].made_by), turns + 1, 0
        others = [index for index, each in spoken.items() if version_of(each.made_by) != version]
        if not others:
            return [spoken[unit.index] for unit in units]
        logs.event("version_changed", version=version, units=len(units), again=len(others))
        progress.outdated(others)
        for index in others:
            del spoken[index]
    raise Unavailable("the model is being updated: its replicas have spoken this text by turns in several versions")


async def _speak_units(synthesizer: Synthesizer, units: Sequence[Unit], progress: Progress) -> dict[int, SpokenUnit]:
    """Speak `units` with a bounded look-ahead; by index, as they ended. The first error cancels the rest, and waits for
    their end; but one that time mends is `progress`'s to wait for, unit by unit, while the rest goes on.

    Suspects are spoken one after the other, so that of two it is known which a replica died with. A ReplicaLost says
    which units were at the replicas.
    """
    slots, one = asyncio.Semaphore(LOOK_AHEAD), asyncio.Lock()
    asked: set[int] = set()

    async def ask(unit: Unit) -> SpokenUnit:
        asked.add(unit.index)
        try:
            return await synthesizer.synthesize(unit)
        except ReplicaLost as error:
            error.unit_indexes = frozenset(asked)
            raise
        finally:
            asked.discard(unit.index)

    async def taken(unit: Unit) -> SpokenUnit:
        while True:
            try:
                return await ask(unit)
            except ReplicaLost:
                raise
            except PASSING as error:
                await progress.refused(unit, error, asked)

    async def speak(unit: Unit) -> None:
        async with slots:  # until it is kept, so that a slow store holds no more than these in memory
            if progress.is_suspect(unit):
                async with one:
                    spoken = await taken(replace(unit, alone=True))
            else:
                spoken = await taken(unit)
            await progress.spoken(unit, spoken)
            done[unit.index] = spoken

    done: dict[int, SpokenUnit] = {}
    tasks = [asyncio.create_task(speak(unit)) for unit in units]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done
