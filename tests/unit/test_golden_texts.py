"""The golden file of hard texts. After a change that is meant: `python -m tests.golden`, and read the difference."""

from typing import Any

import pytest

from serve_app.spoken import spoken_parts, spoken_text
from serve_app.text import normalise
from tests.support.golden import golden_texts, spoken_of, units_of

TEXTS = golden_texts()


@pytest.mark.parametrize("golden", TEXTS, ids=lambda golden: golden["name"])
def test_what_is_spoken(golden: dict[str, Any]) -> None:
    """Exactly what the file says: audio follows from it."""
    assert spoken_of(golden) == golden["spoken"]


@pytest.mark.parametrize("golden", TEXTS, ids=lambda golden: golden["name"])
def test_what_is_spoken_is_canonical(golden: dict[str, Any]) -> None:
    """In the form that the splitter takes, and in parts the same."""
    languages = golden.get("languages", ["en", "zh"])
    assert normalise(golden["spoken"]) == golden["spoken"]
    asked = {"language": golden.get("language"), "languages": languages, "normalize": golden.get("normalize", True)}
    parts = list(spoken_parts(golden["text"], **asked))
    assert normalise("".join(parts)) == spoken_text(golden["text"], **asked)


@pytest.mark.parametrize("golden", TEXTS, ids=lambda golden: golden["name"])
def test_its_units(golden: dict[str, Any]) -> None:
    """Exactly what the file says, too: by the preview model's limits."""
    assert units_of(golden) == golden["units"]


def test_there_are_sixty_hard_texts() -> None:
    """Under names of their own."""
    assert len({golden["name"] for golden in TEXTS}) == len(TEXTS) >= 60
