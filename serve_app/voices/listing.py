"""Which voices there are, by a listing of their objects alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from serve_app import keys
from serve_app.errors import InvalidRequest
from serve_app.storage import ObjectInfo, ObjectStore
from serve_app.voices.names import NAME_PATTERN, validate_name

__all__ = ["VoiceInfo", "VoicePage", "describe", "list_voices", "objects"]

MAX_LIMIT = 1000
OBJECTS_PER_VOICE = 2


@dataclass(frozen=True, slots=True)
class VoiceInfo:
    """What is known of a voice without reading it.

    `voice_file` and `text_file` are file names under `voices/`; `text_file` is None where there is no text, be the
    file missing or empty. Size and time are the audio's.
    """

    name: str
    voice_file: str
    text_file: str | None
    size_bytes: int
    last_modified: datetime  # timezone-aware, UTC


@dataclass(frozen=True, slots=True)
class VoicePage:
    """Part of a listing. `next_after` is the name to pass as `after` for the rest; None at the end."""

    items: tuple[VoiceInfo, ...]
    next_after: str | None


def describe(name: str, audio: ObjectInfo, text: ObjectInfo | None) -> VoiceInfo:
    """Of a voice's objects, where the text may be missing."""
    text_file = f"{name}.txt" if text and text.size_bytes else None
    return VoiceInfo(name, f"{name}.wav", text_file, audio.size_bytes, audio.last_modified)


def list_voices(store: ObjectStore, tenant: str, after: str, limit: int) -> VoicePage:
    """Voices in the order of their keys, those behind the name `after`, at most `limit` (1..1000).

    Left out is what no call could name: audio in subfolders, under names outside the pattern ("my voice.wav"),
    or not in a `.wav`; and text without audio. Reads as many objects as it takes to fill the page.
    Raises InvalidRequest.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(f"limit is {limit}: send 1 to {MAX_LIMIT}")
    start = keys.voice_audio(tenant, validate_name(after, field="after")) if after else ""
    found = tuple(islice(_voices(store, tenant, start, limit), limit + 1))
    items = found[:limit]
    return VoicePage(items, items[-1].name if len(found) > limit else None)


def _voices(store: ObjectStore, tenant: str, after: str, limit: int) -> Iterator[VoiceInfo]:
    """Voices whose audio's key is behind `after`.

    Names hold no dot, so the objects of one voice lie together, text before audio, and keys are in the order of
    "name." (`a-b.wav` before `a.wav`): behind `a.wav` lies all of every voice that follows `a`.
    """
    prefix, text = keys.voices_prefix(tenant), None
    for info in objects(store, prefix, after, min(MAX_LIMIT, OBJECTS_PER_VOICE * (limit + 1))):
        name, _, suffix = info.key.removeprefix(prefix).partition(".")
        if suffix == "txt":
            text = info
        elif suffix == "wav" and re.fullmatch(NAME_PATTERN, name):
            yield describe(name, info, text if text and text.key == keys.voice_text(tenant, name) else None)


def objects(store: ObjectStore, prefix: str, after: str = "", at_once: int = MAX_LIMIT) -> Iterator[ObjectInfo]:
    """All objects under `prefix` behind the key `after`, page by page."""
    following: str | None = after
    while following is not None:
        page = store.list(prefix, after=following, limit=at_once)
        yield from page.items
        following = page.next_after
