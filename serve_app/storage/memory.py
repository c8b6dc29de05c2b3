"""A store in a dict, for tests: what `put` wrote is there until the process ends.

It keeps the promises that the other stores keep, and the same contract suite holds it to them.
"""

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from serve_app.errors import ObjectNotFound
from serve_app.storage.protocol import ObjectInfo, Page, StoredObject
from serve_app.storage.signing import UrlSigner, check_key
from serve_app.storage.streaming import check_etag, check_start

__all__ = ["MemoryStore"]


class MemoryStore:
    """An ObjectStore, FileStore and ConditionalStore, safe for threads. `now` is the clock of `last_modified`."""

    def __init__(
        self, signer: UrlSigner | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._signer = signer or UrlSigner(secrets.token_bytes(32))
        self._now = now
        self._lock = threading.Lock()
        self._objects: dict[str, StoredObject] = {}

    def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        """See ObjectStore. The etag is a digest of the bytes, as S3's is."""
        stored = self._stored(key, body, content_type)
        with self._lock:
            self._objects[key] = stored
        return stored.info

    def put_new(self, key: str, body: bytes, *, content_type: str) -> bool:
        """See ConditionalStore."""
        stored = self._stored(key, body, content_type)
        with self._lock:
            return self._objects.setdefault(key, stored) is stored

    def get(self, key: str) -> StoredObject:
        """See ObjectStore."""
        check_key(key)
        with self._lock:
            if key not in self._objects:
                raise ObjectNotFound(f'no object "{key}" in memory')
            return self._objects[key]

    def head(self, key: str) -> ObjectInfo:
        """See ObjectStore."""
        return self.get(key).info

    def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """See ObjectStore. Like S3's, a listing knows neither content type nor sha256."""
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix) and key > after)
            found = [self._objects[key].info for key in keys[:limit]]
        items = [ObjectInfo(info.key, info.size_bytes, info.etag, info.last_modified) for info in found]
        return Page(items, items[-1].key if len(keys) > limit else None)

    def delete(self, key: str) -> None:
        """See ObjectStore."""
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def url(self, key: str, *, expires_s: int, filename: str) -> str:
        """A signed path with query, as a directory gives."""
        return self._signer.sign(key, expires_s, filename)

    def read(self, key: str, *, start: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """See FileStore."""
        stored = self.get(key)
        check_etag(key, stored.info.etag, etag)
        check_start(key, start, stored.info.size_bytes)
        yield stored.body[start:]

    def put_file(self, key: str, path: Path, *, content_type: str) -> ObjectInfo:
        """See FileStore."""
        return self.put(key, path.read_bytes(), content_type=content_type)

    def _stored(self, key: str, body: bytes, content_type: str) -> StoredObject:
        sha256 = hashlib.sha256(body).hexdigest()
        info = ObjectInfo(check_key(key), len(body), sha256[:32], self._now(), content_type, sha256)
        return StoredObject(info, bytes(body))
