"""What is known of a version of a voice, as it is kept beside it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from serve_app.errors import ObjectCorrupt
from serve_app.preparation import Prepared

__all__ = ["VoiceRecord"]

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class VoiceRecord:
    """`source`: where the recording came from ("upload", a URL, "voices/anna.wav"). `consent`: a note that the speaker
    agreed. `report`: what preparation did, see `serve_app.preparation.Report`. `created`: ISO 8601, UTC.
    `superseded_text`: the etag of the text under `voices/` that this version replaces, which is written after the
    audio.
    """

    version: str
    text: str
    language: str | None
    source: str
    consent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    superseded_text: str | None = None

    @classmethod
    def of(
        cls,
        version: str,
        prepared: Prepared,
        source: str,
        consent: str = "",
        labels: Mapping[str, str] | None = None,
        superseded_text: str | None = None,
    ) -> "VoiceRecord":
        """Of what was just prepared."""
        report = json.loads(json.dumps(asdict(prepared.report)))
        report["quality"]["snr_db"] = prepared.report.quality.snr_db
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(
            version, prepared.text, prepared.language, source, consent, labels or {}, report, created, superseded_text
        )

    def to_json(self) -> bytes:
        """UTF-8, with the schema's version."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, key: str, body: bytes) -> "VoiceRecord":
        """Raises ObjectCorrupt, naming `key`, for what `to_json` did not write."""
        try:
            found = json.loads(body)
            if found.pop("schema") != SCHEMA:
                raise ValueError("it has another schema")
            return cls(**found)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ObjectCorrupt(f'"{key}" is not a record of a voice ({error}): upload the voice again') from error
