"""A recording and its text -> a reference that F5 clones well, or an error that says what to send instead.

file -> (process 1) decoded, cleaned, speech found, transcribed
     -> (process 2) text aligned, where it is English -> is it what was heard? -> cut to 12 s, text and audio together
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Any, Literal, Protocol

import numpy as np

from serve_app import isolated, logs
from serve_app.domain import SAMPLE_RATE_HZ, Pcm
from serve_app.errors import InvalidAudio, InvalidTranscript, Unavailable
from serve_app.isolated import LimitExceeded, Limits
from serve_app.preparation.agreement import agree
from serve_app.preparation.hearing import HEARD_S
from serve_app.preparation.quality import Grade, Quality, graded
from serve_app.preparation.trimming import Cut, Span, choose_cut, unsaid_speech

__all__ = ["MAX_REFERENCE_S", "Fields", "Prepared", "Preparer", "RecordingPreparer", "Report"]

MAX_REFERENCE_S = 12.0
MAX_SOURCE_S = 600.0
HEARING = Limits(memory_bytes=4 * 1024**3, seconds=120)
ALIGNING = Limits(memory_bytes=2 * 1024**3, seconds=60)
AT_ONCE = 2
"""Recordings that one process prepares at the same time: each takes a core and some hundred megabytes."""

ENGLISH_SHARE = 0.6
"""Of a text's words in the English dictionary, from which on a text of unknown language is taken for English."""
CONFIDENT = -0.7
"""Mean log probability of what Whisper heard: real English is at -0.2 to -0.5, another language below -1."""
MAX_LETTERS_PER_S = 35.0
"""Of speech; the fastest speakers reach 25."""
WIDE = 3
"""Letters that a character of a wide script (Chinese, Japanese, Korean) counts for."""
FADE_S = 0.01
NOT_ALIGNED: Mapping[str, Any] = {"known": 0.0, "spans": None}


@dataclass(frozen=True, slots=True)
class Fields:
    """What the caller calls the audio and the text, for messages."""

    audio: str = "audio"
    text: str = "text"


@dataclass(frozen=True, slots=True)
class Report:
    """What was done to a recording. `kept` is a span of the source, in seconds; `checked` says whether the text was
    compared with the audio."""

    source_s: float
    kept: tuple[float, float]
    transcript: Literal["given", "transcribed"]
    checked: bool
    grade: Grade
    quality: Quality
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A reference: `audio` (samples,) of at most 12 s at 24 kHz, and exactly what is said in it."""

    audio: Pcm = field(repr=False)
    text: str
    language: str | None
    report: Report


NAMES = Fields()
_ROOM = BoundedSemaphore(AT_ONCE)


class Preparer(Protocol):
    """Makes references of recordings; safe for threads."""

    def prepare(self, recording: bytes, text: str, *, language: str | None = None, names: Fields = NAMES) -> Prepared:
        """Of an audio file and what is said in it ("" to have it transcribed). Blocks.

        Raises InvalidAudio or InvalidTranscript, with what to send instead; Unavailable where a helper failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class RecordingPreparer:
    """`transcriber`: a model of faster-whisper by name or path ("tiny.en" is packaged), None to transcribe nothing."""

    transcriber: str | None

    def prepare(self, recording: bytes, text: str, *, language: str | None = None, names: Fields = NAMES) -> Prepared:
        """See Preparer."""
        text = " ".join(text.split())
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
            raise InvalidTranscript(
                f"{names.text} {text[:40]!r} has controls, or half a character: save it as UTF-8, and send it again"
            )
        if not text and self.transcriber is None:
            raise InvalidTranscript(
                f"{names.text} is missing and no transcriber is configured: send what is said in {names.audio}"
            )
        with _ROOM:
            return _Preparation(recording, text, language, names, self.transcriber).prepared()


