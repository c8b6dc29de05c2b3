"""Fields that the bodies of all dialects share."""

from typing import TypedDict

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.voices import parsed_language
from serve_app.audio import MAX_LUFS, MIN_LUFS
from serve_app.errors import InvalidRequest
from serve_app.lexicon import MAX_REQUEST_ENTRIES, Lexicon, checked
from serve_app.parameters import RANGES, Parameters

__all__ = ["ParameterFields", "TextFields", "TextOptions", "VoiceField", "VoiceId", "checked_loudness", "name_of"]


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
    lexicon: Lexicon


class TextFields(BaseModel):
    """What is known of the text, and what is done to it before it is spoken."""

    language: str | None = Field(None, description="of the text, as in `en` or `pt-BR`")
    normalize: bool = Field(True, strict=True, description="numbers, dates and the like are written out")
    lexicon: dict[str, str] | None = Field(
        None, description='words, and how they are spelt for the model: {"Nguyen": "win"}; 100 at most'
    )

    def text_options(self, within: str = "") -> TextOptions:
        """Checked. `within`: what the fields lie in, as messages name it ("input."). Raises InvalidRequest."""
        return TextOptions(
            language=parsed_language(self.language or "", f"{within}language"),
            normalize=self.normalize,
            lexicon=checked(self.lexicon or {}, field=f"{within}lexicon", limit=MAX_REQUEST_ENTRIES),
        )


def checked_loudness(lufs: float | None) -> float | None:
    """Raises InvalidRequest."""
    if lufs is not None and not MIN_LUFS <= lufs <= MAX_LUFS:
        raise InvalidRequest(
            f"loudness is {lufs:g}: send {MIN_LUFS:g} to {MAX_LUFS:g} (LUFS; speech is often at -16), or leave it out"
        )
    return lufs
