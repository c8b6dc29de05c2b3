"""A rolling update in mid-text: one version of the model speaks all of it."""

from collections.abc import Callable
from random import Random

import numpy as np
import pytest

from serve_app.domain import SAMPLE_RATE_HZ, SpokenUnit, Unit, version_of
from serve_app.errors import Unavailable
from tests.support.speaking import Kept, request, speaker

OLD, NEW = "m 1 float16 flash cuda", "m 2 float16 flash cuda"


class Replicas:
    """Speak units at once; `made_by` says what speaks the nth unit that is asked for."""

    def __init__(self, made_by: Callable[[int], str]) -> None:
        self._made_by = made_by
        self.asked: list[int] = []

    async def synthesize(self, unit: Unit) -> SpokenUnit:
        self.asked.append(unit.index)
        return spoken(self._made_by(len(self.asked) - 1))


def spoken(made_by: str) -> SpokenUnit:
    return SpokenUnit(np.zeros(SAMPLE_RATE_HZ, np.float32), made_by)


async def test_units_that_the_old_version_spoke_are_spoken_again():
    """The update comes after the second of four units."""
    replicas, kept = Replicas(lambda nth: OLD if nth < 2 else NEW), Kept()
    speech = await speaker(replicas).speak(request(4), kept)
    assert speech.made_by == NEW
    assert replicas.asked == [0, 1, 2, 3, 0, 1]
    assert kept.forgotten == [[0, 1]]


async def test_what_the_old_version_left_in_the_store_is_spoken_again():
    """A run that goes on after the update: the kept units count for nothing, though their plan is the same."""
    replicas, kept = Replicas(lambda nth: NEW), Kept({0: spoken(OLD), 2: spoken(OLD)})
    assert (await speaker(replicas).speak(request(4), kept)).made_by == NEW
    assert replicas.asked == [1, 3, 0, 2]
    assert kept.forgotten == [[0, 2]]


async def test_kept_units_of_one_version_are_enough():
    """Nothing is left to speak, so nothing says that there is a newer version."""
    replicas = Replicas(lambda nth: NEW)
    assert (await speaker(replicas).speak(request(2), Kept({0: spoken(OLD), 1: spoken(OLD)}))).made_by == OLD
    assert replicas.asked == []


async def test_after_a_rollback_the_older_version_speaks_all():
    """It alone speaks now, however much of the text the newer one has."""
    replicas, kept = Replicas(lambda nth: OLD), Kept({0: spoken(OLD)} | {index: spoken(NEW) for index in (1, 2, 3)})
    assert (await speaker(replicas).speak(request(5), kept)).made_by == OLD
    assert replicas.asked == [4, *4 * [0, 4], 1, 2, 3]  # nine in a row by the old one


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_a_text_is_spoken_while_an_update_goes_on(share):
    """Replicas of both versions take units at random, and nothing waits for the end of that: the version that has more
    of the text stays, so what is spoken is not twice the text by much."""
    random = Random(1)
    texts, units = 50, 20
    replicas = Replicas(lambda nth: NEW if random.random() < share else OLD)
    for _ in range(texts):
        assert (await speaker(replicas).speak(request(units))).made_by in (OLD, NEW)
    assert len(replicas.asked) < 2.5 * texts * units


async def test_a_version_that_speaks_no_more_gives_way():
    """It had most of the text; eight units from the new one in a row say that it is gone."""
    replicas = Replicas(lambda nth: OLD if nth < 10 else NEW)
    assert (await speaker(replicas).speak(request(18))).made_by == NEW
    assert replicas.asked == [*range(18), *range(10)]


async def test_versions_that_take_turns_are_waited_out():
    """No audio of two versions, and an error that time mends."""
    replicas = Replicas(lambda nth: f"m {nth} float16")
    with pytest.raises(Unavailable, match="updated"):
        await speaker(replicas).speak(request(20))


async def test_of_what_two_versions_left_the_greater_part_is_kept():
    """All of it was kept, and nobody has spoken since."""
    kept = Kept({0: spoken(OLD), 1: spoken(NEW), 2: spoken(NEW)})
    replicas = Replicas(lambda nth: NEW)
    assert (await speaker(replicas).speak(request(3), kept)).made_by == NEW
    assert replicas.asked == [0]


async def test_another_precision_is_no_other_version():
    """Replicas of unlike GPUs speak with the same voice: nothing is spoken twice."""
    replicas = Replicas(lambda nth: (OLD, "m 1 float32 sdpa cuda")[nth % 2])
    assert (await speaker(replicas).speak(request(4))).made_by == ""
    assert replicas.asked == [0, 1, 2, 3]


def test_a_version_is_engine_and_model():
    assert version_of(OLD) == "m 1" != version_of(NEW)
