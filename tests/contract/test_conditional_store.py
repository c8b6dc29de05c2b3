"""Conditional writes: what every store that has them keeps, and how one that has none is found out."""

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from serve_app.errors import (
    Conflict,
    StorageMisconfigured,
    StorageUnreachable,
)
from serve_app.storage import (
    DirectoryStore,
    MemoryStore,
    S3Config,
    S3Store,
    conditions_hold,
)  # fmt: skip
from tests.support.deadline import DEADLINE_S
from tests.support.seaweedfs import SeaweedFS
from tests.support.wire import CutAnswer, IgnoreConditions, Refuse, WireProxy, refuse_conditions

WAV = "audio/wav"
Store = MemoryStore | DirectoryStore | S3Store


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[WireProxy]:
    with WireProxy(seaweedfs.endpoint_url) as wire:
        yield wire


@pytest.fixture
def wired(s3_config: S3Config, proxy: WireProxy) -> S3Store:
    return S3Store(replace(s3_config, endpoint_url=proxy.url))


def test_what_is_not_there_is_put_new(store: Store, prefix: str) -> None:
    """The first put_new of a key writes as put does: bytes, content type and sha256."""
    assert store.put_new(prefix + "a", b"RIFF", content_type=WAV) is True
    stored = store.get(prefix + "a")
    assert (stored.body, stored.info.content_type) == (b"RIFF", WAV)
    assert stored.info.sha256 == hashlib.sha256(b"RIFF").hexdigest()


def test_what_is_there_is_not_put_new(store: Store, prefix: str) -> None:
    """An object that is there stays as it was, with its description, and put_new says so."""
    store.put(prefix + "a", b"old", content_type="text/plain")
    before = store.get(prefix + "a")
    assert store.put_new(prefix + "a", b"new", content_type=WAV) is False
    assert store.get(prefix + "a") == before


def test_of_twenty_at_once_one_is_new(store: Store, prefix: str) -> None:
    """Exactly one is told that it wrote, and its bytes are there with their sha256."""
    bodies, ready = [b"%02d" % n for n in range(20)], threading.Barrier(20, timeout=DEADLINE_S)

    def write(body: bytes) -> bool:
        ready.wait()
        return store.put_new(prefix + "a", body, content_type=WAV)

    with ThreadPoolExecutor(20) as pool:
        written = [*pool.map(write, bodies)]
    assert written.count(True) == 1
    stored = store.get(prefix + "a")
    assert (stored.body, stored.info.content_type) == (bodies[written.index(True)], WAV)


def test_a_new_object_whose_reply_is_lost_is_ours(wired: S3Store, proxy: WireProxy, prefix: str) -> None:
    """The repeated write meets the object of the first: it is not written again, and put_new answers True."""
    proxy.fault = lambda _: CutAnswer(forward=True) if len(proxy.requests) == 1 else None
    assert wired.put_new(prefix + "a", b"ours", content_type=WAV) is True
    assert [(each.method, each.status) for each in proxy.requests] == [("PUT", None), ("PUT", 412), ("GET", 200)]


def test_a_conflict_of_writes_is_tried_again(wired: S3Store, proxy: WireProxy, prefix: str) -> None:
    """A 409 says neither yes nor no: it is asked again, five times in all, and then the store counts as busy."""
    proxy.fault = lambda _: Refuse(409, "ConditionalRequestConflict") if len(proxy.requests) != 3 else None
    assert wired.put_new(prefix + "a", b"x", content_type=WAV) is True
    with pytest.raises(StorageUnreachable, match=prefix):
        wired.put_new(prefix + "b", b"x", content_type=WAV)
    assert [each.status for each in proxy.requests] == [409, 409, 200] + [409] * 5


def test_what_is_deleted_meanwhile_is_put_new(s3_store: S3Store, wired: S3Store, proxy: WireProxy, prefix: str) -> None:
    """Where the object in the way is gone before it can be compared, put_new writes after all."""
    s3_store.put(prefix + "a", b"theirs", content_type=WAV)
    proxy.fault = lambda request: s3_store.delete(prefix + "a") if request.method == "GET" else None
    assert wired.put_new(prefix + "a", b"ours", content_type=WAV) is True
    assert s3_store.get(prefix + "a").body == b"ours"


