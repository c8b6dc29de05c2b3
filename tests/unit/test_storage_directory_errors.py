"""DirectoryStore: what the operating system refuses becomes an error that says what to change."""

import errno
import os
from pathlib import Path

import pytest

from serve_app.errors import (
    Conflict,
    InvalidRequest,
    ObjectNotFound,
    StorageDenied,
    StorageMisconfigured,
    StorageUnreachable,
)
from serve_app.storage import DirectoryStore, UrlSigner, probe

TEXT = "text/plain"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(root: Path) -> DirectoryStore:
    return DirectoryStore(root, UrlSigner(b"key"))


def files_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_a_failed_put_leaves_nothing(monkeypatch: pytest.MonkeyPatch, store: DirectoryStore, root: Path) -> None:
    """A full disk ends in StorageUnreachable, without temporary file or description."""

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store.put("other", b"x", content_type=TEXT)
    before = files_in(root)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageUnreachable, match="No space left"):
            store.put("a", b"new", content_type=TEXT)
    assert files_in(root) == before


def test_a_key_cannot_be_a_file_and_a_directory(store: DirectoryStore, root: Path) -> None:
    """Unlike S3, a directory refuses `a` beside `a/b`, and says why; what was there stays, and nothing is left over."""
    store.put("a", b"x", content_type=TEXT)
    store.put("b/c", b"x", content_type=TEXT)
    for key in ("a/b", "a/b/c", "b"):
        with pytest.raises(Conflict, match="cannot keep both a key and keys below it"):
            store.put(key, b"y", content_type=TEXT)
    assert (len(files_in(root / ".meta")), files_in(root / ".tmp")) == (2, [])
    assert [info.key for info in store.list("").items] == ["a", "b/c"]
    for key in ("a/b", "b"):
        store.delete(key)
        with pytest.raises(ObjectNotFound):
            store.get(key)
    assert [info.key for info in store.list("").items] == ["a", "b/c"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_directory_that_may_not_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, store: DirectoryStore, root: Path, number: int
) -> None:
    """The probe ends with the directory, the reason and DATA_DIR. Root may write anywhere, so it is simulated."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageDenied) as caught:
        probe(store)
    assert f"in DATA_DIR {root}: {os.strerror(number)}" in caught.value.message
    assert "set DATA_DIR to another" in caught.value.message


def test_a_file_in_place_of_the_root_is_named(store: DirectoryStore, root: Path) -> None:
    """DATA_DIR that names a file is a wrong setting, not a conflict of keys."""
    root.write_bytes(b"")
    with pytest.raises(StorageMisconfigured, match="set DATA_DIR to a directory"):
        probe(store)


def test_a_name_too_long_for_the_filesystem_is_refused(store: DirectoryStore) -> None:
    """255 bytes are a file name's limit on most systems, and the message says to shorten the key."""
    with pytest.raises(InvalidRequest, match="shorten the key"):
        store.put("a" * 300, b"x", content_type=TEXT)
