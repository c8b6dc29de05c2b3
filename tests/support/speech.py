"""English speech to make references of: the preview engine's, and the recordings in f5-tts's wheel."""

from functools import cache
from importlib.resources import files

import numpy as np

from serve_app.domain import BUILTIN, Pcm, Unit, VoiceRef
from serve_app.engine.preview import PreviewEngine
from serve_app.engine.protocol import EngineInput, speak

ENGLISH = "Some call me nature, others call me mother nature."
CHINESE = "对，这就是我，万人敬仰的太乙真人。"


@cache
def _engine() -> PreviewEngine:
    return PreviewEngine()


@cache
def spoken(text: str) -> Pcm:
    """`text` in the preview voice, 24 kHz."""
    unit = Unit(0, text, VoiceRef("heart", BUILTIN), 1.0, 0, frames=0, request_id="r")
    return speak(_engine(), EngineInput(unit, None))[0]


def joined(*texts: str, gap_s: float = 0.25) -> Pcm:
    """Each text spoken, a pause after each."""
    return np.concatenate(
        [part for text in texts for part in (spoken(text), np.zeros(round(24_000 * gap_s), np.float32))]
    )


def recording(name: str) -> bytes:
    """A file of f5-tts's examples: `basic_ref_en.wav` says ENGLISH, `basic_ref_zh.wav` CHINESE."""
    return files("f5_tts").joinpath(f"infer/examples/basic/{name}").read_bytes()