def test_a_store_without_conditions_says_so(wired: S3Store, proxy: WireProxy, prefix: str) -> None:
    """A 501 is StorageMisconfigured, other writes go on, and conditions_hold answers False instead of an error."""
    proxy.fault = refuse_conditions
    with pytest.raises(StorageMisconfigured, match="has no conditional writes"):
        wired.put_new(prefix + "a", b"x", content_type=WAV)
    assert wired.put(prefix + "a", b"x", content_type=WAV).size_bytes == 1
    assert conditions_hold(wired) is False


def test_a_store_that_ignores_conditions_is_found_out(wired: S3Store, proxy: WireProxy, s3_config: S3Config) -> None:
    """Both writes of conditions_hold reach it and are answered with 200: it answers False, and nothing is left."""
    keys = IgnoreConditions(s3_config.access_key_id or "", s3_config.secret_access_key or "")
    proxy.fault = lambda _: keys
    before = _probes(wired)
    assert conditions_hold(wired) is False
    assert [each.status for each in proxy.requests if each.conditional] == [200, 200]
    assert _probes(wired) == before


def test_a_busy_store_is_not_one_without_conditions(wired: S3Store, proxy: WireProxy) -> None:
    """What says nothing of conditions is raised and no answer; the object is removed where it can be."""
    proxy.fault = lambda request: Refuse(503, "SlowDown") if request.method == "GET" else None
    with pytest.raises(StorageUnreachable, match="503 SlowDown"):
        conditions_hold(wired)
    assert proxy.count("DELETE", ".probe/") == 1


def test_conditions_hold_and_nothing_is_left(store: Store) -> None:
    """All our stores keep conditions, and hold no object of the question afterwards."""
    before = _probes(store)
    assert conditions_hold(store) is True
    assert _probes(store) == before


def test_six_methods_are_a_store_without_conditions(memory_store: MemoryStore) -> None:
    """An ObjectStore need not have put_new."""
    six = {name: getattr(memory_store, name) for name in ("put", "get", "head", "list", "delete", "url")}
    assert conditions_hold(SimpleNamespace(**six)) is False


def test_a_store_that_replaces_and_denies_it_is_found_out() -> None:
    """Of two writes the second may be answered False only if it did not happen."""

    class Replaces(MemoryStore):
        def put_new(self, key: str, body: bytes, *, content_type: str) -> bool:
            was_there = key in self._objects
            self.put(key, body, content_type=content_type)
            return not was_there

    assert conditions_hold(Replaces()) is False


def files_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_a_file_that_is_not_new_leaves_nothing(directory_store: DirectoryStore, tmp_path: Path) -> None:
    """Neither temporary file nor description, where an object or (Conflict, as put) a directory is in the way."""
    directory_store.put("a/b", b"x", content_type=WAV)
    before = files_in(tmp_path)
    assert directory_store.put_new("a/b", b"y", content_type=WAV) is False
    for key in ("a", "a/b/c"):
        with pytest.raises(Conflict, match="cannot keep both a key and keys below it"):
            directory_store.put_new(key, b"y", content_type=WAV)
    assert files_in(tmp_path) == before


def test_a_filesystem_without_links_has_no_conditions(
    monkeypatch: pytest.MonkeyPatch, directory_store: DirectoryStore, tmp_path: Path
) -> None:
    """EPERM from link(2) is StorageMisconfigured with DATA_DIR, not a lack of rights, and leaves nothing."""

    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageMisconfigured, match=r"has no hard links.*set DATA_DIR"):
        directory_store.put_new("a", b"x", content_type=WAV)
    assert conditions_hold(directory_store) is False
    assert files_in(tmp_path) == []


def test_a_link_whose_reply_is_lost_is_ours(monkeypatch: pytest.MonkeyPatch, directory_store: DirectoryStore) -> None:
    """NFS repeats it and then reports its own file as one in the way."""
    link = os.link

    def link_twice(fresh: Path, target: Path) -> None:
        link(fresh, target)
        link(fresh, target)

    monkeypatch.setattr(os, "link", link_twice)
    assert directory_store.put_new("a", b"x", content_type=WAV) is True
    assert directory_store.get("a").info.sha256 == hashlib.sha256(b"x").hexdigest()


def _probes(store: Store) -> list[str]:
    """Left by whoever could not remove them, other tests of this bucket among them."""
    return [each.key for each in store.list(".probe/").items]