class _Preparation:
    """One recording on its way. `names` is how the caller calls audio and text."""

    def __init__(
        self, recording: bytes, text: str, language: str | None, names: Fields, transcriber: str | None
    ) -> None:
        self._recording = recording
        self._text = text
        self._language = language
        self._names = names
        self._transcriber = transcriber

    def prepared(self) -> Prepared:
        heard, audio = self._hear()
        text, language = (self._text, self._language) if self._text else self._transcript(heard)
        self._check_pace(text, heard)
        maybe = language.startswith("en") if language else _latin(text)
        aligned = self._align(text, audio) if maybe else NOT_ALIGNED
        english = maybe and (language is not None or aligned["known"] >= ENGLISH_SHARE)
        spans = aligned["spans"] if english else None
        if (seconds := len(audio) / SAMPLE_RATE_HZ) > MAX_REFERENCE_S:
            cut = self._cut(text.split(), spans, seconds)
        else:
            cut = Cut(len(text.split()), seconds)
        kept_text = " ".join(text.split()[: cut.tokens])
        whole = cut.tokens == len(text.split()) and heard["end_s"] - heard["start_s"] <= HEARD_S
        checked = self._checked(kept_text, heard, english, whole)
        self._check_all_is_said(heard, spans or [], cut.end_s)
        quality = Quality(**heard["quality"])
        grade, warnings = graded(quality, cut.end_s)
        if not checked:
            warnings.append(f"{self._names.text} was not compared with what is said in {self._names.audio}")
        report = Report(
            source_s=heard["source_s"],
            kept=(heard["start_s"], heard["start_s"] + cut.end_s),
            transcript="given" if self._text else "transcribed",
            checked=checked,
            grade=grade,
            quality=quality,
            warnings=tuple(warnings),
        )
        kept = audio[: round(cut.end_s * SAMPLE_RATE_HZ)]
        return Prepared(_faded(kept), kept_text, language or ("en" if english else None), report)

    def _hear(self) -> tuple[dict[str, Any], Pcm]:
        fields = {
            "field": self._names.audio,
            "max_s": MAX_SOURCE_S,
            "transcriber": self._transcriber,
            "transcribe": not self._text,
        }
        try:
            heard, data = isolated.run("serve_app.preparation.hearing:hear", fields, self._recording, HEARING)
        except LimitExceeded as error:
            raise InvalidAudio(
                f"{self._names.audio} could not be decoded within the limits ({error}): send a shorter recording, "
                "best 5 to 12 s, exported again as wav or flac"
            ) from error
        except RuntimeError as error:
            raise _failed(error) from error
        return heard, np.frombuffer(data, np.float32)

    def _align(self, text: str, audio: Pcm) -> Mapping[str, Any]:
        return self._aligner("align", {"text": text}, audio.tobytes()) or NOT_ALIGNED

    def _aligner(self, function: str, fields: Mapping[str, Any], data: bytes) -> dict[str, Any]:
        """What `function` of the aligner gives; {} where it crashes, which it may."""
        try:
            found, _ = isolated.run(f"serve_app.preparation.aligning:{function}", fields, data, ALIGNING)
            return found
        except LimitExceeded as error:
            logs.failure("alignment_failed", error)
            return {}
        except RuntimeError as error:
            raise _failed(error) from error

    def _transcript(self, heard: Mapping[str, Any]) -> tuple[str, str]:
        """What was heard, and its language. Raises InvalidTranscript where nothing was, or not surely."""
        if not heard["text"] or heard["log_probability"] < CONFIDENT:
            raise InvalidTranscript(
                f"{self._names.text} is missing, and the transcriber {self._transcriber!r} does not understand what is "
                f"said in {self._names.audio}: send what is said, or configure a transcriber that knows the language"
            )
        if self._language and self._language.split("-")[0] != heard["language"]:
            raise InvalidTranscript(
                f"{self._names.text} is missing, and the transcriber {self._transcriber!r} hears "
                f"{heard['language']!r}, not {self._language!r}: send what is said in {self._names.audio}"
            )
        return heard["text"], heard["language"]

    def _check_pace(self, text: str, heard: Mapping[str, Any]) -> None:
        spoken_s = sum(end_s - start_s for start_s, end_s in heard["speech"])
        letters = sum((WIDE if unicodedata.east_asian_width(c) in "WF" else 1) for c in text if c.isalnum())
        if not letters:
            raise InvalidTranscript(
                f"{self._names.text} {text[:40]!r} has no letter: send what is said in {self._names.audio}"
            )
        if letters > MAX_LETTERS_PER_S * spoken_s:
            raise InvalidTranscript(
                f"{self._names.text} has {len(text)} characters for {spoken_s:.1f} s of speech in {self._names.audio}, "
                "more than anyone says: send only what is said in it"
            )

    def _cut(self, tokens: list[str], spans: Sequence[Span | None] | None, seconds: float) -> Cut:
        """Raises InvalidAudio where a recording of more than 12 s cannot be cut with its text."""
        if spans is None:
            raise InvalidAudio(
                f"{self._names.audio} has {seconds:.1f} s from first word to last, and {self._names.text} could "
                f"not be followed in it (English can, where every word is there): send at most {MAX_REFERENCE_S:g} s, "
                f"and in {self._names.text} exactly what is said there"
            )
        if (cut := choose_cut(tokens, spans, MAX_REFERENCE_S)) is None:
            raise InvalidAudio(
                f"{self._names.audio} is {seconds:.1f} s long and no silence between two words lies within its first "
                f"{MAX_REFERENCE_S:g} s: send at most {MAX_REFERENCE_S:g} s that end after a word"
            )
        return cut

    def _check_all_is_said(self, heard: Mapping[str, Any], spans: Sequence[Span | None], until_s: float) -> None:
        if spans and (unsaid := unsaid_speech(heard["speech"], spans, until_s)):
            start_s, end_s = max(unsaid, key=lambda span: span[1] - span[0])
            raise InvalidTranscript(
                f"{self._names.text} lacks what is said in {self._names.audio} from "
                f"{heard['start_s'] + start_s:.1f} to {heard['start_s'] + end_s:.1f} s: send every word, or leave the "
                "text out to have it transcribed"
            )

    def _checked(self, text: str, heard: Mapping[str, Any], english: bool, whole: bool) -> bool:
        """Whether `text` could be compared with what was heard, by its letters, and if these differ by its sounds.

        `whole`: nothing was cut, so that all that was heard must be in the text. Raises InvalidTranscript where it is
        something else, or lacks something, or has something more.
        """
        if self._transcriber is None:
            return False
        sure = heard["log_probability"] >= CONFIDENT
        if not english and not (sure and heard["language"] == "en"):
            return False
        if agree(text, heard["text"], whole=whole):
            return True
        sounds = self._aligner("sound", {"texts": [text, heard["text"]]}, b"").get("sounds", ["", ""])
        if agree(*sounds, whole=whole):
            return True
        raise InvalidTranscript(
            f"{self._names.text} {text[:60]!r} is not what is said in {self._names.audio} ({heard['text'][:60]!r} "
            "was heard): correct it, leave it out to have it transcribed, or name the language if it is not English"
        )


def _failed(error: RuntimeError) -> Unavailable:
    logs.failure("preparation_failed", error)
    return Unavailable("the recording could not be prepared for a reason that is not its own: see the log; try again")


def _latin(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    return bool(letters) and all(unicodedata.name(c, "").startswith("LATIN") for c in letters)


def _faded(audio: Pcm) -> Pcm:
    """Without a click where it was cut."""
    faded: Pcm = audio.copy()
    ramp = np.linspace(0, 1, round(FADE_S * SAMPLE_RATE_HZ), dtype=np.float32)
    faded[: len(ramp)] *= ramp
    faded[-len(ramp) :] *= ramp[::-1]
    return faded
