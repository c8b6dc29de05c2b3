"""The library of stored voices, in the layout of the worker that this service replaces, and what it makes of them.

    voices/{name}.wav                    reference audio
    voices/{name}.txt                    what is said in it, UTF-8; empty or missing: the voice has no text
    prepared/{name}/{version}.wav        a version: the audio that models are given, its text inside; never changes
    prepared/{name}/{version}.v1.json    what is known of it: language, labels, consent, what preparation did

A voice that is uploaded here is prepared first and then written to `voices/{name}.wav`, as the same bytes: that one
object is the pointer, its version is their sha256, and it cannot tear. A version stays when the voice is replaced, for
requests that were accepted with it, until the voice is deleted. `voices/{name}.txt` follows it, for the worker and for
people; the record names the text that it replaces, so that a reader in between does not take that for a correction.

A voice that others put there (the old worker, a person) has a version made of both etags, and is prepared at its first
use, under that version. So is one of ours whose text a person has changed. A text of ours beside audio that is not ours
belongs to audio that is gone: it is not used. Others write audio and text apart: what they put there is as they paired
it, and English is compared with its audio.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from serve_app import keys, logs
from serve_app.audio import decode_reference, encode_reference
from serve_app.domain import Voice, VoiceRef
from serve_app.errors import (
    Conflict,
    InvalidAudio,
    InvalidRequest,
    NameReserved,
    ObjectCorrupt,
    ObjectNotFound,
    Unavailable,
    UnusableVoice,
    VoiceNotFound,
    VoiceReplaced,
)
from serve_app.near import near_words
from serve_app.preparation import Fields, Preparer
from serve_app.storage import ObjectInfo, ObjectStore, StoredObject
from serve_app.voices.listing import VoiceInfo, VoicePage, describe, list_voices, objects
from serve_app.voices.names import validate_name
from serve_app.voices.near import near_voices
from serve_app.voices.record import VoiceRecord

__all__ = ["Upload", "VoiceDetails", "VoiceLibrary"]

T = TypeVar("T")

MAX_STORED_BYTES = 30 * 1024 * 1024
"""Of a recording that others put into the store, as of an upload."""
OBJECTS_PER_VOICE = 2
WAV = "audio/wav"
NAMES = Fields()
HOW_TO_FIND = "list the voices with GET /v1/audio/voices, or upload it with POST /v1/audio/voices"


@dataclass(frozen=True, slots=True)
class VoiceDetails:
    """A voice with the record of its present version; None for one that is not prepared yet."""

    info: VoiceInfo
    record: VoiceRecord | None


@dataclass(frozen=True, slots=True)
class Upload:
    """A recording as it arrived, with `text` ("" to have it transcribed) and what is to be kept with it.

    `names`: what the caller calls audio and text, for messages. `source`: where it came from.
    """

    audio: bytes = field(repr=False)
    text: str = ""
    language: str | None = None
    consent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = "upload"
    names: Fields = NAMES


class VoiceLibrary:
    """Voices of all tenants in one store. `reserved` are the names of voices that engines have built in.

    Methods block. Beside what they say, they raise InvalidVoiceName, and what the store raises: a 403 is
    StorageDenied, never VoiceNotFound.
    """

    def __init__(self, store: ObjectStore, preparer: Preparer, *, reserved: Collection[str] = ()) -> None:
        self._store = store
        self._preparer = preparer
        self._reserved = frozenset(reserved)

    def create(self, tenant: str, name: str, upload: Upload) -> VoiceDetails:
        """Prepare and store a voice, in place of the one that has the name; the version before it stays readable.

        Raises InvalidAudio or InvalidTranscript for what cannot be prepared, with nothing stored; NameReserved;
        Conflict or VoiceNotFound when an upload or a deletion came in between.
        """
        validate_name(name, field="name")
        if name in self._reserved:
            raise NameReserved(f"name {name!r} belongs to a voice that is built in: choose another name")
        prepared = self._preparer.prepare(upload.audio, upload.text, language=upload.language, names=upload.names)
        self._prepare_what_is_there(tenant, name)
        reference = encode_reference(prepared.audio, prepared.text)
        version = hashlib.sha256(reference).hexdigest()
        superseded = _if_there(self._store.head, keys.voice_text(tenant, name))
        record = VoiceRecord.of(
            version,
            prepared,
            upload.source,
            upload.consent.strip(),
            upload.labels,
            superseded.etag if superseded else None,
        )
        self._keep(tenant, name, record, reference)
        audio = self._store.put(keys.voice_audio(tenant, name), reference, content_type=WAV)
        text = self._put_text(tenant, name, prepared.text)
        if self.resolve(tenant, name).version != version:
            raise Conflict(f"voice {name!r} was also uploaded by another request just now: upload it again")
        return VoiceDetails(describe(name, audio, text), record)

    def list(self, tenant: str, *, after: str = "", limit: int = 100) -> VoicePage:
        """Voices behind the name `after`, at most `limit` (1..1000). See `list_voices`."""
        return list_voices(self._store, tenant, after, limit)

    def get(self, tenant: str, name: str) -> VoiceDetails:
        """Describe a voice. Raises VoiceNotFound, ObjectCorrupt."""
        try:
            audio, text = self._pair(tenant, name)
        except VoiceNotFound as error:
            raise self._unknown(tenant, name) from error
        record = self._record(tenant, name, self._version(tenant, name, audio, text))
        return VoiceDetails(describe(name, audio, text), record)

    def delete(self, tenant: str, name: str) -> None:
        """Remove a voice with all its versions, or what an interrupted deletion left of them.

        A request that was accepted with it and has not read it yet gets VoiceNotFound. Raises VoiceNotFound,
        NameReserved.
        """
        prefix, found = keys.prepared_prefix(tenant, validate_name(name)), False
        for key in (keys.voice_audio(tenant, name), keys.voice_text(tenant, name)):  # the pointer first
            if _if_there(self._store.head, key) is not None:
                self._store.delete(key)
                found = True
        for info in objects(self._store, prefix):  # listed when nothing can be prepared any more
            self._store.delete(info.key)
            found = True
        if found:
            return
        if name in self._reserved:
            raise NameReserved(f"voice {name!r} is built in and cannot be deleted: name one that was uploaded")
        raise self._unknown(tenant, name)

    def near(self, tenant: str, name: str, others: Iterable[str] = ()) -> Sequence[str]:
        """Names like `name`, of voices that are stored, and of `others`. See `near_voices`."""
        return near_voices(self._store, tenant, name, others)

    def resolve(self, tenant: str, name: str) -> VoiceRef:
        """The voice's present version, without reading it. Raises VoiceNotFound."""
        return VoiceRef(name, self._version(tenant, name, *self._pair(tenant, name)), tenant)

    def load(self, ref: VoiceRef) -> Voice:
        """Read exactly this version; prepare it where that was not done yet. Raises as `load_prepared`, `prepare`."""
        return self.load_prepared(ref) or self.prepare(ref)

    def load_prepared(self, ref: VoiceRef) -> Voice | None:
        """By one GET; None for a version that others put there and nobody has used yet. The waveform is read-only.

        Raises UnusableVoice for what cannot be decoded, ValueError for a voice that is built in.
        """
        if ref.builtin:
            raise ValueError(f"voice {ref.name!r} is built into an engine: it has no audio in the store")
        validate_name(ref.name)
        stored = _if_there(self._store.get, keys.prepared_audio(ref.tenant, ref.name, ref.version))
        return _voice(ref, stored.body) if stored else None

    def prepare(self, ref: VoiceRef) -> Voice:
        """Make a version of what others put there, store it as prepared, and read it. Takes seconds.

        Raises VoiceNotFound; VoiceReplaced where another version is stored; UnusableVoice for what cannot be prepared.
        """
        return _voice(ref, self._prepare_stored(ref))

    def _prepare_stored(self, ref: VoiceRef) -> bytes:
        """Make a version of what others put under `voices/`; the reference, which is stored."""
        tenant, name = ref.tenant, ref.name
        if (size := self._must(self._store.head, tenant, name).size_bytes) > MAX_STORED_BYTES:
            raise UnusableVoice(
                f"voice {name!r} has {size} bytes, at most {MAX_STORED_BYTES} are read: upload a shorter recording"
            )
        text = _if_there(self._store.get, keys.voice_text(tenant, name))  # read before the audio, as in `_pair`
        audio = self._must(self._store.get, tenant, name)
        if self._version(tenant, name, audio.info, text.info if text else None) != ref.version:
            raise VoiceReplaced(f"voice {name!r} was replaced after the request was accepted: send it again")
        said = _transcript(text) if text and not _is_left_over(audio.info, text.info) else ""
        names = Fields(f'"{audio.info.key}"', f'"{keys.voice_text(tenant, name)}"')
        try:
            prepared = self._preparer.prepare(audio.body, said, names=names)
        except InvalidRequest as error:
            raise UnusableVoice(f"voice {name!r} cannot be used: {error.message}") from error
        reference = encode_reference(prepared.audio, prepared.text)
        self._keep(tenant, name, VoiceRecord.of(ref.version, prepared, audio.info.key), reference)
        if _if_there(self._store.head, audio.info.key) is None:  # deleted meanwhile: nothing of it may stay
            self._store.delete(keys.prepared_audio(tenant, name, ref.version))
            self._store.delete(keys.prepared_record(tenant, name, ref.version))
            raise VoiceNotFound(f"voice {name!r} was deleted just now: {HOW_TO_FIND}")
        logs.event("voice_prepared", voice=name, version=ref.version, grade=prepared.report.grade)
        return reference

    def _prepare_what_is_there(self, tenant: str, name: str) -> None:
        """A version that others put there is kept before it is replaced, for requests that were accepted with it."""
        with suppress(VoiceNotFound, VoiceReplaced, UnusableVoice, ObjectCorrupt, Unavailable):
            ref = self.resolve(tenant, name)
            if not self._is_prepared(tenant, name, ref.version):
                self._prepare_stored(ref)

    def _record(self, tenant: str, name: str, version: str) -> VoiceRecord | None:
        key = keys.prepared_record(tenant, name, version)
        stored = _if_there(self._store.get, key)
        return VoiceRecord.from_json(key, stored.body) if stored else None

    def _is_prepared(self, tenant: str, name: str, version: str) -> bool:
        found: ObjectInfo | None = _if_there(self._store.head, keys.prepared_audio(tenant, name, version))
        return found is not None

    def _keep(self, tenant: str, name: str, record: VoiceRecord, reference: bytes) -> None:
        """The record first: where there is audio there is a record."""
        key = keys.prepared_record(tenant, name, record.version)
        self._store.put(key, record.to_json(), content_type="application/json")
        self._store.put(keys.prepared_audio(tenant, name, record.version), reference, content_type=WAV)

    def _version(self, tenant: str, name: str, audio: ObjectInfo, text: ObjectInfo | None) -> str:
        """Of a voice that we prepared and nobody changed: the sha256 of its bytes. Of any other: made of both etags."""
        if audio.sha256 is not None and self._is_prepared(tenant, name, audio.sha256):
            if text is None or text.sha256 is not None:
                return audio.sha256
            record = self._record(tenant, name, audio.sha256)
            replaced = record is not None and record.superseded_text == text.etag
            if replaced and text.last_modified <= audio.last_modified:
                return audio.sha256  # the upload that wrote the audio has not replaced the text yet
        used = text.etag if text and not _is_left_over(audio, text) else "-"
        return hashlib.sha256(f"{audio.etag}\n{used}".encode()).hexdigest()[:32]

    def _pair(self, tenant: str, name: str) -> tuple[ObjectInfo, ObjectInfo | None]:
        """Audio and text as they are described; None for a text that is not there.

        Read in the opposite order of the writes, so that a new text is never seen beside old audio.
        """
        text = _if_there(self._store.head, keys.voice_text(tenant, validate_name(name)))
        return self._must(self._store.head, tenant, name), text

    def _unknown(self, tenant: str, name: str) -> VoiceNotFound:
        near = near_words(self.near(tenant, name, self._reserved))
        return VoiceNotFound(f"voice {name!r} does not exist{near}: {HOW_TO_FIND}")

    def _must(self, read: Callable[[str], T], tenant: str, name: str) -> T:
        audio = _if_there(read, keys.voice_audio(tenant, validate_name(name)))
        if audio is None:
            raise VoiceNotFound(f"voice {name!r} does not exist: {HOW_TO_FIND}")
        return audio

    def _put_text(self, tenant: str, name: str, text: str) -> ObjectInfo:
        key = keys.voice_text(tenant, name)
        return self._store.put(key, text.encode(), content_type="text/plain; charset=utf-8")


def _if_there(read: Callable[[str], T], key: str) -> T | None:
    try:
        return read(key)
    except ObjectNotFound:
        return None


def _is_left_over(audio: ObjectInfo, text: ObjectInfo) -> bool:
    """Whether the text was written by us and the audio beside it by others: then it is of audio that is gone."""
    return text.sha256 is not None and audio.sha256 is None


def _voice(ref: VoiceRef, reference: bytes) -> Voice:
    try:
        audio, text = decode_reference(reference)
    except InvalidAudio as error:
        raise UnusableVoice(f"voice {ref.name!r} cannot be read: {error.message}") from error
    audio.flags.writeable = False  # it is shared by everyone who asks a cache for it
    return Voice(ref, audio, text)


def _transcript(stored: StoredObject) -> str:
    try:
        return stored.body.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UnusableVoice(f'"{stored.info.key}" in the store is not UTF-8 ({error}): save it as UTF-8') from error
