"""English text -> phonemes, by hibari-tts's rules, with an error wherever those would leave something out in silence.

Emoji and signs that have no reading in English are not spoken; letters and digits always are, or the text is refused.
"""

import unicodedata
from collections.abc import Iterator
from typing import Any

from hibari.g2p import G2P, PUNCT_TAGS
from hibari.g2p.normalize import normalize
from hibari.g2p.oov import OOV

from serve_app.errors import InvalidText

__all__ = ["EnglishReader", "quoted"]

READ_AS_WORDS = frozenset("½¼¾²³µ")
"""Letters and numerals that hibari's normalisation turns into words."""
LATIN_NAMES = ("LATIN ", "MODIFIER LETTER ", "SUBSCRIPT ")
"""How Unicode names begin of what the network for unknown words reads; its few Greek, Cyrillic, Armenian and Georgian
letters come out as letter names, and it leaves out the rest of those alphabets."""
NUMBER_TAG = "CD"  # of the Penn Treebank
REMEDY = "preview speaks English only: write it in English, or select a model that speaks the language"


class EnglishReader:
    """Callable on one sentence; gives phonemes in hibari's alphabet, "" where there is nothing to speak."""

    def __init__(self) -> None:
        network = OOV()
        self._letters = frozenset(network.cin)
        self._g2p = G2P(oov=_UnknownWords(network))

    def __call__(self, sentence: str) -> str:
        """Raises InvalidText for letters or digits that cannot be read, naming them."""
        text = "".join(map(self._folded, sentence))
        unreadable = "".join(dict.fromkeys(character for character in text if not self._readable(character)))
        if unreadable:
            raise InvalidText(
                f"text {quoted(sentence)} has letters or numerals that preview cannot read ({unreadable}): {REMEDY}"
            )
        return "".join(self._phonemes(text, sentence)).strip()

    def _phonemes(self, text: str, sentence: str) -> Iterator[str]:
        for token in self._tokens(text, sentence):
            phonemes = token.phonemes or ""
            if any(map(str.isalnum, token.text)) and not any(map(str.isalpha, phonemes)):
                raise InvalidText(f"text {quoted(sentence)} has {token.text!r}, which preview cannot read: {REMEDY}")
            yield phonemes + (" " if token.whitespace else "")

    def _tokens(self, text: str, sentence: str) -> list[Any]:
        # Without the space, [a](b) is hibari's markup for "say b in place of a".
        unmarked = normalize(text).replace("](", "] (")
        try:
            tokens: list[Any] = self._g2p.tokenize(unmarked)
            for token in tokens:
                if token.tag in PUNCT_TAGS and _would_be_lost(token.text):
                    token.tag = NUMBER_TAG  # the tagger's mistake: what it calls punctuation would be left out
            tokens = self._g2p.phonemize_tokens(tokens)
        except (IndexError, ValueError) as error:  # a number past the decillions, for one
            raise InvalidText(
                f"text {quoted(sentence)} has a number or sign that preview cannot read ({error}): write it in words"
            ) from error
        return tokens

    def _readable(self, character: str) -> bool:
        if character.isascii() or not character.isalnum() or character in READ_AS_WORDS:
            return True
        return character in self._letters and unicodedata.name(character, "").startswith(LATIN_NAMES)

    def _folded(self, character: str) -> str:
        """The digit or the plain letters that an unreadable `character` stands for; itself where there are none.

        Other scripts' digits, full-width and mathematical letters, ligatures, and letters whose accent English
        readers pass over. Not superscripts: 10⁴ is not 104.
        """
        if self._readable(character):
            return character
        if character.isdecimal():
            return str(unicodedata.decimal(character))
        if unicodedata.decomposition(character).startswith("<super>"):
            return character
        plain = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
        return plain if plain.isascii() and plain.isalnum() else character


class _UnknownWords:
    """The network for words that no dictionary has, given a long one in pieces: it would cut it short."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, word: str) -> str:
        count = -(-len(word) // self._network.maxlen)
        size = -(-len(word) // count)
        pieces = (word[start : start + size] for start in range(0, len(word), size))
        return "".join(self._network(piece) or "" for piece in pieces)


def _would_be_lost(token: str) -> bool:
    """Whether something in `token` is to be spoken, though the tag says a sign. Of "$" and "US$" the tag is right."""
    if "$" in token:
        return any(character.isalpha() and not character.isascii() for character in token)
    return any(map(str.isalnum, token))


def quoted(text: str) -> str:
    """The beginning of `text`, as error messages show it."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
