"""The library of voices: what it writes and in which order, what it lists, and which version it reads."""

import io
import wave
from collections.abc import Callable
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import DEFAULT_TENANT, VoiceRef
from serve_app.errors import (
    InvalidAudio,
    InvalidRequest,
    InvalidVoiceName,
    NameReserved,
    StorageDenied,
    VoiceNotFound,
)
from serve_app.preparation import Fields
from serve_app.storage import MemoryStore
from serve_app.voices import Upload, VoiceDetails, VoiceInfo, VoiceLibrary, VoicePage, from_file_name, validate_name
from tests.support.preparing import PlainPreparer
from tests.support.voices import WatchedStore, wav

TENANT = DEFAULT_TENANT


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
def library(store: WatchedStore) -> VoiceLibrary:
    return VoiceLibrary(store, PlainPreparer(), reserved={"heart"})


def stereo_wav_44100(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(3)
        writer.setframerate(44_100)
        writer.writeframes(bytes(6 * round(44_100 * seconds)))
    return file.getvalue()


def test_names_that_are_names() -> None:
    """Letters, digits, _ and - after a letter or digit, up to 64 characters, come back as they are."""
    for name in ("a", "7", "Anna_2-b", "a" * 64):
        assert validate_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "_a", "-a", "a.b", "a b", "a/b", "..", "../x", "a\n", "ä", "٣", "a" * 65, "anna.wav", "a\0"]
)
def test_names_that_are_none(name: str) -> None:
    """Anything else is refused with the field, the value and the pattern."""
    with pytest.raises(InvalidVoiceName) as error:
        validate_name(name, field="input.local_voice")
    assert error.value.message.startswith(f"input.local_voice {name!r} ")
    assert "[A-Za-z0-9][A-Za-z0-9_-]{0,63}" in error.value.message


def test_a_wrong_name_is_not_echoed_whole() -> None:
    """A megabyte of name does not come back in the message."""
    with pytest.raises(InvalidVoiceName) as error:
        validate_name("x" * 1_000_000)
    assert len(error.value.message) < 300


def test_a_file_name_is_a_name_with_wav() -> None:
    """One `.wav` is dropped, not two, and nothing else."""
    assert [from_file_name("anna"), from_file_name("anna.wav")] == ["anna", "anna"]
    for name in ("anna.wav.wav", "anna.WAV", "anna.mp3", "my voice.wav", ".wav"):
        with pytest.raises(InvalidVoiceName, match="voice"):
            from_file_name(name)


def test_an_upload_is_stored_in_canonical_form(store: WatchedStore, library: VoiceLibrary) -> None:
    """Whatever comes in, the old layout's keys hold mono 24 kHz 16-bit WAV and stripped UTF-8 text."""
    info = library.create(TENANT, "anna", Upload(stereo_wav_44100(2.0), "  Grüße, 世界.\n")).info
    stored = store.get("voices/anna.wav")
    with wave.open(io.BytesIO(stored.body)) as reader:
        assert (reader.getnchannels(), reader.getframerate(), reader.getsampwidth()) == (1, 24_000, 2)
        assert reader.getnframes() == 48_000
    assert stored.info.content_type == "audio/wav"
    assert store.get("voices/anna.txt").body == "Grüße, 世界.".encode()
    assert info == VoiceInfo("anna", "anna.wav", "anna.txt", len(stored.body), stored.info.last_modified)
    assert [item.key for item in store.list("voices/").items] == ["voices/anna.txt", "voices/anna.wav"]


def test_tenants_do_not_see_each_other(store: WatchedStore, library: VoiceLibrary) -> None:
    """Another tenant's voice lies under its own prefix and is not found by others."""
    library.create("acme", "anna", Upload(wav(), "Hello."))
    assert len(store.list("").items) == 4
    assert all(item.key.startswith("tenants/acme/") for item in store.list("").items)
    assert library.resolve("acme", "anna").tenant == "acme"
    assert library.list(TENANT).items == ()
    with pytest.raises(VoiceNotFound):
        library.get(TENANT, "anna")


