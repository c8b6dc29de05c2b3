"""Which language the numbers of a sentence are read in: what the request says, else what its script shows.

Knows only scripts: nothing here guesses between languages that share one, but for Chinese and Japanese, by kana.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from serve_app.normalisation.grammars import GrammarLanguage

__all__ = ["HAN", "KANA", "Languages", "TextLanguages"]

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff々〇"
KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\uff66-\uff9d"
_HAN = re.compile(f"[{HAN}]")
_KANA = re.compile(f"[{KANA}]")
# Letters of Latin script, in runs: words, but not units ("5km"); an address is one.
_LATIN = "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
_LATIN_WORD = re.compile(f"(?<![0-9{_LATIN}])[{_LATIN}]+(?:[./@'’-][{_LATIN}0-9]+)*")
_OTHER_LETTER = re.compile(f"(?![A-Za-z\u00aa\u00b5\u00ba\u00c0-\u024f\u1e00-\u1eff{HAN}{KANA}])[^\\W\\d_]")
JAPANESE_SHARE = 0.1
"""Of kana among kana and Han, from which on a text is Japanese: there it is a half, in Chinese it is a quotation."""

_GRAMMARS: dict[str, GrammarLanguage] = {
    "en": "en", "eng": "en", "zh": "zh", "cmn": "zh", "zho": "zh", "yue": "zh", "ja": "ja", "jpn": "ja",
}  # fmt: skip
_NOT_LATIN = frozenset(
    re.findall(
        "[a-z]+",
        "am ar as be bg bn cmn dv dz el fa gu he hi hy ja jpn ka kk km kn ko ky lo mk ml mn mr my ne or pa ps ru sa sd "
        "si sr ta te tg th ti ug uk ur yi yue zh zho",
    )
)


@dataclass(frozen=True, slots=True)
class Languages:
    """What decides a sentence's language. `requested`: the request's BCP 47 tag. `spoken`: the model's tags.

    Kana are Japanese. Han are what the request says, or Japanese in a text with enough kana, or Chinese. Latin script
    is English where the request says English, or the model names English and no other language of that script: "3,5"
    in the German of a model that speaks both would be falsified. For a request in another language nothing is written
    out.
    """

    requested: str | None = None
    spoken: Sequence[str] = field(default=())

    def of_text(self, text: str) -> "TextLanguages":
        """What its sentences are read in; reads `text` once."""
        requested = None if self.requested is None else _GRAMMARS.get(_primary(self.requested))
        if self.requested is not None and requested is None:
            return TextLanguages()
        latin = self._latin()
        if requested == "en":
            han: GrammarLanguage = "ja" if _is_japanese(text) else "zh"
            return TextLanguages(latin="en", han=han, kana="ja", letterless="en")
        if requested is not None:
            return TextLanguages(latin=latin or requested, han=requested, kana="ja", letterless=requested)
        languages = TextLanguages(latin=latin, han="ja" if _is_japanese(text) else "zh", kana="ja", letterless=latin)
        return replace(languages, letterless=languages.of_sentence(text))

    def _latin(self) -> GrammarLanguage | None:
        latin = {_primary(tag) for tag in self.spoken} - _NOT_LATIN
        return "en" if latin and latin <= {"en", "eng"} else None


@dataclass(frozen=True, slots=True)
class TextLanguages:
    """The languages of one text's sentences, by script; None where they are not written out."""

    latin: GrammarLanguage | None = None
    han: GrammarLanguage | None = None
    kana: GrammarLanguage | None = None
    letterless: GrammarLanguage | None = None

    def of_sentence(self, sentence: str) -> GrammarLanguage | None:
        """By what there is most of: words in Latin script, characters of Han and kana, or letters of other scripts."""
        words = len(_LATIN_WORD.findall(sentence))
        if sentence.isascii():
            return self.latin if words else self.letterless
        characters = len(_HAN.findall(sentence)) + len(_KANA.findall(sentence))
        others = sum(map(str.isalpha, _OTHER_LETTER.findall(sentence)))  # ½ is none
        if others > words + characters:
            return None
        if characters >= max(words, 1):
            return self.kana if _is_japanese(sentence) else self.han
        return self.latin if words else self.letterless


def _is_japanese(text: str) -> bool:
    kana = len(_KANA.findall(text))
    return kana > 0 and kana >= JAPANESE_SHARE * (kana + len(_HAN.findall(text)))


def _primary(tag: str) -> str:
    return re.split("[-_]", tag.strip().lower(), maxsplit=1)[0]
