"""How well the preview model is understood at each speed: word error rate by Whisper tiny.en, ten sentences."""

from serve_app.audio import encode
from serve_app.domain import BUILTIN, Unit, VoiceRef
from serve_app.engine.preview import PreviewEngine
from serve_app.engine.protocol import EngineInput, speak
from tests.support.transcribe import error_rate_over_sentences

SPEEDS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)


def main() -> str:
    """The table in Markdown."""
    engine = PreviewEngine()

    def error_rate(speed: float) -> float:
        def spoken(text: str) -> bytes:
            unit = Unit(0, text, VoiceRef("heart", BUILTIN), speed, 1, 0, "bench")
            return encode(speak(engine, EngineInput(unit, None))[0], "wav")

        return error_rate_over_sentences(spoken)

    rates = [error_rate(speed) for speed in SPEEDS]
    rows = [f"| {speed:g} | {100 * rate:.1f} |" for speed, rate in zip(SPEEDS, rates, strict=True)]
    return "\n".join(["| speed | WER % |", "|---|---|", *rows])
