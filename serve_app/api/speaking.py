"""What every answer with speech says of it in its headers, whole or as it comes."""

from serve_app.audio import Gain
from serve_app.domain import SpeechRequest

__all__ = ["SPEECH_HEADERS", "loudness_header", "speech_headers"]

SPEECH_HEADERS = (
    "X-Model", "X-Voice", "X-Draft", "X-Seed", "X-Audio-Seconds", "X-Cached", "X-Loudness", "X-Normalization",
    "X-Ignored-Fields",
)  # fmt: skip
"""All that an answer with speech can have."""


def speech_headers(accepted: SpeechRequest, *, draft: bool) -> dict[str, str]:
    """What spoke, by its own names: aliases are resolved; and in which languages numbers were written out."""
    return {
        "X-Model": accepted.model,
        "X-Voice": accepted.voice.name,
        "X-Draft": str(draft).lower(),
        "X-Seed": str(accepted.seed),
        "X-Normalization": ", ".join(accepted.normalisers) or "none",
    }


def loudness_header(gain: Gain, *, estimated: bool = False) -> dict[str, str]:
    """How loud the speech was made, in LUFS. `estimated`: only its beginning was measured."""
    if gain.lufs is None:
        return {"X-Loudness": "unmeasured"}
    return {"X-Loudness": f"{gain.lufs:.1f}{' estimated' if estimated else ''}"}
