"""A bucket as a source of weights, and as the place where the next node finds them: `models/` and the hub's key."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from serve_app import logs
from serve_app.errors import ObjectNotFound, ServiceError, StorageUnreachable
from serve_app.storage import FileStore, ObjectInfo
from serve_app.weights.disk import claim
from serve_app.weights.transfer import Described, Interrupted

__all__ = ["MODELS", "Bucket", "BucketRemote", "Keeper", "KeptFile"]

MODELS = "models/"
CONTENT_TYPE = "application/octet-stream"


class Bucket(FileStore, Protocol):
    """What is asked of S3Store here."""

    @property
    def bucket(self) -> str: ...

    def in_bucket(self, bucket: str) -> "Bucket":
        """Another bucket, with the same credentials."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """See ObjectStore."""
        ...


class BucketRemote:
    """One object, as it was when it was described."""

    def __init__(self, store: Bucket, key: str) -> None:
        self._store, self._key = store, key
        self.etag: str | None = None

    @property
    def label(self) -> str:
        return f"s3://{self._store.bucket}/{self._key}"

    def describe(self) -> Described:
        """Size, and the sha256 where one was recorded. Raises what the store raises."""
        info = self._store.head(self._key)
        self.etag = info.etag
        return Described(info.size_bytes, info.sha256)

    def read(self, start: int) -> Iterator[bytes]:
        """The bytes from `start`. Raises Interrupted, or another of the store's errors."""
        try:
            yield from self._store.read(self._key, start=start, etag=self.etag)
        except StorageUnreachable as error:
            raise Interrupted(error.message) from error


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A whole file at `path` for `models/` + `key`. `replace`: what the bucket has there is not this file."""

    key: str
    path: Path
    replace: bool = False


class Keeper:
    """Puts files into the bucket in the background, one at a time on a node; what fails is logged, never raised."""

    def __init__(self, store: Bucket, root: Path) -> None:
        self._store, self._root = store, root
        self._threads: list[threading.Thread] = []

    def keep(self, files: Sequence[KeptFile]) -> None:
        """Begin to put those into the bucket that it lacks, or has in another size."""
        thread = threading.Thread(target=self._put_all, args=(files,), name="weights-to-bucket", daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self) -> None:
        """Until everything begun is done or has failed."""
        while self._threads:
            self._threads.pop().join()

    def _put_all(self, files: Sequence[KeptFile]) -> None:
        for file in files:
            key = MODELS + file.key
            try:
                with claim(self._root, make=False):  # downloads claim the folders below it
                    self._put(key, file)
            except (ServiceError, OSError) as error:
                logs.event("weights_not_stored", key=key, bucket=self._store.bucket, error=str(error))
            except Exception as error:  # a thread has nobody above it
                logs.failure("weights_not_stored", error, key=key, bucket=self._store.bucket)

    def _put(self, key: str, file: KeptFile) -> None:
        size_bytes = file.path.stat().st_size
        with suppress(ObjectNotFound):
            if self._store.head(key).size_bytes == size_bytes and not file.replace:
                return
        started = time.monotonic()
        self._store.put_file(key, file.path, content_type=CONTENT_TYPE)
        seconds = round(time.monotonic() - started, 1)
        logs.event("weights_stored", key=key, bucket=self._store.bucket, bytes=size_bytes, seconds=seconds)
