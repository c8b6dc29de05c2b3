"""What every ObjectStore and ConditionalStore must do, asked of memory, of a directory and of a real S3 server."""

import hashlib
import pickle
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from serve_app.errors import (
    InvalidRequest,
    ObjectNotFound,
    UrlRefused,
)
from serve_app.storage import (
    DirectoryStore,
    MemoryStore,
    ObjectStore,
    S3Store,
    UrlSigner,
    probe,
)  # fmt: skip
from tests.support.deadline import DEADLINE_S

WAV = "audio/wav"
Store = MemoryStore | DirectoryStore | S3Store


def keys_of(store: ObjectStore, prefix: str, limit: int) -> tuple[list[str], int]:
    """All keys under `prefix`, read in pages of `limit`, and how many pages that took."""
    keys: list[str] = []
    after, pages = "", 0
    while True:
        page = store.list(prefix, after=after, limit=limit)
        pages += 1
        assert len(page.items) <= limit
        keys += [info.key for info in page.items]
        if page.next_after is None:
            return keys, pages
        after = page.next_after


@pytest.mark.parametrize("body", [b"", b"RIFF", bytes(range(256)) * 20_000], ids=["empty", "small", "5 MB"])
def test_what_was_put_is_what_is_read(store: ObjectStore, prefix: str, body: bytes) -> None:
    """Bytes, size, content type and sha256 come back as they were written."""
    store.put(prefix + "a.wav", body, content_type=WAV)
    stored = store.get(prefix + "a.wav")
    assert stored.body == body
    assert (stored.info.key, stored.info.size_bytes, stored.info.content_type) == (prefix + "a.wav", len(body), WAV)
    assert stored.info.sha256 == hashlib.sha256(body).hexdigest()


def test_put_head_get_and_list_describe_the_same_object(store: ObjectStore, prefix: str) -> None:
    """All four name one etag and size; only a listing may leave out content type and sha256."""
    put = store.put(prefix + "a.wav", b"RIFF", content_type=WAV)
    head, got = store.head(prefix + "a.wav"), store.get(prefix + "a.wav").info
    (listed,) = store.list(prefix).items
    assert head == got
    assert (put.key, put.size_bytes, put.etag, put.content_type, put.sha256) == (
        head.key, head.size_bytes, head.etag, head.content_type, head.sha256
    )  # fmt: skip
    assert (listed.key, listed.size_bytes, listed.etag) == (head.key, head.size_bytes, head.etag)
    assert {info.last_modified.utcoffset() for info in (put, head, listed)} == {timedelta(0)}


@pytest.mark.parametrize(
    "name", ["Anna Müller.wav", "日本/声 1.txt", "a+b&c=d?e.txt", "100%25.txt", "x#y;z.txt", 'it\'s "so".txt']
)
def test_keys_of_any_script_and_with_any_sign_are_kept(store: ObjectStore, prefix: str, name: str) -> None:
    """A key is listed, read and deleted under exactly the name it was written with."""
    store.put(prefix + name, b"x", content_type="text/plain")
    assert [info.key for info in store.list(prefix).items] == [prefix + name]
    assert store.get(prefix + name).body == b"x"
    store.delete(prefix + name)
    assert store.list(prefix).items == []


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "..", "a\0b", "a\\b", "\udcff", "a" * 1025], ids=ascii
)
def test_what_is_no_relative_path_is_refused(store: Store, key: str) -> None:
    """No method takes a key that leaves the store, names nothing, or is too long for S3."""
    calls: list[Callable[[], object]] = [
        lambda: store.put(key, b"", content_type=WAV),
        lambda: store.put_new(key, b"", content_type=WAV),
        lambda: store.get(key),
        lambda: store.head(key),
        lambda: store.delete(key),
        lambda: store.url(key, expires_s=1, filename="a"),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest, match="is not a key"):
            call()


def test_a_missing_object_is_not_found(store: ObjectStore, prefix: str) -> None:
    """get and head say so with the key in the message, also where a longer key exists."""
    store.put(prefix + "voices/anna.wav", b"x", content_type=WAV)
    for key in (prefix + "nothing", prefix + "voices"):
        for method in (store.get, store.head):
            with pytest.raises(ObjectNotFound, match=key):
                method(key)


def test_delete_removes_and_may_be_repeated(store: ObjectStore, prefix: str) -> None:
    """A deleted object is gone from reads and listings, its neighbour stays, and deleting again is no error."""
    for name in ("a", "b"):
        store.put(prefix + name, b"x", content_type=WAV)
    for _ in range(2):
        store.delete(prefix + "a")
        with pytest.raises(ObjectNotFound):
            store.get(prefix + "a")
        assert [info.key for info in store.list(prefix).items] == [prefix + "b"]


def test_overwriting_replaces_everything(store: ObjectStore, prefix: str) -> None:
    """New bytes of the same length bring a new etag, sha256 and content type."""
    first = store.put(prefix + "a", b"old", content_type="text/plain")
    store.put(prefix + "a", b"new", content_type=WAV)
    stored = store.get(prefix + "a")
    assert (stored.body, stored.info.content_type) == (b"new", WAV)
    assert stored.info.sha256 == hashlib.sha256(b"new").hexdigest()
    assert stored.info.etag != first.etag


