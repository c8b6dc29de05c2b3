"""A text written out sentence by sentence, each in its own language."""

import re
from collections.abc import Iterator, Sequence

from serve_app.normalisation import east_asian, english
from serve_app.normalisation.grammars import GrammarLanguage
from serve_app.normalisation.languages import Languages, TextLanguages

__all__ = ["normalisers", "written_out", "written_out_parts"]

# What a language may change behind. An abbreviation's stop is one, too: its parts are of one language, and joined.
_SENTENCE_END = re.compile("[.!?…]+[\"'”’»)\\]]*[ \n]+|[。｡！？]+[”’」』）]*[ \n]*|\n+")


def written_out(text: str, language: str | None = None, languages: Sequence[str] = ()) -> str:
    """`text`, which `text.normalise` returned, with its numbers as words. No word is lost, none is reordered.

    `language`: the request's BCP 47 tag. `languages`: those that the model speaks. See `Languages`.
    """
    return "".join(written_out_parts(text, Languages(language, languages).of_text(text)))


def written_out_parts(text: str, languages: TextLanguages) -> Iterator[str]:
    """The same in parts, each a line with its line end, or the part of a line that is in one language."""
    for language, run in _runs(text, languages):
        yield _WRITERS[language](run) if language else run


def normalisers(text: str, languages: TextLanguages) -> tuple[GrammarLanguage, ...]:
    """Which of "en", "ja" and "zh" `written_out` uses for `text`, in that order; () where it leaves it as it is."""
    found = {language for language, _ in _runs(text, languages) if language}
    return tuple(sorted(found))


_WRITERS = {"en": english.written_out, "zh": east_asian.written_out_chinese, "ja": east_asian.written_out_japanese}


def _runs(text: str, languages: TextLanguages) -> Iterator[tuple[GrammarLanguage | None, str]]:
    """Neighbouring sentences of one line in one language. Joined, they are `text`."""
    start, before, run_language = 0, 0, None
    for end, ends_line in _ends(text):
        language = languages.of_sentence(text[before:end])
        if before > start and language != run_language:
            yield run_language, text[start:before]
            start = before
        run_language, before = language, end
        if ends_line:
            yield run_language, text[start:end]
            start = end
    if start < len(text):
        yield run_language, text[start:]


def _ends(text: str) -> Iterator[tuple[int, bool]]:
    for mark in _SENTENCE_END.finditer(text):
        yield mark.end(), "\n" in mark[0]
    if not text or not _SENTENCE_END.search(text, max(0, len(text) - 1)):
        yield len(text), False
