"""Real services on real ports. Each module starts its own, one after the other: the machine has two cores."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.deadline import DEADLINE_S


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """Patient enough for a minute of audio."""
    with httpx.Client(timeout=DEADLINE_S) as client:
        yield client
