"""What ElevenLabs' clients send and read: bodies, queries, names of formats, models, characters with their times.

Source of the wire forms: ElevenLabs' API reference and the models of its Python SDK, 2.78. Knows nothing of routes.
"""

import base64
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from serve_app.api.voices import LANGUAGE
from serve_app.audio import Encoding
from serve_app.catalog import Model
from serve_app.errors import InvalidRequest, UnsupportedFormat
from serve_app.parameters import MAX_SEED, RANGES, Parameters
from serve_app.timing import CharacterTimes, UnitTimes

__all__ = ["OUTPUT_FORMATS", "SpeechQuery", "TextToSpeechBody", "encoding_of", "model_form", "timed_form"]

OUTPUT_FORMATS = (
    *("mp3_22050_32", "mp3_24000_48", "mp3_44100_32", "mp3_44100_64", "mp3_44100_96", "mp3_44100_128", "mp3_44100_192"),
    *("opus_48000_32", "opus_48000_64", "opus_48000_96", "opus_48000_128", "opus_48000_192"),
    *("pcm_8000", "pcm_16000", "pcm_22050", "pcm_24000", "pcm_32000", "pcm_44100", "pcm_48000"),
    *("wav_8000", "wav_16000", "wav_22050", "wav_24000", "wav_32000", "wav_44100", "wav_48000"),
    *("ulaw_8000", "alaw_8000"),
)
"""All of ElevenLabs': format, rate in Hz and kbit/s."""
DEFAULT_FORMAT = "mp3_44100_128"


EXAMPLE: JsonDict = {
    "text": "The birch canoe slid on the smooth planks.",
    "model_id": "eleven_multilingual_v2",
    "voice_settings": {"stability": 0.5, "similarity_boost": 0.75, "speed": 1.0},
    "seed": 7,
}


class Forbidding(BaseModel):
    """Unknown fields are refused, so that none is dropped in silence."""

    model_config = ConfigDict(extra="forbid")


class VoiceSettings(Forbidding):
    """Of one request. All but `speed` say how a model of ElevenLabs is steered; the models here have no such thing."""

    model_config = ConfigDict(strict=True)

    stability: float | None = Field(None, description="taken, not followed")
    similarity_boost: float | None = Field(None, description="taken, not followed")
    style: float | None = Field(None, description="taken, not followed")
    use_speaker_boost: bool | None = Field(None, description="taken, not followed")
    clone_strength: float | None = Field(None, description="taken, not followed")
    speed: float | None = Field(
        None,
        description="factor on the speaking rate",
        json_schema_extra={"minimum": RANGES["speed"][0], "maximum": RANGES["speed"][1]},
    )


