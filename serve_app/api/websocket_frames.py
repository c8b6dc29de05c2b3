"""What a client of the speech WebSocket may send: JSON text frames, each with a `type`. Knows nothing of sockets."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from serve_app.api.errors import problem
from serve_app.api.fields import ParameterFields, TextFields, VoiceField, Whole, name_of
from serve_app.errors import InvalidRequest

__all__ = ["Cancel", "Close", "Flush", "Frame", "Start", "Text", "parsed_frame"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Start(ParameterFields, TextFields):
    """The first frame: everything but the text."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["start"]
    model: str | None = None
    voice: VoiceField = None
    response_format: str = "pcm"
    sample_rate: Whole | None = None
    bit_rate: Whole | None = None
    audio: Literal["binary", "base64"] = "binary"

    @property
    def voice_name(self) -> str | None:
        return name_of(self.voice)


class Text(_Strict):
    """The next piece of the text, of any length; "" says no more than that the client is there."""

    type: Literal["text"]
    text: str


class Flush(_Strict):
    """What was sent so far is spoken without waiting for more; answered when it was."""

    type: Literal["flush"]


class Close(_Strict):
    """There is no more text: what is left is spoken, and the connection closed."""

    type: Literal["close"]


class Cancel(_Strict):
    """Nothing more is spoken."""

    type: Literal["cancel"]


Frame = Start | Text | Flush | Close | Cancel
_FRAME: TypeAdapter[Frame] = TypeAdapter(Annotated[Frame, Field(discriminator="type")])


def parsed_frame(message: str | None) -> Frame:
    """The frame of a text message; None: it was a binary one. Raises InvalidRequest."""
    if message is None:
        raise InvalidRequest("frame: it is binary: send JSON in text frames")
    data = _json(message)
    if not isinstance(data, dict):
        raise InvalidRequest(f"frame: it is no JSON object (got {message[:40]!r}): send one with a `type`")
    try:
        return _FRAME.validate_python(data)
    except ValidationError as error:
        found = [problem(each if each["loc"] else {**each, "loc": ("", "frame")}) for each in error.errors()]
        raise InvalidRequest("; ".join(found)) from error


def _json(message: str) -> Any:
    try:
        return json.loads(message)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"frame: it is not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise InvalidRequest("frame: its JSON is nested too deep: send a flatter one") from error
    except ValueError as error:
        raise InvalidRequest("frame: a number in its JSON has too many digits: send one that is used") from error
