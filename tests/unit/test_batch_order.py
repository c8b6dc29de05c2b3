"""Which waiting units run next, and which together: by when they are due, then as they came; by length."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.batch_order import PATIENCE_S, Arrival, choose_batch
from serve_app.engine.protocol import BatchLimits
from tests.support.batching import Held, item

Wait = tuple[float, float | None]
"""When a unit arrived, and in how many seconds it was due then."""

SECONDS = st.integers(0, 100).map(float)
WAITS = st.lists(st.tuples(SECONDS, st.none() | st.integers(-20, 120).map(float)), min_size=1, max_size=20).map(
    lambda waits: sorted(waits, key=lambda wait: wait[0])
)
ONE_BY_ONE = BatchLimits(max_units=1, max_frames=30_000)


def ordered(waits: list[Wait], now_s: float) -> list[int]:
    """Indexes of `waits`, next first."""
    arrivals = [Arrival.of(item("a", due_in_s=due_in_s).unit, arrived_s) for arrived_s, due_in_s in waits]
    return sorted(range(len(waits)), key=lambda index: arrivals[index].turn(now_s))


def due_s(wait: Wait) -> float:
    """From when on nothing that arrives may overtake it."""
    arrived_s, due_in_s = wait
    return arrived_s + (30 if due_in_s is None else max(due_in_s, 0))


@given(waits=WAITS, later_s=SECONDS)
def test_those_that_are_due_go_first_and_the_earliest_of_them_before_the_others(
    waits: list[Wait], later_s: float
) -> None:
    """Two that have a time by which they are due go by it; no other goes before one, unless it is overdue; the others,
    and equals, go as they came."""
    now_s = waits[-1][0] + later_s
    for one, other in pairwise(ordered(waits, now_s)):
        timed = [waits[index][1] is not None or waits[index][0] + 30 <= now_s for index in (one, other)]
        assert timed != [False, True]
        first, second = (due_s(waits[index]) for index in (one, other))
        assert timed == [True, False] or (first, one) < (second, other)


@given(waits=WAITS, later_s=SECONDS)
def test_nothing_overtakes_what_is_due(waits: list[Wait], later_s: float) -> None:
    """Starvation is bounded: from when a unit is due, or has waited for 30 s, all that arrives goes behind it."""
    now_s = waits[-1][0] + later_s
    order = ordered(waits, now_s)
    for place, index in enumerate(order):
        if due_s(waits[index]) <= now_s:
            before = [waits[earlier][0] for earlier in order[:place]]
            assert all(arrived_s <= due_s(waits[index]) for arrived_s in before)


async def test_the_engine_gets_what_is_due_first() -> None:
    """Whoever runs dry first is served first; a job's unit comes when no listener waits."""
    async with Held(limits=ONE_BY_ONE) as held:
        await held.submit("job")
        await held.submit("late", due_in_s=50.0)
        await held.submit("soon", due_in_s=5.0)
        await held.submit("file")
        await held.submit("now", due_in_s=0.0)
        await held.release()
        assert held.engine.calls == [("first",), ("now",), ("soon",), ("late",), ("job",), ("file",)]


async def test_a_unit_that_nobody_listens_to_gives_way_no_longer_than_its_patience() -> None:
    """After 30 s it is due: behind what was due earlier, before all that listeners bring from then on."""
    now_s = [100.0]
    async with Held(clock=lambda: now_s[0], limits=ONE_BY_ONE) as held:
        await held.submit("job")
        now_s[0] += PATIENCE_S - 1
        await held.submit("younger job")
        await held.submit("before", due_in_s=0.0)
        now_s[0] += 2
        await held.submit("after", due_in_s=0.0)
        await held.submit("dry for long", due_in_s=-20.0)
        await held.release()
        assert held.engine.calls == [
            ("first",),
            ("before",),
            ("job",),
            ("after",),
            ("dry for long",),
            ("younger job",),
        ]


async def test_the_first_of_the_order_picks_its_batch() -> None:
    """A unit that is due takes the others by length, whether anybody listens to them or not."""
    async with Held() as held:
        await held.submit("a" * 10, "b" * 40)
        await held.submit("c" * 11, "d" * 41, due_in_s=9.0)
        await held.submit("e" * 42, due_in_s=1.0)
        await held.release()
        assert ["".join(text[0] for text in call) for call in held.engine.calls[1:]] == ["edb", "ca"]


@pytest.mark.parametrize(
    ("frames", "limits", "expected"),
    [
        ([100, 60, 95], BatchLimits(2, 30_000), [0, 2]),  # the nearest length first
        ([100, 110, 90], BatchLimits(2, 30_000), [0, 1]),  # as near: the earlier one
        ([100, 150, 80], BatchLimits(8, 200), [0, 2]),  # a longer one has no room, a shorter one has
        ([100, 60, 130], BatchLimits(8, 30_000), [0, 2]),  # 60 goes with 100, but no longer with 130
        ([100, 50, 200], BatchLimits(8, 30_000), [0, 1]),
    ],
)
def test_the_first_unit_takes_the_nearest_lengths(frames: list[int], limits: BatchLimits, expected: list[int]) -> None:
    """Others join nearest length first, each if the batch with it still keeps limits and padding."""
    assert choose_batch(frames, limits) == expected


FRAMES = st.lists(st.integers(1, 3000), max_size=30)
LIMITS = st.builds(BatchLimits, max_units=st.integers(1, 8), max_frames=st.integers(1, 8000))


@given(frames=FRAMES, limits=LIMITS)
def test_a_chosen_batch_keeps_every_rule(frames: list[int], limits: BatchLimits) -> None:
    """The first is in it, in order, without repetition, within the limits, with under half of it padding."""
    chosen = choose_batch(frames, limits)
    assert chosen[:1] == ([0] if frames else [])
    assert chosen == sorted(set(chosen))
    lengths = [frames[index] for index in chosen]
    if len(lengths) > 1:
        assert len(lengths) <= limits.max_units
        assert len(lengths) * max(lengths) <= limits.max_frames
        assert max(lengths) <= 2 * min(lengths)
        assert 2 * sum(lengths) >= len(lengths) * max(lengths)


@given(frames=FRAMES, limits=LIMITS)
def test_nothing_that_fits_is_left_behind(frames: list[int], limits: BatchLimits) -> None:
    """A unit of the first one's length waits only for want of room."""
    same = [index for index, length in enumerate(frames) if length == frames[0]]
    room = min(limits.max_units, limits.max_frames // frames[0]) if frames else 0
    assert set(same[:room]) <= set(choose_batch(frames, limits))
