"""DirectoryStore: what is particular to files: crashes, races, files dropped in by hand, and what hides in the root."""

import hashlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from serve_app.errors import (
    ConfigError,
    InvalidRequest,
    ObjectCorrupt,
)
from serve_app.storage import DirectoryStore, UrlSigner

TEXT = "text/plain"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(root: Path) -> DirectoryStore:
    return DirectoryStore(root, UrlSigner(b"key"))


def files_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_the_root_must_be_absolute() -> None:
    """A relative DATA_DIR would be another directory in each replica."""
    with pytest.raises(ConfigError, match="DATA_DIR is 'data'"):
        DirectoryStore(Path("data"), UrlSigner(b"key"))


def test_an_object_is_a_plain_file(store: DirectoryStore, root: Path) -> None:
    """Its bytes lie at its key's path, one description beside it, and no temporary file is left."""
    store.put("voices/anna.wav", b"one", content_type=TEXT)
    store.put("voices/anna.wav", b"two", content_type=TEXT)
    assert (root / "voices/anna.wav").read_bytes() == b"two"
    assert files_in(root / ".tmp") == []
    assert len(files_in(root / ".meta")) == 1


def test_a_file_dropped_in_by_hand_is_an_object(store: DirectoryStore, root: Path) -> None:
    """It is listed and read, without a sha256, since nobody recorded one."""
    (root / "voices").mkdir(parents=True)
    (root / "voices/anna.wav").write_bytes(b"RIFF")
    stored = store.get("voices/anna.wav")
    assert (stored.body, stored.info.sha256) == (b"RIFF", None)
    assert store.list("voices/").items == [store.head("voices/anna.wav")]


def test_a_file_changed_by_hand_loses_its_sha256_and_changes_its_etag(store: DirectoryStore, root: Path) -> None:
    """The description of the old bytes is not applied to the new ones, although they are as many."""
    before = store.put("a", b"old", content_type="audio/wav")
    (root / "a").write_bytes(b"new")
    after = store.get("a")
    assert (after.body, after.info.sha256, after.info.content_type) == (b"new", None, "application/octet-stream")
    assert after.info.etag != before.etag


def test_another_file_of_the_same_size_and_time_has_another_etag(store: DirectoryStore, root: Path) -> None:
    """As when files unpacked from an archive, all with one modification time, are moved over each other."""
    for name in ("a", "b"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(name.encode())
        os.utime(root / name, ns=(1, 1))
    before = store.head("a").etag
    (root / "b").replace(root / "a")
    assert store.head("a").etag != before


def test_bytes_that_changed_on_the_disk_are_corrupt(store: DirectoryStore, root: Path) -> None:
    """Another content with the size and time of the old one, as bit rot leaves it, does not pass."""
    store.put("a", b"old", content_type=TEXT)
    status = (root / "a").stat()
    (root / "a").write_bytes(b"rot")
    os.utime(root / "a", ns=(status.st_mtime_ns, status.st_mtime_ns))
    with pytest.raises(ObjectCorrupt, match=hashlib.sha256(b"old").hexdigest()):
        store.get("a")


def test_put_is_on_the_disk_before_it_returns(
    monkeypatch: pytest.MonkeyPatch, store: DirectoryStore, root: Path
) -> None:
    """The bytes are synced before the rename that shows them, and behind it each directory up to the root."""
    replace, fsync = Path.replace, os.fsync
    events: list[int | str] = []

    def record_fsync(handle: int) -> None:
        events.append(os.fstat(handle).st_ino)
        fsync(handle)

    def record_replace(self: Path, target: Path) -> Path:
        replaced = replace(self, target)
        events.append(target.name)
        return replaced

    def synced_behind(key: str) -> list[int | str]:
        store.put(key, b"x", content_type=TEXT)
        name = key.rsplit("/")[-1]
        before, behind = events[: events.index(name)], events[events.index(name) :]
        assert (root / key).stat().st_ino in before
        return behind[1:]

    def inodes(*names: str) -> list[int]:
        return [(root / name).stat().st_ino for name in names]

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    assert synced_behind("a/b/c") == inodes("a/b", "a", "")
    assert synced_behind("a/b/d") == inodes("a/b", "a")  # the root has `a` for good: no delete removes it
    assert synced_behind("a/new/e") == inodes("a/new", "a", "")
    shutil.rmtree(root / "a")  # by hand
    assert synced_behind("a/b/f") == inodes("a/b", "a", "")


@pytest.mark.parametrize("renames", [0, 1])
def test_a_crash_leaves_the_old_object_whole(
    monkeypatch: pytest.MonkeyPatch, store: DirectoryStore, root: Path, renames: int
) -> None:
    """Ended before either rename of a put, bytes, sha256 and content type are still the old ones."""
    store.put("a", b"old", content_type="audio/wav")
    replace, left = Path.replace, list(range(renames))

    def crash(self: Path, target: Path) -> Path:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)  # nothing is cleaned up in a crash
        with pytest.raises(KeyboardInterrupt):
            store.put("a", b"new", content_type=TEXT)
    stored = store.get("a")
    assert (stored.body, stored.info.content_type) == (b"old", "audio/wav")
    assert stored.info.sha256 == hashlib.sha256(b"old").hexdigest()
    assert [info.key for info in store.list("").items] == ["a"]


