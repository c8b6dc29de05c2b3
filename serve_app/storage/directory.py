"""A store in a directory: an object is a plain file at its key's path, so people can look at it and drop files in.

    put: .tmp/<random> -> fsync -> .meta/<key>.<version>.json -> rename to <key> -> fsync of the directories
    put_new: the same, but for a link in place of the rename: it fails where a file has the name already

What a file cannot say (sha256, content type) is kept beside it, under a name that holds the file's *version*: its
size and modification time. So the rename alone switches bytes and description together: whatever a crash leaves, a
description speaks only of the bytes it was written for, and a file dropped in by hand has none. (One description per
key would be older or newer than the bytes for a moment; extended attributes are lost by many filesystems and tools.)

Names in the root that begin with a dot are no objects. Needs POSIX renames; all processes must see the same files.
"""

import errno
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from serve_app.errors import (
    ConfigError,
    Conflict,
    InvalidRequest,
    ObjectCorrupt,
    ObjectNotFound,
    ServiceError,
    StorageDenied,
    StorageMisconfigured,
    StorageUnreachable,
)
from serve_app.storage.files import link_new, prune, rename, stat_file, sync_directory
from serve_app.storage.protocol import ObjectInfo, Page, StoredObject
from serve_app.storage.signing import UrlSigner, check_key, is_key
from serve_app.storage.streaming import blocks, check_etag, check_start

__all__ = ["DirectoryStore"]

PROBE = ".probe"  # the one name in the root that begins with a dot and holds objects
PLACE_ATTEMPTS = 100
LEFT_S = 86_400.0  # a write takes no day: whoever began this one was killed
Naming = Callable[[Path, Path], bool]  # `rename` or `link_new`


