"""The golden file: hard texts, and what is spoken of each."""

import json
from pathlib import Path
from typing import Any

from serve_app.spoken import spoken_text

GOLDEN = Path(__file__).parents[1] / "golden" / "texts.json"


def golden_texts() -> list[dict[str, Any]]:
    """Each has `name`, `text` and `spoken`; what a request says beside its text only where it is not the default."""
    texts: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return texts


def spoken_of(golden: dict[str, Any]) -> str:
    """By the code as it is now; for the published F5 weights where the text names no other languages."""
    return spoken_text(
        golden["text"],
        language=golden.get("language"),
        languages=golden.get("languages", ["en", "zh"]),
        normalize=golden.get("normalize", True),
        lexicon=tuple(golden.get("lexicon", {}).items()),
    )