def test_what_hides_in_the_root_is_not_an_object(store: DirectoryStore, root: Path) -> None:
    """Neither the store's own files nor a secret beside the data can be listed, read, written or linked to."""
    store.put("a", b"x", content_type=TEXT)
    (root / ".url-signing-key").write_bytes(b"secret")
    (description,) = files_in(root / ".meta")
    for key in (".url-signing-key", f".meta/{description}", ".tmp/x"):
        for call in (store.get, store.head, store.delete, lambda key: store.url(key, expires_s=1, filename="a")):
            with pytest.raises(InvalidRequest, match="begins with a dot"):
                call(key)
        assert store.list(key).items == []
    assert [info.key for info in store.list("").items] == ["a"]
    assert [store.list(prefix).items for prefix in (".", ".meta/", "../", "/", "a/../")] == [[]] * 5


def test_delete_prunes_what_it_emptied(store: DirectoryStore, root: Path) -> None:
    """Empty directories and descriptions go with the last object; the first level stays for people to use."""
    store.put("jobs/0/id/request.json", b"x", content_type=TEXT)
    store.put("jobs/1/id/request.json", b"x", content_type=TEXT)
    store.delete("jobs/0/id/request.json")
    assert [path.name for path in (root / "jobs").iterdir()] == ["1"]
    store.delete("jobs/1/id/request.json")
    assert (root / "jobs").is_dir()
    assert files_in(root) == []


def test_put_survives_a_delete_that_prunes_its_directory(store: DirectoryStore) -> None:
    """While another thread empties and prunes the directory, every put lands."""
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            store.put("jobs/0/id/other", b"x", content_type=TEXT)
            store.delete("jobs/0/id/other")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for n in range(150):
            store.put("jobs/0/id/mine", str(n).encode(), content_type=TEXT)
            assert store.get("jobs/0/id/mine").body == str(n).encode()
            store.delete("jobs/0/id/mine")
    finally:
        done.set()
        thread.join()
    assert store.list("jobs/").items == []


def test_put_retries_when_its_directory_is_pruned(monkeypatch: pytest.MonkeyPatch, store: DirectoryStore) -> None:
    """A directory that vanishes between making it and renaming into it is made again."""
    replace = Path.replace
    pruned: list[Path] = []

    def prune_first(self: Path, target: Path) -> Path:
        if not pruned:
            pruned.append(target.parent)
            target.parent.rmdir()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", prune_first)
    store.put("a/b/c", b"x", content_type=TEXT)
    assert len(pruned) == 1
    assert store.get("a/b/c").body == b"x"


def test_a_listing_reads_only_what_it_must(monkeypatch: pytest.MonkeyPatch, store: DirectoryStore) -> None:
    """Neither folders outside the prefix nor those wholly before `after` are opened, and none outside the root."""
    for key in ("jobs/0/a", "jobs/1/a", "jobs/2/a", "voices/x"):
        store.put(key, b"", content_type=TEXT)
    opened: list[str] = []
    scandir = os.scandir

    def record(path: Path) -> "os._ScandirIterator[str]":
        opened.append(path.name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", record)
    assert [info.key for info in store.list("jobs/", after="jobs/1", limit=1).items] == ["jobs/1/a"]
    assert opened == ["jobs", "1", "2"]  # 2, to learn whether there is a next page
    opened.clear()
    assert [store.list(prefix).items for prefix in ("../", "/", "jobs/../", ".tmp/", "a\0/")] == [[]] * 5
    assert opened == []


def test_names_that_are_not_utf8_are_no_keys(store: DirectoryStore, root: Path) -> None:
    """A file that no key can name is left out of listings."""
    root.mkdir()
    try:
        (root / os.fsdecode(b"caf\xe9")).touch()
    except OSError:
        pytest.skip("this filesystem takes UTF-8 names only")
    (root / "tea").touch()
    assert [info.key for info in store.list("").items] == ["tea"]


def test_what_killed_writers_left_is_removed_at_the_next_start(store: DirectoryStore, root: Path) -> None:
    """Not what somebody may be writing just now; and no objects, however old."""
    store.put("a", b"one", content_type=TEXT)
    for name in (".tmp/left", ".tmp/fresh", "old"):
        (root / name).write_bytes(b"half")
    for name in (".tmp/left", "old"):
        os.utime(root / name, (1.0, 1.0))
    again = DirectoryStore(root, UrlSigner(b"key"))
    assert files_in(root / ".tmp") == ["fresh"]
    assert [info.key for info in again.list("").items] == ["a", "old"]
