"""Reference audio made ready once: decoded, cleaned, cut with its text, and graded. Knows no store and no HTTP."""

from serve_app.preparation.preparer import (
    MAX_REFERENCE_S,
    Fields,
    Prepared,
    Preparer,
    RecordingPreparer,
    Report,
)

__all__ = ["MAX_REFERENCE_S", "Fields", "Prepared", "Preparer", "RecordingPreparer", "Report"]
