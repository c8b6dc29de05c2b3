"""A bucket as a source: what of its errors is worth another try."""

import pytest

from serve_app.errors import StorageDenied, StorageUnreachable
from serve_app.storage import MemoryStore
from serve_app.weights.bucket import BucketRemote
from serve_app.weights.transfer import Described, Interrupted


class Bucket(MemoryStore):
    """Gives one block, then fails."""

    bucket = "mine"

    def __init__(self, error=None):
        super().__init__()
        self.error, self.asked = error, []

    def in_bucket(self, bucket):
        raise NotImplementedError

    def read(self, key, *, start=0, etag=None):
        self.asked.append((start, etag))
        yield from super().read(key, start=start, etag=etag)
        if self.error:
            raise self.error


def test_an_object_is_read_as_it_was_described():
    """Its size and sha256 are told, and each read asks for that very object."""
    store = Bucket()
    info = store.put("a/b", b"12345", content_type="x/y")
    remote = BucketRemote(store, "a/b")
    assert remote.label == "s3://mine/a/b"
    assert remote.describe() == Described(5, info.sha256)
    assert b"".join(remote.read(2)) == b"345"
    assert store.asked == [(2, info.etag)]


@pytest.mark.parametrize(
    ("error", "raised"), [(StorageUnreachable("cut"), Interrupted), (StorageDenied("no right"), StorageDenied)]
)
def test_only_a_stream_that_breaks_off_is_tried_again(error, raised):
    """A refusal would be the same the next time."""
    store = Bucket(error)
    store.put("a", b"1", content_type="x/y")
    with pytest.raises(raised, match=str(error)):
        list(BucketRemote(store, "a").read(0))