class TextToSpeechBody(Forbidding):
    """Body of all four forms of text to speech."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [EXAMPLE]})

    text: str = Field(json_schema_extra={"minLength": 1})
    model_id: str | None = None
    language_code: str | None = Field(
        None,
        description="of the text, as in `en` or `pt-BR`",
        json_schema_extra={"pattern": f"^({LANGUAGE.pattern})?$"},
    )
    voice_settings: VoiceSettings | None = None
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="modulo 2147483648; the X-Seed of the answer")
    apply_text_normalization: Literal["auto", "on", "off"] | None = Field(None, description="off: as it is written")
    previous_text: str | None = Field(None, description="taken, not followed")
    next_text: str | None = Field(None, description="taken, not followed")
    previous_request_ids: list[str] | None = Field(None, description="taken, not followed")
    next_request_ids: list[str] | None = Field(None, description="taken, not followed")
    use_pvc_as_ivc: bool | None = Field(None, description="taken, not followed")
    apply_language_text_normalization: bool | None = Field(None, description="taken, not followed")
    pronunciation_dictionary_locators: list[Any] | None = Field(
        None, description="not served: empty or left out", json_schema_extra={"maxItems": 0}
    )
    audio_effects: dict[str, Any] | None = Field(
        None, description="not served: empty or left out", json_schema_extra={"maxProperties": 0}
    )

    @property
    def parameters(self) -> Parameters:
        speed = self.voice_settings.speed if self.voice_settings else None
        return Parameters(speed=speed, seed=None if self.seed is None else self.seed % (MAX_SEED + 1))

    @property
    def normalize(self) -> bool:
        return self.apply_text_normalization != "off"

    @property
    def ignored(self) -> list[str]:
        """Names of the fields that were sent and change nothing."""
        names = ("previous_text", "next_text", "previous_request_ids", "next_request_ids", "use_pvc_as_ivc")
        found = [name for name in (*names, "apply_language_text_normalization") if getattr(self, name) is not None]
        settings = self.voice_settings.model_dump(exclude={"speed"}, exclude_none=True) if self.voice_settings else {}
        return [f"voice_settings.{name}" for name in settings] + found

    def check_served(self) -> None:
        """Raises InvalidRequest for what would have to be heard and cannot be done."""
        if self.pronunciation_dictionary_locators:
            raise InvalidRequest(
                "pronunciation_dictionary_locators names dictionaries, and none are kept here: leave it out, and spell "
                "the words in `text` as they are to be read"
            )
        if asked := [name for name, value in (self.audio_effects or {}).items() if value]:
            raise InvalidRequest(f"audio_effects.{asked[0][:60]} is not served: leave audio_effects out")


class SpeechQuery(Forbidding):
    """Query of all four forms of text to speech."""

    output_format: str = Field(
        DEFAULT_FORMAT, description="kind, Hz and kbit/s", json_schema_extra={"enum": [*OUTPUT_FORMATS]}
    )
    optimize_streaming_latency: int | None = Field(None, ge=0, le=4, description="taken, not followed")
    enable_logging: bool = Field(True, description="false: the speech is neither kept nor taken from what was kept")


def encoding_of(output_format: str) -> Encoding:
    """Raises UnsupportedFormat, which lists what is served."""
    if output_format not in OUTPUT_FORMATS:
        raise UnsupportedFormat(
            f"output_format {output_format[:80]!r} is not served: use one of {', '.join(OUTPUT_FORMATS)}"
        )
    name, rate_hz, *kbits = output_format.split("_")
    return Encoding.of(name, int(rate_hz), 1000 * int(kbits[0]) if kbits else None)


def timed_form(audio: bytes, times: UnitTimes | None) -> dict[str, Any]:
    """The answer with characters, and each piece of it where it is streamed; `times` is None where no unit is new."""
    return {
        "audio_base64": base64.b64encode(audio).decode(),
        "alignment": times and _alignment(times.sent),
        "normalized_alignment": times and _alignment(times.spoken),
    }


def _alignment(times: CharacterTimes) -> dict[str, Sequence[Any]]:
    return {
        "characters": list(times.characters),
        "character_start_times_seconds": times.starts_s,
        "character_end_times_seconds": times.ends_s,
    }


def model_form(name: str, model: Model, max_chars: int) -> dict[str, Any]:
    """A model under one of its names. `max_chars`: the most that one request may have."""
    alias = f", an alias of {model.name}" if name != model.name else ""
    draft = ", a draft voice and no clone" if model.draft else ""
    return {
        "model_id": name,
        "name": name,
        "description": f"{model.engine}{draft}{alias}; {model.license}",
        "can_be_finetuned": False,
        "can_do_text_to_speech": True,
        "can_do_voice_conversion": False,
        "can_use_style": False,
        "can_use_speaker_boost": False,
        "serves_pro_voices": False,
        "requires_alpha_access": False,
        "token_cost_factor": 1.0,
        "max_characters_request_free_user": max_chars,
        "max_characters_request_subscribed_user": max_chars,
        "maximum_text_length_per_request": max_chars,
        "languages": [{"language_id": tag, "name": tag} for tag in model.languages],
        "model_rates": {"character_cost_multiplier": 1.0},
        "concurrency_group": "standard",
    }
