"""The golden file: hard texts, what is spoken of each, and in which units."""

import json
from pathlib import Path
from typing import Any

from serve_app.directives import named_voices
from serve_app.domain import SpeechRequest, VoiceRef
from serve_app.planning import PREVIEW_LIMITS, plan
from serve_app.spoken import spoken_text

GOLDEN = Path(__file__).parents[1] / "golden" / "texts.json"


def golden_texts() -> list[dict[str, Any]]:
    """Each has `name`, `text`, `spoken` and `units`; what a request says beside its text where it is no default."""
    texts: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return texts


def spoken_of(golden: dict[str, Any]) -> str:
    """By the code as it is now; for the published F5 weights where the text names no other languages."""
    return spoken_text(golden["text"], **_asked(golden))


def units_of(golden: dict[str, Any]) -> list[str]:
    """With the pause before one, if there is one, and the voice where it is another than the request's."""
    voices = {name: VoiceRef(name, "v1") for name in named_voices(golden["text"])}
    own = VoiceRef("own", "v1")
    request = SpeechRequest(golden["text"], "m", own, 1.0, 1, "r", voices=voices, **_asked(golden))
    return [
        (f"({unit.pause_s:g} s) " if unit.pause_s else "")
        + (f"{unit.voice.name}: " if unit.voice != own else "")
        + unit.text
        + (f" ({unit.tail_s:g} s)" if unit.tail_s else "")
        for unit in plan(request, PREVIEW_LIMITS)
    ]


def _asked(golden: dict[str, Any]) -> dict[str, Any]:
    return {
        "language": golden.get("language"),
        "languages": tuple(golden.get("languages", ["en", "zh"])),
        "normalize": golden.get("normalize", True),
        "lexicon": tuple(golden.get("lexicon", {}).items()),
    }
