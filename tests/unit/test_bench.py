"""The yardstick of bench/engine.py measures what it says."""

import pytest

from bench.engine import BYTES_PER_S, FULL, ON_A_CPU, REFERENCE_FRAMES, SECONDS, flops, text_of
from serve_app.engine.architecture import sizes


@pytest.mark.parametrize("seconds", SECONDS)
def test_texts_are_as_long_as_they_say(seconds: int) -> None:
    """At the pace of the reference, to a tenth."""
    assert len(text_of(seconds)) / BYTES_PER_S == pytest.approx(seconds, rel=0.1)


def test_the_work_is_that_of_the_formula() -> None:
    """About 379 M + 90.1 k * frames a token, twice for guidance, once a step: v1_base by its paper's sizes."""
    text = text_of(8)
    frames = REFERENCE_FRAMES + len(text) / BYTES_PER_S * 93.75
    expected = 16 * 2 * frames * (379e6 + 90.1e3 * frames)
    assert flops(sizes("v1_base"), 16, [text]) == pytest.approx(expected, rel=0.01)
    assert flops(sizes("v1_base"), 16, [text, text]) == pytest.approx(2 * expected, rel=0.01)


def test_what_a_cpu_measures_is_part_of_the_whole() -> None:
    """Every point of the short grid is one of the full one, which has all sizes, steps and streams."""
    assert set(ON_A_CPU) <= set(FULL)
    assert len(FULL) == 3 * 3 * 6
