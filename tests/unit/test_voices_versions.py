"""Versions of a voice: which one a name has, that it never tears and never changes."""

import hashlib
import json

import numpy as np
import pytest

from serve_app.audio import decode_reference
from serve_app.domain import BUILTIN, DEFAULT_TENANT, VoiceRef
from serve_app.errors import (
    Conflict,
    ObjectCorrupt,
    VoiceNotFound,
)
from serve_app.voices import Upload, VoiceLibrary
from tests.support.preparing import PlainPreparer
from tests.support.voices import WatchedStore, say, tone, wav

TENANT = DEFAULT_TENANT


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
def preparer() -> PlainPreparer:
    return PlainPreparer()


@pytest.fixture
def library(store: WatchedStore, preparer: PlainPreparer) -> VoiceLibrary:
    return VoiceLibrary(store, preparer)


def test_a_version_is_the_digest_of_one_object_with_audio_and_text(store: WatchedStore, library: VoiceLibrary) -> None:
    """What models are given, under a key that holds its sha256; the same bytes are the pointer."""
    library.create(TENANT, "anna", Upload(wav(330), "Hello."))
    ref = library.resolve(TENANT, "anna")
    body = store.get("voices/anna.wav").body
    assert ref == VoiceRef("anna", hashlib.sha256(body).hexdigest(), TENANT)
    assert store.get(f"prepared/anna/{ref.version}.wav").body == body
    audio, text = decode_reference(body)
    assert text == "Hello."
    np.testing.assert_allclose(audio, tone(330), atol=1e-3)


def test_a_version_is_resolved_by_heads_and_read_by_one_get(store: WatchedStore, library: VoiceLibrary) -> None:
    """Nothing else is asked of the store; what was uploaded comes back, and cannot be changed."""
    library.create(TENANT, "anna", Upload(wav(330), "Hello."))
    store.calls.clear()
    ref = library.resolve(TENANT, "anna")
    assert {verb for verb, _ in store.calls} == {"head"}
    store.calls.clear()
    voice = library.load(ref)
    assert store.calls == [("get", f"prepared/anna/{ref.version}.wav")]
    assert (voice.ref, voice.text, str(voice.audio.dtype)) == (ref, "Hello.", "float32")
    with pytest.raises(ValueError, match="read-only"):
        voice.audio[0] = 1.0


def test_the_same_recording_and_text_are_the_same_version(library: VoiceLibrary) -> None:
    """Whenever, and under whichever labels; another text is another version."""
    versions = []
    for text, consent in (("Hello.", ""), ("Hello.", "Anna agreed."), ("Hallo.", "")):
        library.create(TENANT, "anna", Upload(wav(), text, consent=consent))
        versions.append(library.resolve(TENANT, "anna").version)
    assert versions[0] == versions[1] != versions[2]


def test_a_replaced_version_stays_for_who_was_accepted_with_it(library: VoiceLibrary) -> None:
    """Until the voice is deleted."""
    library.create(TENANT, "anna", Upload(wav(seconds=1), "One."))
    old = library.resolve(TENANT, "anna")
    library.create(TENANT, "anna", Upload(wav(seconds=2), "Two."))
    assert (say(library, old), say(library, library.resolve(TENANT, "anna"))) == ((1, "One."), (2, "Two."))
    library.delete(TENANT, "anna")
    with pytest.raises(VoiceNotFound, match="'anna'"):
        library.load(old)


def test_a_reader_meets_the_old_voice_or_the_new_one(store: WatchedStore, library: VoiceLibrary) -> None:
    """After each write of a replacement and of a deletion: never audio with another text, nor without its own."""
    library.create(TENANT, "anna", Upload(wav(seconds=1), "One."))
    seen: list[tuple[int, str] | None] = []

    def look() -> None:
        try:
            seen.append(say(library, library.resolve(TENANT, "anna")))
        except VoiceNotFound:
            seen.append(None)

    store.after_write = look
    library.create(TENANT, "anna", Upload(wav(seconds=2), "Two."))
    library.delete(TENANT, "anna")
    assert list(dict.fromkeys(seen)) == [(1, "One."), (2, "Two."), None]
    assert store.list("").items == []


def test_uploads_that_cross_are_noticed(store: WatchedStore, library: VoiceLibrary) -> None:
    """Whoever ends last and finds another's voice in place of its own gets a Conflict; the voice is whole."""
    other = VoiceLibrary(store, PlainPreparer())

    def interfere() -> None:
        if store.calls[-1] == ("put", "voices/anna.wav"):
            store.after_write = lambda: None
            other.create(TENANT, "anna", Upload(wav(seconds=2), "Two."))

    store.after_write = interfere
    with pytest.raises(Conflict, match="'anna'"):
        library.create(TENANT, "anna", Upload(wav(seconds=1), "One."))
    assert say(library, library.resolve(TENANT, "anna")) == (2, "Two.")


def test_what_is_known_of_a_version_is_kept_beside_it(store: WatchedStore, library: VoiceLibrary) -> None:
    """Language, labels, consent, source and what preparation did; of the present version only."""
    labels = {"accent": "Scottish"}
    created = library.create(TENANT, "anna", Upload(wav(220), "Hello.", "en", " Anna agreed. ", labels))
    assert library.get(TENANT, "anna") == created
    record = created.record
    assert record is not None
    assert (record.version, record.text) == (library.resolve(TENANT, "anna").version, "Hello.")
    assert (record.language, record.consent, record.labels, record.source) == ("en", "Anna agreed.", labels, "upload")
    assert record.report["grade"] == "good"
    assert record.created.endswith("+00:00")
    assert json.loads(store.get(f"prepared/anna/{record.version}.v1.json").body)["schema"] == 1
    library.create(TENANT, "anna", Upload(wav(330), "Hello."))
    replaced = library.get(TENANT, "anna").record
    assert replaced is not None
    assert (replaced.consent, replaced.labels) == ("", {})


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"schema": 2}', b'{"schema": 1, "version": "v"}'])
def test_a_record_that_is_none_is_told(store: WatchedStore, library: VoiceLibrary, body: bytes) -> None:
    """ObjectCorrupt names the object."""
    library.create(TENANT, "anna", Upload(wav(), "Hello."))
    key = f"prepared/anna/{library.resolve(TENANT, 'anna').version}.v1.json"
    store.put(key, body, content_type="")
    with pytest.raises(ObjectCorrupt, match=key):
        library.get(TENANT, "anna")


def test_a_built_in_voice_is_not_in_the_store(store: WatchedStore, library: VoiceLibrary) -> None:
    """Asking for one is a defect of the caller, told before the store is asked."""
    with pytest.raises(ValueError, match="built into an engine"):
        library.load(VoiceRef("heart", BUILTIN))
    assert store.calls == []
