"""probe(): which stores it accepts and what it leaves behind."""

import time
from dataclasses import replace

import pytest

from serve_app.errors import ObjectNotFound, StorageMisconfigured, StorageUnreachable
from serve_app.storage import MemoryStore, ObjectInfo, Page, StoredObject, conditions_hold, probe


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


class RacesItself(MemoryStore):
    """Looks, and then writes: what looks in between sees nothing either."""

    def put_new(self, key: str, body: bytes, *, content_type: str) -> bool:
        try:
            self.head(key)
        except ObjectNotFound:
            time.sleep(0.05)
            self.put(key, body, content_type=content_type)
            return True
        return False


def test_conditions_that_hold_only_as_long_as_nobody_races_do_not_hold() -> None:
    """One after the other they do; of several at once more than one writes. Nothing is left behind."""
    store = RacesItself()
    assert store.put_new("a", b"1", content_type="text/plain")
    assert not store.put_new("a", b"2", content_type="text/plain")
    store.delete("a")
    assert not conditions_hold(store)
    assert store.list("").items == []


def test_conditions_that_hold_are_found_to() -> None:
    """Of those who race one writes, in each round; nothing is left behind."""
    store = MemoryStore()
    assert conditions_hold(store)
    assert store.list("").items == []
