"""Voices that the old worker or a person put into the store: their versions, and how they are made ready."""

import hashlib
from typing import Any

import numpy as np
import pytest

from serve_app.domain import DEFAULT_TENANT
from serve_app.errors import (
    InvalidTranscript,
    StorageDenied,
    UnusableVoice,
    VoiceNotFound,
    VoiceReplaced,
)
from serve_app.preparation import Fields, Prepared
from serve_app.voices import Upload, VoiceLibrary
from tests.support.preparing import PlainPreparer
from tests.support.voices import WatchedStore, say, wav

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


def test_a_voice_of_the_old_worker_is_prepared_once(
    store: WatchedStore, library: VoiceLibrary, preparer: PlainPreparer
) -> None:
    """At its first use, from one GET of the audio and one of the text; from then on it is read as any other."""
    audio = store.put_by_others("voices/anna.wav", wav(330))
    text = store.put_by_others("voices/anna.txt", b"\xef\xbb\xbf Hello. \r\n")
    ref = library.resolve(TENANT, "anna")
    assert ref.version == hashlib.sha256(f"{audio.etag}\n{text.etag}".encode()).hexdigest()[:32]
    assert library.get(TENANT, "anna").record is None
    store.calls.clear()
    first = library.load(ref)
    prepared = f"prepared/anna/{ref.version}.wav"
    gets = [key for verb, key in store.calls if verb == "get"]
    assert gets == [prepared, "voices/anna.txt", "voices/anna.wav"]
    again = library.load(ref)
    assert (first.text, preparer.calls) == ("Hello.", 1)
    np.testing.assert_array_equal(first.audio, again.audio)
    assert store.get("voices/anna.wav").info == audio  # untouched
    record = library.get(TENANT, "anna").record
    assert record is not None
    assert (record.source, record.version) == ("voices/anna.wav", ref.version)
    assert library.resolve(TENANT, "anna") == ref


@pytest.mark.parametrize("key", ["voices/anna.wav", "voices/anna.txt"])
def test_a_voice_of_ours_that_others_change_is_another_version(
    store: WatchedStore, library: VoiceLibrary, key: str
) -> None:
    """A text corrected by hand is taken; audio put in place of ours is not given our text."""
    library.create(TENANT, "anna", Upload(wav(seconds=1), "Hello."))
    old = library.resolve(TENANT, "anna")
    store.put_by_others(key, wav(seconds=2) if key.endswith("wav") else b"Corrected.")
    new = library.resolve(TENANT, "anna")
    assert new.version != old.version
    assert say(library, new) == ((2, "") if key.endswith("wav") else (1, "Corrected."))
    assert say(library, old) == (1, "Hello.")


def test_a_version_of_others_that_was_never_read_is_kept_at_its_replacement(
    store: WatchedStore, library: VoiceLibrary
) -> None:
    """A request that was accepted with it still speaks with it."""
    store.put_by_others("voices/anna.wav", wav(seconds=1))
    store.put_by_others("voices/anna.txt", b"One.")
    old = library.resolve(TENANT, "anna")
    library.create(TENANT, "anna", Upload(wav(seconds=2), "Two."))
    assert (say(library, old), say(library, library.resolve(TENANT, "anna"))) == ((1, "One."), (2, "Two."))


def test_a_failed_replacement_leaves_the_voice_of_others_as_it_was(store: WatchedStore, library: VoiceLibrary) -> None:
    """The pointer could not be written: audio and text are still those that were there."""
    store.put_by_others("voices/anna.wav", wav(seconds=1))
    store.put_by_others("voices/anna.txt", b"One.")
    before = library.resolve(TENANT, "anna")
    store.unwritable = "voices/anna.wav"
    with pytest.raises(StorageDenied):
        library.create(TENANT, "anna", Upload(wav(seconds=2), "Two."))
    assert library.resolve(TENANT, "anna") == before
    assert say(library, before) == (1, "One.")


def test_a_replacement_of_a_voice_of_others_never_tears(store: WatchedStore, library: VoiceLibrary) -> None:
    """Also where the writer dies between the new audio and its text, beside which the old text still lies."""
    store.put_by_others("voices/anna.wav", wav(seconds=1))
    store.put_by_others("voices/anna.txt", b"One.")
    store.unwritable = "voices/anna.txt"
    with pytest.raises(StorageDenied):
        library.create(TENANT, "anna", Upload(wav(seconds=2), "Two."))
    assert say(library, library.resolve(TENANT, "anna")) == (2, "Two.")
    store.unwritable = ""
    store.put_by_others("voices/anna.txt", b"Corrected.")
    assert say(library, library.resolve(TENANT, "anna")) == (2, "Corrected.")


