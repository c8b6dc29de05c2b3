"""A preparer that takes what it is given: for tests of what surrounds it, with recordings that are no speech."""

from serve_app.audio import decode
from serve_app.domain import SAMPLE_RATE_HZ
from serve_app.errors import InvalidAudio
from serve_app.preparation import Fields, Prepared, Report
from serve_app.preparation.quality import measure


class PlainPreparer:
    """Decodes, measures, and refuses under 0.5 s; keeps the text, "" too. Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def prepare(
        self,
        recording: bytes,
        text: str,
        *,
        language: str | None = None,
        names: Fields = Fields(),  # noqa: B008
    ) -> Prepared:
        self.calls += 1
        audio, quality = measure(decode(recording, field=names.audio), 0.0)
        if (seconds := len(audio) / SAMPLE_RATE_HZ) < 0.5:
            raise InvalidAudio(f"{names.audio} is {seconds:.2f} s long: send at least 0.5 s, best 5 to 12 s")
        report = Report(seconds, (0.0, seconds), "given" if text else "transcribed", False, "good", quality)
        return Prepared(audio, " ".join(text.split()), language, report)
