"""A text as it is spoken: what a client wrote, without markup, in the lexicon's spelling, with its numbers as words.

    text.normalise -> (normalize: markup -> addresses -> emoji) -> lexicon -> (normalize: numbers, line by line)

The lexicon comes before numbers are words, so that an entry matches what the client wrote ("GPT-4"), and behind markup,
so that it does not change where a link leads. Directives in brackets ([pause:0.5], [voice:anna]) are left as they are
by every step. Pure.
"""

from collections.abc import Iterator, Sequence

from serve_app import lexicon as lexicons
from serve_app.directives import parted
from serve_app.emoji import without_emoji
from serve_app.lexicon import Lexicon
from serve_app.markup import without_markup
from serve_app.normalisation import Languages, TextLanguages, normalisers, written_out_parts
from serve_app.text import normalise
from serve_app.web_addresses import spoken_addresses, without_addresses

__all__ = ["entries_for", "normalisers_of", "spoken_parts", "spoken_text"]


def spoken_text(
    text: str,
    *,
    language: str | None = None,
    languages: Sequence[str] = (),
    normalize: bool = True,
    lexicon: Lexicon = (),
) -> str:
    """What of `text` is spoken, in the form of `text.normalise`; "" where markup and emoji were all.

    `language`: the request's BCP 47 tag. `languages`: those of the model. `normalize`: False leaves markup, emoji,
    addresses and numbers as they are. Raises InvalidText as `text.normalise` does.
    """
    parts = spoken_parts(text, language=language, languages=languages, normalize=normalize, lexicon=lexicon)
    return normalise("".join(parts))


def spoken_parts(
    text: str,
    *,
    language: str | None = None,
    languages: Sequence[str] = (),
    normalize: bool = True,
    lexicon: Lexicon = (),
) -> Iterator[str]:
    """The same in parts of a line at most, with its line end, each made when it is asked for: what costs time, the
    numbers, need not be done for a whole text before its first words are spoken. Joined and normalised, they are
    `spoken_text`."""
    visible = _visible(text, language, languages) if normalize else normalise(text)
    decided = _languages_of(visible, language, languages) if normalize else None
    for line in _spelled(visible, lexicon).splitlines(keepends=True):
        for index, part in enumerate(parted(line)):
            if index % 2 or decided is None:
                yield part
            else:
                yield from written_out_parts(part, decided)


def normalisers_of(
    text: str, *, language: str | None = None, languages: Sequence[str] = (), normalize: bool = True
) -> tuple[str, ...]:
    """Which of "en", "ja" and "zh" this text's numbers are read in; () where none are. For the answer's header."""
    if not normalize:
        return ()
    visible = _undirected(_visible(text, language, languages))
    return normalisers(visible, _languages_of(visible, language, languages))


def entries_for(
    text: str,
    lexicon: Lexicon,
    *,
    language: str | None = None,
    languages: Sequence[str] = (),
    normalize: bool = True,
) -> Lexicon:
    """Those of `lexicon` that may match in this text: a request need not carry the others."""
    if not lexicon:
        return ()
    return lexicons.relevant(_visible(text, language, languages) if normalize else normalise(text), lexicon)


def _visible(text: str, language: str | None, languages: Sequence[str]) -> str:
    """Without markup and emoji. Addresses are said in English where most of the text is."""
    read = without_markup(normalise(text))
    words = without_addresses(read)
    in_english = Languages(language, languages).of_text(words).of_sentence(words) == "en"
    return normalise(without_emoji(spoken_addresses(read, in_english=in_english)))


def _languages_of(visible: str, language: str | None, languages: Sequence[str]) -> TextLanguages:
    return Languages(language, languages).of_text(_undirected(visible))


def _undirected(text: str) -> str:
    return " ".join(parted(text)[::2])


def _spelled(text: str, lexicon: Lexicon) -> str:
    if not lexicon:
        return text
    parts = parted(text)
    return "".join(part if index % 2 else lexicons.applied(part, lexicon) for index, part in enumerate(parts))
