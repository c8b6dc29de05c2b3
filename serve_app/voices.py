"""The library of stored voices, in the layout of the worker that this service replaces.

    voices/{name}.wav       reference audio; what is uploaded here becomes mono, 24 kHz, 16 bit
    voices/{name}.txt       what is said in it, UTF-8; empty or missing: the voice has no text
    voices/{name}.v1.json   {"consent", "audio_sha256"}: the speaker's consent, and the audio it was given for

Audio and text are two objects that change, and no store promises to change both at once. The order of the writes
keeps a reader from pairing audio with a text that was not sent with it; what can be seen in between, or after a
crash, is a voice without text, which f5 refuses and an upload mends:

    create    text "" -> audio -> text      in between: the old or the new audio, without text
    delete    text -> audio                 in between: the audio, without text

A reader that is overtaken by a writer notices, because a version names both objects. Two uploads of one name at the
same time can leave the audio of one with the text of the other; whoever wrote last then gets a Conflict.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TypeVar

from serve_app import keys
from serve_app.audio import decode, encode
from serve_app.domain import SAMPLE_RATE_HZ, Pcm, Voice, VoiceRef
from serve_app.errors import (
    Conflict,
    InvalidAudio,
    InvalidRequest,
    InvalidVoiceName,
    NameReserved,
    ObjectNotFound,
    UnusableVoice,
    VoiceNotFound,
    VoiceReplaced,
)
from serve_app.storage import ObjectInfo, ObjectStore, StoredObject

__all__ = ["VoiceInfo", "VoiceLibrary", "VoicePage", "from_file_name", "validate_name"]

T = TypeVar("T")

NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
MIN_DURATION_S = 0.5
MAX_LIMIT = 1000
OBJECTS_PER_VOICE = 3
SHOWN_CHARS = 80  # of a wrong name, in a message: it may be as long as a request
HOW_TO_FIND = "list the voices with GET /v1/audio/voices, or upload it with POST /v1/audio/voices"


def validate_name(name: str, *, field: str = "voice") -> str:
    """`name`, if it can be a voice's. Raises InvalidVoiceName, naming `field`."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidVoiceName(
            f"{field} {name[:SHOWN_CHARS]!r} is not a voice's name: use 1 to 64 letters, digits, _ and -, beginning "
            f"with a letter or a digit (pattern {NAME_PATTERN})"
        )
    return name


def from_file_name(name: str, *, field: str = "voice") -> str:
    """As `validate_name`, of a file name as the old worker took it: one `.wav` at the end is dropped."""
    return validate_name(name.removesuffix(".wav"), field=field)


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