def test_a_correction_that_is_put_back_is_taken(store: WatchedStore, library: VoiceLibrary) -> None:
    """The text that an upload replaced, written again after it, is no remnant."""
    store.put_by_others("voices/anna.wav", wav(seconds=1))
    store.put_by_others("voices/anna.txt", b"One.")
    library.create(TENANT, "anna", Upload(wav(seconds=2), "Two."))
    store.put_by_others("voices/anna.txt", b"One.")
    assert say(library, library.resolve(TENANT, "anna")) == (2, "One.")


def test_a_voice_that_is_deleted_while_it_is_prepared_stays_deleted(store: WatchedStore) -> None:
    """What preparation has just stored goes again."""

    class Slow(PlainPreparer):
        def prepare(self, recording: bytes, text: str, **options: Any) -> Prepared:
            VoiceLibrary(store, PlainPreparer()).delete(TENANT, "anna")
            return super().prepare(recording, text, **options)

    store.put_by_others("voices/anna.wav", wav())
    library = VoiceLibrary(store, Slow())
    with pytest.raises(VoiceNotFound, match="deleted just now"):
        library.load(library.resolve(TENANT, "anna"))
    assert store.list("").items == []


@pytest.mark.parametrize(("key", "body"), [("voices/anna.wav", wav(330)), ("voices/anna.txt", b"Other text.")])
def test_a_version_of_others_that_others_replaced_is_gone(
    store: WatchedStore, library: VoiceLibrary, key: str, body: bytes
) -> None:
    """VoiceReplaced; the new version is read."""
    store.put_by_others("voices/anna.wav", wav(220))
    store.put_by_others("voices/anna.txt", b"Hello.")
    old = library.resolve(TENANT, "anna")
    store.put_by_others(key, body)
    with pytest.raises(VoiceReplaced, match="'anna'"):
        library.load(old)
    new = library.resolve(TENANT, "anna")
    assert library.load(new).ref == new


@pytest.mark.parametrize(
    ("audio", "text", "words"),
    [(b"no audio", b"Hello.", "voices/anna.wav"), (wav(), "Grüße".encode("latin-1"), "voices/anna.txt")],
)
def test_a_voice_of_others_that_cannot_be_read_is_unusable(
    store: WatchedStore, library: VoiceLibrary, audio: bytes, text: bytes, words: str
) -> None:
    """UnusableVoice names the object; it is not the request's audio that is at fault. It can be replaced."""
    store.put_by_others("voices/anna.wav", audio)
    store.put_by_others("voices/anna.txt", text)
    with pytest.raises(UnusableVoice, match=words):
        library.load(library.resolve(TENANT, "anna"))
    library.create(TENANT, "anna", Upload(wav(), "Hello."))
    assert say(library, library.resolve(TENANT, "anna")) == (1, "Hello.")


def test_a_text_that_is_not_said_in_a_stored_recording(store: WatchedStore) -> None:
    """What preparation refuses of a stored voice names the objects, and nothing is stored."""

    class Strict(PlainPreparer):
        def prepare(self, recording: bytes, text: str, *, language: str | None = None, names: Fields = Fields()):  # noqa: B008
            raise InvalidTranscript(f"{names.text} is not what is said in {names.audio}")

    store.put_by_others("voices/anna.wav", wav())
    library = VoiceLibrary(store, Strict())
    words = r"'anna' cannot be used: \"voices/anna.txt\" is not what is said in \"voices/anna.wav\""
    with pytest.raises(UnusableVoice, match=words):
        library.load(library.resolve(TENANT, "anna"))
    assert [item.key for item in store.list("").items] == ["voices/anna.wav"]


@pytest.mark.parametrize("suffix", [".wav", ".txt"])
def test_a_refusal_of_the_store_is_not_a_missing_voice(store: WatchedStore, library: VoiceLibrary, suffix: str) -> None:
    """A 403 stays StorageDenied, for the audio and for the text, in every method that reads."""
    store.put_by_others("voices/anna.wav", wav())
    store.put_by_others("voices/anna.txt", b"Hello.")
    ref = library.resolve(TENANT, "anna")
    store.denied = suffix
    for call in (library.get, library.resolve):
        with pytest.raises(StorageDenied):
            call(TENANT, "anna")
    with pytest.raises(StorageDenied):
        library.load(ref)
