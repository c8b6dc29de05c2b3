"""What the service asks of an object store: six methods that S3, a directory and a dict can all keep.

FileStore is two more, for objects too large to be held in memory: model weights, and long audio. ConditionalStore is
one more, which saves double work where the store can: many S3-compatible services cannot.

Keys are relative POSIX paths such as `voices/anna.wav`. Methods block: async callers run them in a
thread. No method of an ObjectStore promises compare-and-swap, so nothing above may need it to be right.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

__all__ = ["ConditionalStore", "FileStore", "ObjectInfo", "ObjectStore", "Page", "StoredObject"]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object without reading it. `etag` changes whenever the bytes do.

    `sha256` is the hex digest recorded at writing; None for objects that others wrote, and in listings.
    """

    key: str
    size_bytes: int
    etag: str
    last_modified: datetime  # timezone-aware, UTC
    content_type: str = "application/octet-stream"
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's bytes with its description, both from one read."""

    info: ObjectInfo
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing, in key order. `next_after` is what to pass as `after` for the rest; None at the end."""

    items: Sequence[ObjectInfo]
    next_after: str | None


class ObjectStore(Protocol):
    """Raises StorageUnreachable, StorageDenied or StorageMisconfigured from any method."""

    def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        """Write the whole object or nothing; a reader sees the old bytes or the new ones, never a mix."""
        ...

    def get(self, key: str) -> StoredObject:
        """Read it and check it against its recorded sha256. Raises ObjectNotFound, ObjectCorrupt."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """Describe it. Raises ObjectNotFound."""
        ...

    def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """Keys that start with `prefix` and sort behind `after` (code-point order), at most `limit` (1..1000)."""
        ...

    def delete(self, key: str) -> None:
        """Remove it; nothing happens if it is not there."""
        ...

    def url(self, key: str, *, expires_s: int, filename: str) -> str:
        """A URL that reads this object without credentials until it expires, saved as `filename`.

        Absolute for S3 (presigned). A path with query for a store that the ingress serves itself.
        """
        ...


@runtime_checkable  # for whoever was given it as an ObjectStore
class FileStore(Protocol):
    """Objects that are streamed. Raises as ObjectStore does; every implementation of it is one of this, too."""

    def read(self, key: str, *, start: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """The bytes from offset `start`, unchecked: whoever streams compares the sha256 of the whole.

        With `etag` only while the object has it. The call or any step raises ObjectNotFound, Conflict (another
        etag), InvalidRequest (nothing is at `start`), or StorageUnreachable where the stream breaks off.
        """
        ...

    def put_file(self, key: str, path: Path, *, content_type: str) -> ObjectInfo:
        """As `ObjectStore.put`, from a file that does not change meanwhile. Raises OSError where it is unreadable."""
        ...


@runtime_checkable  # `conditions_hold` asks whether a store has the method at all
class ConditionalStore(Protocol):
    """Writes that do not replace. For saving work only: right results may not rest on it.

    A store that ignores conditions replaces in silence and answers True to everyone; only `conditions_hold` finds out.
    """

    def put_new(self, key: str, body: bytes, *, content_type: str) -> bool:
        """As `ObjectStore.put`, but only where nothing is at `key`. Raises as it does.

        True: the object at `key` is the one of this call, also where its write was repeated because the reply to it
        was lost. False: another object was there, and is untouched. After a lost reply the two are told apart by
        their bytes, so equal bytes of others may be taken for ours: where that matters, put a random token into them.

        Raises StorageMisconfigured where the store says that it has no such writes (501).
        """
        ...
