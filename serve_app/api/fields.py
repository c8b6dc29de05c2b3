"""Fields that the bodies of all dialects share."""

from pydantic import BaseModel, ConfigDict, Field

from serve_app.parameters import RANGES, Parameters

__all__ = ["ParameterFields", "VoiceField", "VoiceId", "name_of"]


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