class DirectoryStore:
    """An ObjectStore, FileStore and ConditionalStore, safe for threads and processes.

    Raises ConfigError where `root` is not absolute.
    """

    def __init__(self, root: Path, signer: UrlSigner) -> None:
        if not root.is_absolute():
            raise ConfigError(f"DATA_DIR is {str(root)!r}: make it absolute, since replicas run in other directories")
        self._root = root
        self._signer = signer
        _remove_left(root / ".tmp")
        self._lasting: set[Path] = set()  # directories that no delete removes, and that are on the disk for good

    def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        """See ObjectStore. Raises Conflict where `key` needs a directory in place of a file, or the reverse."""
        return self._put(key, [body], hashlib.sha256(body).hexdigest(), content_type)[0]

    def put_new(self, key: str, body: bytes, *, content_type: str) -> bool:
        """See ConditionalStore. Raises as `put`, and StorageMisconfigured on a filesystem without hard links."""
        return self._put(key, [body], hashlib.sha256(body).hexdigest(), content_type, link_new)[1]

    def put_file(self, key: str, path: Path, *, content_type: str) -> ObjectInfo:
        """See FileStore."""
        check_key(key)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            return self._put(key, blocks(file), sha256, content_type)[0]

    def _put(
        self, key: str, body: Iterable[bytes], sha256: str, content_type: str, name: Naming = rename
    ) -> tuple[ObjectInfo, bool]:
        """The object, and whether it took its place: with `link_new` not where another one has it."""
        target = self._path(key)
        text = json.dumps({"sha256": sha256, "content_type": content_type}).encode()
        with (
            self._clear_errors("write", key),
            self._fresh(body) as (file, status),
            self._fresh([text]) as (described, _),
        ):
            description = self._description(key, status)
            try:
                self._place(described, description)
                replaced = stat_file(target)  # of two writers one may leave its description, which nothing reads
                placed = self._place(file, target, name)
            except BaseException:
                description.unlink(missing_ok=True)
                raise
            if unused := replaced if placed else status:
                self._description(key, unused).unlink(missing_ok=True)
        return _info(key, status, content_type, sha256), placed

    def get(self, key: str) -> StoredObject:
        """See ObjectStore. A file that was dropped in by hand is not checked: nobody recorded its sha256."""
        info, body = self._read(key, with_body=True)
        digest = hashlib.sha256(body).hexdigest()
        if info.sha256 not in (None, digest):
            raise ObjectCorrupt(
                f'object "{key}" in {self._root} has the sha256 {digest}, but was written with {info.sha256}: '
                "check the disk, and write it anew"
            )
        return StoredObject(info, body)

    def head(self, key: str) -> ObjectInfo:
        """See ObjectStore."""
        return self._read(key, with_body=False)[0]

    def read(self, key: str, *, start: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """See FileStore. What is opened is read to its end, also where the object is replaced meanwhile."""
        path = self._path(key)
        with self._clear_errors("read", key), path.open("rb") as file:
            status = os.fstat(file.fileno())
            check_etag(key, _info(key, status).etag, etag)
            check_start(key, start, status.st_size)
            file.seek(start)
            yield from blocks(file)

    def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """See ObjectStore. Reads each directory that can hold such keys whole. Names not in UTF-8 are no keys."""
        folder = prefix[: prefix.rfind("/") + 1]
        if folder and not (is_key(folder[:-1]) and _is_ours(folder)):
            return Page([], None)
        with self._clear_errors("list", prefix):
            keys = [*islice(self._walk(folder, prefix, after), limit + 1)]
            found = [(key, stat_file(self._root / key)) for key in keys[:limit]]
        items = [_info(key, status) for key, status in found if status]
        return Page(items, keys[limit - 1] if len(keys) > limit else None)

    def delete(self, key: str) -> None:
        """See ObjectStore. Directories that it empties go too, save those in the root."""
        target = self._path(key)
        with self._clear_errors("delete", key):
            status = stat_file(target)
            if status is None:
                return
            for path, top in ((target, self._root), (self._description(key, status), self._root / ".meta")):
                path.unlink(missing_ok=True)
                prune(path.parent, top)

    def url(self, key: str, *, expires_s: int, filename: str) -> str:
        """A signed path with query, which the ingress serves."""
        self._path(key)
        return self._signer.sign(key, expires_s, filename)

    def _path(self, key: str) -> Path:
        if not _is_ours(check_key(key)):
            raise InvalidRequest(f"{key!r} begins with a dot: such names in {self._root} are no objects")
        return self._root / key

    def _description(self, key: str, status: os.stat_result) -> Path:
        return self._root / ".meta" / f"{key}.{status.st_size}-{status.st_mtime_ns}.json"

    @contextmanager
    def _fresh(self, body: Iterable[bytes]) -> Iterator[tuple[Path, os.stat_result]]:
        """A new file in `.tmp`, on the disk, with a modification time of its own; removed if it stays there."""
        path = self._root / ".tmp" / secrets.token_hex(16)
        try:
            with _new_file(path) as file:
                file.writelines(body)
                file.flush()
                now_ns = time.time_ns()  # filesystems stamp by a clock of milliseconds, too coarse to tell writes apart
                os.utime(file.fileno(), ns=(now_ns, now_ns))
                os.fsync(file.fileno())
            yield path, path.stat()
        finally:
            path.unlink(missing_ok=True)

    def _place(self, fresh: Path, target: Path, name: Naming = rename) -> bool:
        """Name `fresh` `target` for good. A delete may prune the directory meanwhile: then make it again."""
        made = False
        for attempt in range(1, PLACE_ATTEMPTS + 1):
            try:
                if not name(fresh, target):
                    return False
                break
            except FileNotFoundError:
                if attempt == PLACE_ATTEMPTS:
                    raise
            made = True
            with suppress(FileNotFoundError, FileExistsError):  # pruned again, or a file, which the next attempt says
                target.parent.mkdir(parents=True, exist_ok=True)
        self._sync_above(target, made)
        return True

    def _sync_above(self, target: Path, made: bool) -> None:
        """Put the name `target` on the disk, and those of the directories above it: whoever makes one of them at this
        moment may not have come to that. What lies in the root is never pruned, so that once is enough for it."""
        synced = []
        for directory in target.parents:
            with suppress(FileNotFoundError):  # pruned: the object is deleted already
                sync_directory(directory)
            if directory == self._root or (directory in self._lasting and not made):
                break
            synced.append(directory)
        never_pruned = (self._root, self._root / ".meta")
        self._lasting |= {directory for directory in synced if directory.parent in never_pruned}

    def _read(self, key: str, *, with_body: bool) -> tuple[ObjectInfo, bytes]:
        path = self._path(key)
        with self._clear_errors("read", key):
            while True:
                with path.open("rb") as file:
                    status = os.fstat(file.fileno())
                    body = file.read() if with_body else b""
                try:
                    recorded = json.loads(self._description(key, status).read_bytes())
                    return _info(key, status, recorded["content_type"], recorded["sha256"]), body
                except FileNotFoundError:
                    info = _info(key, status)
                    if _info(key, path.stat()) == info:  # else replaced since it was opened: read the new one
                        return info, body

    def _walk(self, folder: str, prefix: str, after: str) -> Iterator[str]:
        """Keys under `folder` ("" or "a/b/") in code-point order: a directory sorts as its name with the slash."""
        names = []
        try:
            with os.scandir(self._root / folder) as entries:
                for entry in entries:
                    name = folder + entry.name + ("/" if entry.is_dir() else "")
                    if _may_hold(name, prefix, after) and is_key(name.rstrip("/")) and _is_ours(name):
                        names.append(name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in sorted(names):
            if name.endswith("/"):
                yield from self._walk(name, prefix, after)
            else:
                yield name

    @contextmanager
    def _clear_errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(error, verb, key) from error

    def _error(self, error: OSError, verb: str, key: str) -> ServiceError:
        what = f'cannot {verb} "{key}" in DATA_DIR {self._root}: {error.strerror}'
        if error.errno == errno.ENAMETOOLONG:
            return InvalidRequest(f"{what}; shorten the key")
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            return StorageDenied(f"{what}; give user id {os.geteuid()} the right to, or set DATA_DIR to another")
        if verb == "read" and isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            return ObjectNotFound(f'no object "{key}" in {self._root}')
        if verb == "write" and isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            if self._root.exists() and not self._root.is_dir():
                return StorageMisconfigured(f"{what}; it is a file: set DATA_DIR to a directory")
            return Conflict(f"{what}; a directory cannot keep both a key and keys below it: choose another key")
        return StorageUnreachable(f"{what}; check the disk (full, unmounted, failing?)")


def _remove_left(directory: Path) -> None:
    """Remove what those who were killed have not come to. Others may do so too; whoever writes says what is wrong."""
    with suppress(OSError):
        for path in directory.iterdir():
            if (status := stat_file(path)) and time.time() - status.st_mtime > LEFT_S:
                path.unlink(missing_ok=True)


def _new_file(path: Path) -> BinaryIO:
    """A file that is not there yet, opened to be written; its directory is made where it is not there either."""
    try:
        return path.open("xb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")


def _is_ours(key: str) -> bool:
    """Whether `key` lies among the objects, not among what hides in the root."""
    return not key.startswith(".") or key.split("/")[0] == PROBE


def _may_hold(name: str, prefix: str, after: str) -> bool:
    """Whether `name` is a key to list, or (with a slash at its end) a directory that can hold one."""
    return name.startswith(prefix) and (name > after or (name.endswith("/") and after.startswith(name)))


def _info(
    key: str, status: os.stat_result, content_type: str = "application/octet-stream", sha256: str | None = None
) -> ObjectInfo:
    etag = f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ino:x}"
    return ObjectInfo(key, status.st_size, etag, datetime.fromtimestamp(status.st_mtime, UTC), content_type, sha256)