@pytest.mark.parametrize(
    ("audio", "words"),
    [(b"", "audio_sample is empty"), (b"no audio", "audio_sample"), (wav(seconds=0.49), "audio_sample is 0.49 s long")],
)
def test_what_is_no_recording_is_refused(store: WatchedStore, library: VoiceLibrary, audio: bytes, words: str) -> None:
    """InvalidAudio names the field, and nothing was written."""
    with pytest.raises(InvalidAudio, match=words):
        library.create(TENANT, "anna", Upload(audio, "Hello.", names=Fields("audio_sample")))
    assert store.calls == []


def test_half_a_second_is_enough(library: VoiceLibrary) -> None:
    """The shortest voice is 0.5 s, not more."""
    assert library.create(TENANT, "anna", Upload(wav(seconds=0.5), "")).info.name == "anna"


def test_names_of_built_in_voices_are_reserved(store: WatchedStore, library: VoiceLibrary) -> None:
    """Neither overwritten nor deleted."""
    with pytest.raises(NameReserved, match="'heart'"):
        library.create(TENANT, "heart", Upload(wav(), ""))
    with pytest.raises(NameReserved, match="'heart'"):
        library.delete(TENANT, "heart")
    assert store.list("").items == []


def test_a_replaced_voice_does_not_keep_the_old_text(store: WatchedStore, library: VoiceLibrary) -> None:
    """An upload without text empties the text of the voice that it replaces."""
    library.create(TENANT, "anna", Upload(wav(220), "Old text."))
    info = library.create(TENANT, "anna", Upload(wav(330), " ")).info
    assert info.text_file is None
    assert store.get("voices/anna.txt").body == b""
    assert library.load(library.resolve(TENANT, "anna")).text == ""


NAMES = st.from_regex("[ab0A][ab0A_-]{0,2}", fullmatch=True)
FOREIGN = ["voices/my voice.wav", "voices/a/b.wav", "voices/a.mp3", "voices/a.b.wav", "voices/.wav", "voices/a.v1.json"]


