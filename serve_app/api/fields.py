"""Fields that the bodies of all dialects share."""

import re
from collections.abc import Mapping
from typing import TypedDict

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.voices import parsed_language
from serve_app.audio import MAX_LUFS, MIN_LUFS
from serve_app.errors import InvalidRequest
from serve_app.parameters import RANGES, Parameters

__all__ = ["ParameterFields", "TextFields", "TextOptions", "VoiceField", "VoiceId", "checked_loudness", "name_of"]

MAX_WORDS, MAX_WORD_CHARS, MAX_SPELLING_CHARS = 1000, 100, 200
"""Of a lexicon."""
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class VoiceId(BaseModel):
    """OpenAI's object form of a voice."""

    model_config = ConfigDict(extra="forbid")

    id: str


VoiceField = str | VoiceId | None


def name_of(voice: VoiceField) -> str | None:
    """The name in either form; None: the model's own voice."""
    return voice.id if isinstance(voice, VoiceId) else voice


def _says(name: str, what: str) -> str:
    low, high = RANGES[name]
    return f"{what}; {low:g} to {high:g}, and the model's own where it is left out"


class ParameterFields(BaseModel):
    """Parameters of the speech; ranges are checked at acceptance, where every dialect gets the same message."""

    speed: float | None = Field(None, description=_says("speed", "factor on the speaking rate"))
    seed: int | None = Field(None, description="fixes the noise, so that the same request gives the same audio")
    nfe_steps: int | None = Field(None, description=_says("nfe_steps", "f5: evaluations of the ODE"))
    cfg_strength: float | None = Field(None, description=_says("cfg_strength", "f5: classifier-free guidance"))
    sway: float | None = Field(None, description=_says("sway", "f5: sway sampling; -1 takes small steps first"))
    cross_fade_s: float | None = Field(
        None, description=_says("cross_fade_s", "seconds that units fade into each other")
    )

    @property
    def parameters(self) -> Parameters:
        names = ("speed", "seed", "nfe_steps", "cfg_strength", "sway", "cross_fade_s")
        return Parameters(**{name: getattr(self, name) for name in names})


class TextOptions(TypedDict):
    """What `Acceptance.accept` takes of TextFields. `language` is a tag ("en", "pt-br"), None where nobody said."""

    language: str | None
    normalize: bool
    lexicon: Mapping[str, str] | None


class TextFields(BaseModel):
    """What is known of the text, and what is done to it before it is spoken."""

    language: str | None = Field(None, description="of the text, as in `en` or `pt-BR`")
    normalize: bool = Field(True, strict=True, description="numbers, dates and the like are written out")
    lexicon: dict[str, str] | None = Field(
        None, description='words, and how they are spelt for the model: {"Nguyen": "win"}; 1,000 at most'
    )

    def text_options(self, within: str = "") -> TextOptions:
        """Checked. `within`: what the fields lie in, as messages name it ("input."). Raises InvalidRequest."""
        return TextOptions(
            language=parsed_language(self.language or "", f"{within}language"),
            normalize=self.normalize,
            lexicon=_checked_lexicon(self.lexicon, f"{within}lexicon"),
        )


def _checked_lexicon(lexicon: Mapping[str, str] | None, field: str) -> Mapping[str, str] | None:
    if lexicon is None:
        return None
    if len(lexicon) > MAX_WORDS:
        raise InvalidRequest(f"{field} has {len(lexicon)} words: send at most {MAX_WORDS}")
    for word, spelling in lexicon.items():
        for what, text, most in (("word", word, MAX_WORD_CHARS), ("spelling", spelling, MAX_SPELLING_CHARS)):
            if not text.strip():
                raise InvalidRequest(
                    f"{field}: a {what} of {word[:40]!r}: {spelling[:40]!r} is empty: send text for it"
                )
            if len(text) > most:
                raise InvalidRequest(
                    f"{field}: the {what} {text[:40]!r} has {len(text)} characters: send at most {most}"
                )
            if UNPRINTABLE.search(text):
                raise InvalidRequest(f"{field}: the {what} {text[:40]!r} has controls, or half a character: send text")
    return lexicon


def checked_loudness(lufs: float | None) -> float | None:
    """Raises InvalidRequest."""
    if lufs is not None and not MIN_LUFS <= lufs <= MAX_LUFS:
        raise InvalidRequest(
            f"loudness is {lufs:g}: send {MIN_LUFS:g} to {MAX_LUFS:g} (LUFS; speech is often at -16), or leave it out"
        )
    return lufs