class VoiceLibrary:
    """Voices of all tenants in one store. `reserved` are the names of voices that engines have built in.

    Methods block. Beside what they say, they raise InvalidVoiceName, and what the store raises: a 403 is
    StorageDenied, never VoiceNotFound.
    """

    def __init__(self, store: ObjectStore, *, reserved: Collection[str] = ()) -> None:
        self._store = store
        self._reserved = frozenset(reserved)

    def create(
        self, tenant: str, name: str, audio: bytes, text: str, *, consent: str = "", field: str = "audio"
    ) -> VoiceInfo:
        """Store a voice, in place of the one that has the name. `audio` is a file in a format that `decode` reads.

        `consent` is a note that the speaker agreed. Raises InvalidAudio, naming `field`, for what is no audio, or
        less than 0.5 s of it; NameReserved; Conflict or VoiceNotFound when an upload or a deletion came in between.
        """
        validate_name(name, field="name")
        if name in self._reserved:
            raise NameReserved(f"name {name!r} belongs to a voice that is built in: choose another name")
        wave = decode(audio, field=field)
        if (duration_s := len(wave) / SAMPLE_RATE_HZ) < MIN_DURATION_S:
            raise InvalidAudio(f"{field} is {duration_s:.2f} s long: send at least {MIN_DURATION_S} s, best 5 to 12 s")
        wav = encode(wave, "wav")
        written_text = self._put_text(tenant, name, "")
        written = self._store.put(keys.voice_audio(tenant, name), wav, content_type="audio/wav")
        if text.strip():
            written_text = self._put_text(tenant, name, text.strip())
        self._record_consent(tenant, name, wav, consent.strip())
        if self.resolve(tenant, name).version != _version(written, written_text):
            raise Conflict(f"voice {name!r} was also uploaded by another request just now: upload it again")
        return _info(name, written, written_text)

    def list(self, tenant: str, *, after: str = "", limit: int = 100) -> VoicePage:
        """Voices in the order of their keys, those behind the name `after`, at most `limit` (1..1000).

        Left out is what no call could name: audio in subfolders, under names outside the pattern ("my voice.wav"),
        or not in a `.wav`; and text without audio. Reads as many objects as it takes to fill the page.
        Raises InvalidRequest.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidRequest(f"limit is {limit}: send 1 to {MAX_LIMIT}")
        start = keys.voice_audio(tenant, validate_name(after, field="after")) if after else ""
        found = tuple(islice(self._voices(tenant, start, limit), limit + 1))
        items = found[:limit]
        return VoicePage(items, items[-1].name if len(found) > limit else None)

    def get(self, tenant: str, name: str) -> VoiceInfo:
        """Describe a voice. Raises VoiceNotFound."""
        return _info(name, *self._pair(self._store.head, tenant, name))

    def delete(self, tenant: str, name: str) -> None:
        """Remove a voice, or what an interrupted deletion left of it. Raises VoiceNotFound, NameReserved."""
        audio_key, text_key = keys.voice_audio(tenant, validate_name(name)), keys.voice_text(tenant, name)
        if not (_if_there(self._store.head, audio_key) or _if_there(self._store.head, text_key)):
            if name in self._reserved:
                raise NameReserved(f"voice {name!r} is built in and cannot be deleted: name one that was uploaded")
            raise VoiceNotFound(f"voice {name!r} does not exist: {HOW_TO_FIND}")
        self._store.delete(text_key)  # first: audio that is put there later must not meet an old text
        self._store.delete(keys.voice_record(tenant, name))
        self._store.delete(audio_key)

    def resolve(self, tenant: str, name: str) -> VoiceRef:
        """The voice's present version, without reading it. Raises VoiceNotFound."""
        return VoiceRef(name, _version(*self._pair(self._store.head, tenant, name)), tenant)

    def load(self, ref: VoiceRef) -> Voice:
        """Read exactly this version: one GET of the audio and one of the text. The waveform is read-only.

        Raises VoiceNotFound; VoiceReplaced where another version is stored; UnusableVoice for audio that cannot be
        decoded or text that is not UTF-8; ValueError for a voice that is built in.
        """
        if ref.builtin:
            raise ValueError(f"voice {ref.name!r} is built into an engine: it has no audio in the store")
        audio, text = self._pair(self._store.get, ref.tenant, ref.name)
        if _version(audio.info, text.info if text else None) != ref.version:
            raise VoiceReplaced(f"voice {ref.name!r} was replaced after the request was accepted: send it again")
        return Voice(ref, _waveform(audio), _transcript(text) if text else "")

    def _put_text(self, tenant: str, name: str, text: str) -> ObjectInfo:
        key = keys.voice_text(tenant, name)
        return self._store.put(key, text.encode(), content_type="text/plain; charset=utf-8")

    def _record_consent(self, tenant: str, name: str, wav: bytes, consent: str) -> None:
        """Names the audio, so that consent is never taken for that of a recording which came later."""
        key = keys.voice_record(tenant, name)
        if not consent:
            return self._store.delete(key)
        record = {"consent": consent, "audio_sha256": hashlib.sha256(wav).hexdigest()}
        self._store.put(key, json.dumps(record, ensure_ascii=False).encode(), content_type="application/json")

    def _pair(self, read: Callable[[str], T], tenant: str, name: str) -> tuple[T, T | None]:
        """Audio and text, in this order, as `read` gives them; None for a text that is not there."""
        audio = _if_there(read, keys.voice_audio(tenant, validate_name(name)))
        if audio is None:
            raise VoiceNotFound(f"voice {name!r} does not exist: {HOW_TO_FIND}")
        return audio, _if_there(read, keys.voice_text(tenant, name))

    def _voices(self, tenant: str, after: str, limit: int) -> Iterator[VoiceInfo]:
        """Voices whose audio's key is behind `after`.

        Names hold no dot, so the objects of one voice lie together, text before audio, and keys are in the order of
        "name." (`a-b.wav` before `a.wav`): behind `a.wav` lies all of every voice that follows `a`.
        """
        prefix, text = keys.voices_prefix(tenant), None
        for info in self._objects(prefix, after, min(MAX_LIMIT, OBJECTS_PER_VOICE * (limit + 1))):
            name, _, suffix = info.key.removeprefix(prefix).partition(".")
            if suffix == "txt":
                text = info
            elif suffix == "wav" and re.fullmatch(NAME_PATTERN, name):
                yield _info(name, info, text if text and text.key == keys.voice_text(tenant, name) else None)

    def _objects(self, prefix: str, after: str, at_once: int) -> Iterator[ObjectInfo]:
        following: str | None = after
        while following is not None:
            page = self._store.list(prefix, after=following, limit=at_once)
            yield from page.items
            following = page.next_after


def _if_there(read: Callable[[str], T], key: str) -> T | None:
    try:
        return read(key)
    except ObjectNotFound:
        return None


def _version(audio: ObjectInfo, text: ObjectInfo | None) -> str:
    return hashlib.sha256(f"{audio.etag}\n{text.etag if text else '-'}".encode()).hexdigest()[:32]


def _info(name: str, audio: ObjectInfo, text: ObjectInfo | None) -> VoiceInfo:
    text_file = f"{name}.txt" if text and text.size_bytes else None
    return VoiceInfo(name, f"{name}.wav", text_file, audio.size_bytes, audio.last_modified)


def _waveform(stored: StoredObject) -> Pcm:
    try:
        wave = decode(stored.body, field=f'"{stored.info.key}" in the store')
    except InvalidAudio as error:
        raise UnusableVoice(f"{error.message}; or upload the voice again") from error
    wave.flags.writeable = False  # it is shared by everyone who asks a cache for it
    return wave


def _transcript(stored: StoredObject) -> str:
    try:
        return stored.body.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UnusableVoice(f'"{stored.info.key}" in the store is not UTF-8 ({error}): save it as UTF-8') from error
