"""English words as phones of the CMU pronouncing dictionary, from the phonemes of the preview engine's reader.

The alphabet of the reader is hibari's (after misaki's): IPA with capitals for diphthongs. Stress is left out, because
pocketsphinx's acoustic model has none.
"""

from serve_app.engine.english import EnglishReader

__all__ = ["ALL_PHONES", "Pronouncer"]

PHONES = {
    "A": "EY", "I": "AY", "O": "OW", "W": "AW", "Y": "OY", "T": "D",
    "i": "IY", "ɪ": "IH", "e": "EH", "ɛ": "EH", "æ": "AE", "ɑ": "AA", "a": "AA", "ɔ": "AO", "o": "OW", "ʊ": "UH",
    "u": "UW", "ʌ": "AH", "ə": "AH", "ᵊ": "AH", "ɐ": "AH", "ɜ": "ER", "ɚ": "ER", "ᵻ": "IH",
    "b": "B", "d": "D", "f": "F", "ɡ": "G", "g": "G", "h": "HH", "j": "Y", "k": "K", "l": "L", "m": "M", "n": "N",
    "ŋ": "NG", "p": "P", "ɹ": "R", "r": "R", "s": "S", "ʃ": "SH", "t": "T", "ɾ": "D", "ʧ": "CH", "ʤ": "JH", "θ": "TH",
    "ð": "DH", "v": "V", "w": "W", "z": "Z", "ʒ": "ZH", "x": "K",
}  # fmt: skip

ALL_PHONES = sorted({*PHONES.values()})


class Pronouncer:
    """Callable on a word or number as written; gives its phones, [] where it has none."""

    def __init__(self) -> None:
        self._reader = EnglishReader()

    def __call__(self, word: str) -> list[str]:
        """Raises InvalidText for letters that an English reader cannot read."""
        phones: list[str] = []
        for phoneme in self._reader(word):
            if phoneme == "ɹ" and phones[-1:] == ["ER"]:
                continue  # ɜɹ is one phone
            if (phone := PHONES.get(phoneme)) is not None:
                phones.append(phone)
        return phones
