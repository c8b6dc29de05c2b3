"""probe(): which stores it accepts and what it leaves behind."""

from dataclasses import replace

import pytest

from serve_app.errors import StorageMisconfigured, StorageUnreachable
from serve_app.storage import MemoryStore, ObjectInfo, Page, StoredObject, probe


class ForgetsMetadata(MemoryStore):
    def head(self, key: str) -> ObjectInfo:
        return replace(super().head(key), sha256=None)


class ReadsStale(MemoryStore):
    def get(self, key: str) -> StoredObject:
        return replace(super().get(key), body=b"of yesterday")


class ListsNothing(MemoryStore):
    def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        return Page([], None)


class FailsToRead(MemoryStore):
    def get(self, key: str) -> StoredObject:
        raise StorageUnreachable("the first error")

    def delete(self, key: str) -> None:
        super().delete(key)
        raise StorageUnreachable("the second error")


@pytest.mark.parametrize(
    "store", [ForgetsMetadata(), ReadsStale(), ListsNothing()], ids=lambda each: type(each).__name__
)
def test_a_store_that_gives_back_something_else_is_refused(store: MemoryStore) -> None:
    """Metadata, bytes and listing must be those of the object just written, and it is removed all the same."""
    with pytest.raises(StorageMisconfigured, match="does not give back what was written"):
        probe(store)
    assert MemoryStore.list(store, "").items == []


def test_the_first_error_is_the_one_reported() -> None:
    """The object is removed after a failure too, and a failure to do so does not hide the cause."""
    store = FailsToRead()
    with pytest.raises(StorageUnreachable, match="the first error"):
        probe(store)
    assert store.list("").items == []


def test_two_probes_at_once_do_not_meet() -> None:
    """Each uses a key of its own, so that replicas and clusters may start together."""
    keys: list[str] = []

    class Records(MemoryStore):
        def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
            keys.append(key)
            return super().put(key, body, content_type=content_type)

    store = Records()
    probe(store)
    probe(store)
    assert [key.startswith(".probe/") for key in keys] == [True, True]
    assert keys[0] != keys[1]
