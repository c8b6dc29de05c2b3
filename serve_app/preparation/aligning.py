"""When each word of an English text is said, by pocketsphinx's forced alignment. Runs in a process of its own."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

from serve_app.errors import InvalidText
from serve_app.preparation.hearing import HEARING_HZ, at_16_khz
from serve_app.preparation.pronunciation import ALL_PHONES, Pronouncer

__all__ = ["align", "sound"]

WORD = re.compile("[a-z]+(?:'[a-z]+)*")
FRAMES_PER_S = 100
FILLERS = ("<", "[", "++")
"""How names of silence and noise begin."""
FIRST_CHARACTER = 0x4E00
"""Of a script without cases."""
BEAMS = {"beam": 1e-80, "wbeam": 1e-60, "pbeam": 1e-80}
"""Wider than pocketsphinx's own, which lose slow or accented speech."""


def align(fields: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Spans of the tokens of `fields["text"]` (split at white space) in `data`, float32 samples at 24 kHz.

    Gives `known`, the share of tokens that are words of the English dictionary, and `spans`: [start_s, end_s] for each
    token, null for one that has nothing to say; None where the text is not what is said.
    """
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=HEARING_HZ, lm=None, bestpath=False, loglevel="FATAL", **BEAMS)
    tokens = fields["text"].split()
    words, known = _words(decoder, tokens)
    said = [(index, word) for index, token_words in enumerate(words) for word in token_words]
    spoken = [index for index, token in enumerate(tokens) if any(map(str.isalnum, token))]
    found: dict[str, Any] = {"known": known / max(len(spoken), 1), "spans": None}
    if not said:
        return found, b""
    decoder.set_align_text(" ".join(word for _, word in said))
    decoder.start_utt()
    heard = at_16_khz(np.frombuffer(data, np.float32))
    decoder.process_raw((heard * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:
        return found, b""
    segments = [segment for segment in decoder.seg() if not segment.word.startswith(FILLERS)]
    if len(segments) != len(said):
        return found, b""
    spans: list[list[float] | None] = [None] * len(tokens)
    for (index, _), segment in zip(said, segments, strict=True):
        start_s, end_s = segment.start_frame / FRAMES_PER_S, (segment.end_frame + 1) / FRAMES_PER_S
        earlier = spans[index]
        spans[index] = [earlier[0] if earlier else start_s, end_s]
    return found | {"spans": spans}, b""


def _words(decoder: Any, tokens: list[str]) -> tuple[list[list[str]], int]:
    """Words of the decoder's dictionary for each token, those that it lacks added to it; how many it had."""
    pronounce, known, words = None, 0, []
    for index, token in enumerate(tokens):
        folded = "".join(c for c in unicodedata.normalize("NFKD", token.lower()) if not unicodedata.combining(c))
        plain = WORD.findall(folded.replace("’", "'"))
        if plain and not re.search(r"[^\W_a-z]", folded) and all(decoder.lookup_word(word) for word in plain):
            known += 1
            words.append(plain)
            continue
        pronounce = pronounce or Pronouncer()
        phones = _phones(pronounce, token)
        if phones:
            decoder.add_word(f"token{index}", " ".join(phones), True)
        words.append([f"token{index}"] if phones else [])
    return words, known


def _phones(pronounce: Pronouncer, token: str) -> list[str]:
    """[] for what an English reader cannot read: then the word is not followed, and the rest is."""
    if not any(map(str.isalnum, token)):
        return []
    try:
        return pronounce(token)
    except InvalidText:
        return []


def sound(fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
    """How each of `fields["texts"]` sounds in English, a character for each phone: `1 2` and `one two` are alike."""
    pronounce, characters = Pronouncer(), {phone: chr(FIRST_CHARACTER + at) for at, phone in enumerate(ALL_PHONES)}
    spoken = [[phone for word in text.split() for phone in _phones(pronounce, word)] for text in fields["texts"]]
    return {"sounds": ["".join(characters[phone] for phone in phones) for phones in spoken]}, b""
