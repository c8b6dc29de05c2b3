"""Fields that the bodies of all dialects share, and what the OpenAPI document says of them.

A range is documented here and checked at acceptance, where every dialect gets the same message. A type is checked here,
strictly: what came as a text is no number, and neither is `true`.
"""

from typing import Annotated, TypedDict

from fastapi import Header
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, WithJsonSchema

from serve_app.api.voices import LANGUAGE, parsed_language
from serve_app.audio import FORMATS, MAX_LUFS, MIN_LUFS
from serve_app.errors import InvalidRequest
from serve_app.lexicon import MAX_REQUEST_ENTRIES, Lexicon, checked
from serve_app.parameters import MAX_SEED, RANGES, Parameters
from serve_app.voices import NAME_PATTERN

__all__ = [
    "Format",
    "IdempotencyKey",
    "Loudness",
    "ModelName",
    "ParameterFields",
    "Text",
    "TextFields",
    "TextOptions",
    "VoiceField",
    "VoiceId",
    "VoiceName",
    "Whole",
    "checked_loudness",
    "name_of",
]


def _whole(value: object) -> object:
    """JSON knows one kind of number, and 5.0 is whole."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _within(name: str) -> WithJsonSchema:
    low, high = RANGES[name]
    kind = "integer" if name == "nfe_steps" else "number"
    return WithJsonSchema({"type": kind, "minimum": low, "maximum": high})


Whole = Annotated[int, Strict(), BeforeValidator(_whole)]
Number = Annotated[float, Strict()]
Loudness = Annotated[Number, WithJsonSchema({"type": "number", "minimum": MIN_LUFS, "maximum": MAX_LUFS})]

Text = Annotated[str, Field(json_schema_extra={"minLength": 1})]
ModelName = Annotated[str, Field(json_schema_extra={"minLength": 1, "examples": ["tts-1"]})]
VoiceName = Annotated[str, Field(json_schema_extra={"pattern": f"^{NAME_PATTERN}$", "examples": ["alloy"]})]
Format = Annotated[str, Field(json_schema_extra={"enum": [*FORMATS]})]
"""Checked when it is used, since one that is not served is a 422."""

_Key = Annotated[str, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 255})]
IdempotencyKey = Annotated[_Key | None, Header(description="the same key and body: the same job, for a day")]


class VoiceId(BaseModel):
    """OpenAI's object form of a voice."""

    model_config = ConfigDict(extra="forbid")

    id: VoiceName


VoiceField = VoiceName | VoiceId | None


def name_of(voice: str | VoiceId | None) -> str | None:
    """The name in either form; None: the model's own voice."""
    return voice.id if isinstance(voice, VoiceId) else voice


def _says(name: str, what: str) -> str:
    low, high = RANGES[name]
    return f"{what}; {low:g} to {high:g}, and the model's own where it is left out"


class ParameterFields(BaseModel):
    """Parameters of the speech."""

    speed: Annotated[Number, _within("speed")] | None = Field(
        None, description=_says("speed", "factor on the speaking rate")
    )
    seed: Annotated[Whole, WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_SEED})] | None = Field(
        None, description="fixes the noise, so that the same request gives the same audio"
    )
    nfe_steps: Annotated[Whole, _within("nfe_steps")] | None = Field(
        None, description=_says("nfe_steps", "f5: evaluations of the ODE")
    )
    cfg_strength: Annotated[Number, _within("cfg_strength")] | None = Field(
        None, description=_says("cfg_strength", "f5: classifier-free guidance")
    )
    sway: Annotated[Number, _within("sway")] | None = Field(
        None, description=_says("sway", "f5: sway sampling; -1 takes small steps first")
    )
    cross_fade_s: Annotated[Number, _within("cross_fade_s")] | None = Field(
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

    language: str | None = Field(
        None,
        description="of the text, as in `en` or `pt-BR`",
        json_schema_extra={"pattern": f"^({LANGUAGE.pattern})?$"},
    )
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
