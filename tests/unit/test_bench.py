"""The yardstick of bench/engine.py measures what it says."""

import pytest

from bench.engine import BYTES_PER_S, FULL, ON_A_CPU, SECONDS, flops, frames_of, text_of
from serve_app.engine.architecture import sizes


@pytest.mark.parametrize("seconds", SECONDS)
def test_texts_are_as_long_as_they_say(seconds: int) -> None:
    """At the pace of the reference, to a tenth."""
    assert len(text_of(seconds)) / BYTES_PER_S == pytest.approx(seconds, rel=0.1)


def test_the_work_is_that_of_the_formula() -> None:
    """About 379 M + 90.1 k * frames a token, twice for guidance, once a step: of v1_base."""
    expected = 16 * 2 * 1250 * (379e6 + 90.1e3 * 1250)
    assert flops(sizes("v1_base"), 16, [1250]) == pytest.approx(expected, rel=0.01)
    assert flops(sizes("v1_base"), 16, [1250, 1250]) == pytest.approx(2 * expected, rel=0.01)


def test_frames_are_those_of_the_planned_units() -> None:
    """A text is as long as it says beside its reference, once in each of its units."""
    assert frames_of(text_of(8)) == [pytest.approx(500 + 750, rel=0.05)]
    assert sum(frames_of(text_of(20))) == pytest.approx(2 * 500 + 1875, rel=0.05)


def test_what_a_cpu_measures_is_part_of_the_whole() -> None:
    """Every point of the short grid is one of the full one, which has all sizes, steps and streams."""
    assert set(ON_A_CPU) <= set(FULL)
    assert len(FULL) == 3 * 3 * 6