@given(
    audio=st.dictionaries(NAMES, st.sampled_from([None, b"", b"text"]), max_size=12),
    texts=st.sets(NAMES, max_size=4),
    foreign=st.sets(st.sampled_from(FOREIGN)),
    limit=st.integers(1, 5),
)
def test_pages_neither_lose_nor_repeat(
    audio: dict[str, bytes | None], texts: set[str], foreign: set[str], limit: int
) -> None:
    """Following `next_after` gives each voice once, in key order, and says rightly which have text."""
    store = MemoryStore()
    for key in foreign:
        store.put(key, b"x", content_type="")
    for name in texts - set(audio):
        store.put(f"voices/{name}.txt", b"an orphan", content_type="")
    for name, text in audio.items():
        store.put(f"voices/{name}.wav", b"wav", content_type="")
        if text is not None:
            store.put(f"voices/{name}.txt", text, content_type="")
    library = VoiceLibrary(store, PlainPreparer())
    listed: list[VoiceInfo] = []
    after: str | None = ""
    for _ in range(max(1, -(-len(audio) // limit))):  # pages that it takes
        assert after is not None
        page = library.list(TENANT, after=after, limit=limit)
        listed += page.items
        after = page.next_after
    assert after is None
    expected = sorted(audio, key=lambda name: f"{name}.wav")
    assert [(voice.name, voice.text_file) for voice in listed] == [
        (name, f"{name}.txt" if audio[name] else None) for name in expected
    ]


def test_a_page_is_found_behind_many_other_objects() -> None:
    """Objects that are no voices fill whole pages of the store's own listing, and cost no voice."""
    store = MemoryStore()
    for number in range(1500):
        store.put(f"voices/a old recording {number}.wav", b"x", content_type="")
    stored = store.put("voices/z.wav", b"wav", content_type="")
    expected = VoiceInfo("z", "z.wav", None, 3, stored.last_modified)
    assert VoiceLibrary(store, PlainPreparer()).list(TENANT, limit=1) == VoicePage((expected,), None)


def test_ten_thousand_voices() -> None:
    """Each comes once, in pages of any size that is asked for."""
    store = MemoryStore()
    for number in range(10_000):
        for suffix in ("txt", "wav"):
            store.put(f"voices/v{number}.{suffix}", b"x", content_type="")
    library, names, after = VoiceLibrary(store, PlainPreparer()), [], ""
    for limit in cycle((1000, 777)):
        page = library.list(TENANT, after=after, limit=limit)
        names += [voice.name for voice in page.items]
        if page.next_after is None:
            break
        after = page.next_after
    assert names == sorted((f"v{number}" for number in range(10_000)), key=lambda name: f"{name}.wav")


def test_a_page_may_begin_behind_a_voice_that_is_gone(library: VoiceLibrary) -> None:
    """`after` is a place in the order, not a voice that must exist."""
    for name in ("a", "c"):
        library.create(TENANT, name, Upload(wav(), ""))
    assert [voice.name for voice in library.list(TENANT, after="b").items] == ["c"]


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_range_is_refused(library: VoiceLibrary, limit: int) -> None:
    """With the value and the range."""
    with pytest.raises(InvalidRequest, match=f"limit is {limit}: send 1 to 1000"):
        library.list(TENANT, limit=limit)


def test_after_must_be_a_name(library: VoiceLibrary) -> None:
    """A wrong `after` is refused rather than read as some place in the store."""
    with pytest.raises(InvalidVoiceName, match=r"after '\.\./x'"):
        library.list(TENANT, after="../x")


def test_a_voice_of_the_old_worker_is_described(store: WatchedStore, library: VoiceLibrary) -> None:
    """By size and time of its audio; a missing text file is None."""
    stored = store.put("voices/anna.wav", b"123456", content_type="")
    info = VoiceInfo("anna", "anna.wav", None, 6, stored.last_modified)
    assert library.get(TENANT, "anna") == VoiceDetails(info, None)


def test_what_is_not_there_is_not_found(library: VoiceLibrary) -> None:
    """VoiceNotFound names the voice, and how to list and upload."""
    for call in (library.get, library.delete, library.resolve):
        with pytest.raises(VoiceNotFound, match=r"'anna' .* GET /v1/audio/voices, .* POST /v1/audio/voices"):
            call(TENANT, "anna")
    with pytest.raises(VoiceNotFound, match="'anna'"):
        library.load(VoiceRef("anna", "0" * 32))


def test_text_that_was_left_over_can_be_deleted(store: WatchedStore, library: VoiceLibrary) -> None:
    """Deleting what has only a text removes it."""
    store.put("voices/anna.txt", b"left over", content_type="")
    library.delete(TENANT, "anna")
    assert store.list("").items == []


def test_no_key_is_made_of_a_name_that_was_not_checked(store: WatchedStore, library: VoiceLibrary) -> None:
    """Every method refuses a name that leads out of the folder, before it asks the store."""
    name = "../secret"
    calls: list[Callable[[], object]] = [
        lambda: library.create(TENANT, name, Upload(wav(), "")),
        lambda: library.get(TENANT, name),
        lambda: library.delete(TENANT, name),
        lambda: library.resolve(TENANT, name),
        lambda: library.load(VoiceRef(name, "0" * 32)),
    ]
    for call in calls:
        with pytest.raises(InvalidVoiceName):
            call()
    assert store.calls == []


def test_a_refusal_does_not_end_as_a_deletion(store: WatchedStore, library: VoiceLibrary) -> None:
    """Where it cannot be seen whether the voice is there, deleting it raises StorageDenied, not VoiceNotFound."""
    store.denied = ".wav"
    with pytest.raises(StorageDenied):
        library.delete(TENANT, "anna")