def test_a_listing_holds_the_prefix_and_nothing_else(store: ObjectStore, prefix: str) -> None:
    """Keys that start with the prefix, folders below included, in order; a prefix may end within a name."""
    for name in ("voices/anna.wav", "voices/anna.txt", "voices/bob.wav", "voices2/x", "jobs/0/id/request.json"):
        store.put(prefix + name, b"x", content_type=WAV)

    def listed(text: str, after: str = "") -> list[str]:
        page = store.list(prefix + text, after=prefix + after if after else "")
        assert page.next_after is None
        return [info.key.removeprefix(prefix) for info in page.items]

    assert listed("voices/") == ["voices/anna.txt", "voices/anna.wav", "voices/bob.wav"]
    assert listed("voices/an") == ["voices/anna.txt", "voices/anna.wav"]
    assert listed("jobs/") == ["jobs/0/id/request.json"]
    assert listed("voices/", after="voices/anna.txt") == ["voices/anna.wav", "voices/bob.wav"]
    assert listed("voices/", after="voices/annb") == ["voices/bob.wav"]
    assert listed("voices/", after="voices/zoe") == []
    assert listed("nothing/") == []


def test_paging_reads_every_key_once_in_order(store: ObjectStore, prefix: str) -> None:
    """Pages of 7 over 20 keys in three folders are 3, and a page that ends with the last key says so."""
    keys = sorted(f"{prefix}{folder}/{n:03}" for n in range(20) for folder in "abc"[n % 3])
    for key in keys:
        store.put(key, b"", content_type=WAV)
    assert keys_of(store, prefix, 7) == (keys, 3)
    assert keys_of(store, prefix, 10) == (keys, 2)
    assert keys_of(store, prefix, 20) == (keys, 1)


def test_paging_through_2500_keys_in_memory(memory_store: ObjectStore) -> None:
    """2,500 keys are three pages of 1,000."""
    keys = [f"jobs/{n % 16:x}/{n:05}" for n in range(2500)]
    for key in keys:
        memory_store.put(key, b"", content_type=WAV)
    assert keys_of(memory_store, "jobs/", 1000) == (sorted(keys), 3)


def test_paging_through_2500_files_of_a_directory(directory_store: ObjectStore, tmp_path: Path) -> None:
    """2,500 files, dropped in by hand, are three pages of 1,000."""
    keys = [f"jobs/{n % 16:x}/{n:05}" for n in range(2500)]
    for key in keys:
        path = tmp_path / "store" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert keys_of(directory_store, "jobs/", 1000) == (sorted(keys), 3)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_order_is_by_code_points_over_the_whole_key(local_store: ObjectStore, limit: int) -> None:
    """As at AWS, a slash sorts as the character it is. SeaweedFS 4.48 is not asked: it lists folder by folder."""
    keys = ["a b/x", "a.txt", "a/b/c", "a/b0", "a0", "ab/x", "b", "ä", "声/x", "🎙"]
    for key in reversed(keys):
        local_store.put(key, b"", content_type=WAV)
    assert keys_of(local_store, "", limit)[0] == keys
    assert [info.key for info in local_store.list("", after="a/b/").items] == keys[2:]
    assert [info.key for info in local_store.list("a", after="a/b/c").items] == keys[3:6]


def test_concurrent_writers_leave_one_whole_object(store: ObjectStore, prefix: str) -> None:
    """Readers beside 4 writers of one key see whole objects only, and at the end one writer's, with its sha256."""
    bodies = {bytes([65 + writer]) * 100_000 for writer in range(4)}
    store.put(prefix + "a", b"A" * 100_000, content_type=WAV)
    done = threading.Event()

    def write(body: bytes) -> None:
        for _ in range(10):
            store.put(prefix + "a", body, content_type=WAV)

    def read() -> int:
        reads = 0
        while not done.is_set() or reads == 0:
            stored = store.get(prefix + "a")  # checks the sha256
            assert stored.body in bodies
            assert stored.info.sha256 is not None
            reads += 1
        return reads

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        writers = [pool.submit(write, body) for body in bodies]
        for writer in writers:
            writer.result()
        done.set()
        assert min(reader.result() for reader in readers) >= 1
    last = store.get(prefix + "a")
    assert last.body in bodies
    assert last.info.sha256 == hashlib.sha256(last.body).hexdigest()


def test_a_url_of_s3_reads_without_credentials(s3_store: S3Store, prefix: str) -> None:
    """Whoever holds the presigned URL gets the bytes, with the name to save them under."""
    s3_store.put(prefix + "ä b.wav", b"RIFF", content_type=WAV)
    url = s3_store.url(prefix + "ä b.wav", expires_s=60, filename='Anna "Ä".wav')
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        assert answer.read() == b"RIFF"
        assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''Anna%20%22%C3%84%22.wav"
        assert answer.headers["Content-Type"] == WAV


def test_a_local_url_is_one_that_the_signer_accepts(local_store: ObjectStore, signer: UrlSigner) -> None:
    """Its decoded path, expiry, filename and signature verify for that key and for no other."""
    parts = urlsplit(local_store.url("audio/ä b.wav", expires_s=60, filename="Anna & Bob.wav"))
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert (parts.scheme, unquote(parts.path)) == ("", "/files/audio/ä b.wav")
    assert query["filename"] == "Anna & Bob.wav"
    signer.verify("audio/ä b.wav", **query)
    with pytest.raises(UrlRefused):
        signer.verify("audio/other.wav", **query)


@pytest.mark.parametrize("kind", ["directory", "s3"])
def test_a_store_crosses_processes(request: pytest.FixtureRequest, prefix: str, kind: str) -> None:
    """A pickled copy, taken after use, reads what the original wrote."""
    store: DirectoryStore | S3Store = request.getfixturevalue(f"{kind}_store")
    store.put(prefix + "a", b"x", content_type=WAV)
    assert pickle.loads(pickle.dumps(store)).get(prefix + "a").body == b"x"


def test_the_probe_passes_and_leaves_nothing(store: ObjectStore) -> None:
    """A store that works is accepted and holds no object of the probe afterwards."""
    probe(store)
    assert store.list(".probe/").items == []
