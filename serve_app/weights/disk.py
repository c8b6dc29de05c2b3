"""The node's disk: whether a file is whole, whether there is room, and one process at a time per directory."""

import errno
import fcntl
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from serve_app import logs
from serve_app.errors import ModelLoadFailed

__all__ = [
    "Claim",
    "DiskFailed",
    "claim",
    "disk_error",
    "free_bytes",
    "human",
    "is_whole",
    "nearest",
    "preflight",
    "remove_empty",
]

MARGIN_BYTES = 64 * 1024 * 1024
"""Room left over for everything else that writes to the disk."""
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF}
"""What network filesystems answer; EBADF is NFS, which locks only what is open for writing: never a directory."""


def is_whole(path: Path, size_bytes: int | None) -> bool:
    """Whether `path` is a file of this size; where none is known, of the size that its safetensors header gives.

    The sha256 was checked when the file came, before it got its name; to hash it at each start would cost a second
    for each gigabyte.
    """
    try:
        found = path.stat().st_size if path.is_file() else -1
        if size_bytes is None and path.suffix == ".safetensors":
            size_bytes = _safetensors_size(path)
    except (OSError, ValueError):
        return False
    return found == size_bytes if size_bytes is not None else found > 0


def _safetensors_size(path: Path) -> int:
    """By the format: eight bytes of header length, the header, then the tensors up to the last one's end."""
    with path.open("rb") as file:
        prefix = file.read(8)
        (length,) = struct.unpack("<Q", prefix) if len(prefix) == 8 else (0,)
        if not 2 <= length <= 100_000_000:  # the format's own limit
            raise ValueError("no safetensors header")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("no safetensors header")
    try:
        ends = [int(tensor["data_offsets"][1]) for name, tensor in header.items() if name != "__metadata__"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("no safetensors header") from error
    return 8 + int(length) + max(ends, default=0)


def free_bytes(directory: Path) -> int:
    """Of the disk of `directory`, for this user."""
    return shutil.disk_usage(directory).free


def nearest(directory: Path) -> Path:
    """`directory`, or the first above it that is there."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return directory


def preflight(directory: Path, need_bytes: Callable[[], int], free: Callable[[Path], int] = free_bytes) -> None:
    """Raise ModelLoadFailed where `directory` cannot take so much. Writes nothing.

    What is free is asked first: another process may be turning free bytes into some that are no longer needed.
    """
    there = nearest(directory)
    if not there.is_dir():
        raise ModelLoadFailed(f"WEIGHTS_DIR is {str(directory)!r}, but {there} is a file: set it to a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ModelLoadFailed(
            f"WEIGHTS_DIR is {str(directory)!r}, but {there} is read-only, or not writable for user id {os.geteuid()}: "
            "make it writable, set WEIGHTS_DIR to a directory that is, or put the files there beforehand with "
            "`python -m serve_app.weights`"
        )
    available, need = free(there), need_bytes()
    if need + MARGIN_BYTES > available:
        raise ModelLoadFailed(
            f"WEIGHTS_DIR is {str(directory)!r}: the files that are missing need {human(need)} there and "
            f"{human(MARGIN_BYTES)} to spare, but {human(available)} are free; make room, or set WEIGHTS_DIR to a "
            "larger disk"
        )


class DiskFailed(ModelLoadFailed):
    """This node's disk did not take a file: no other source of it can help."""


def disk_error(error: OSError, target: Path) -> DiskFailed:
    """What ended the writing of `target`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            return DiskFailed(
                f"the disk of {target.parent} is full ({error.strerror}, {human(free_bytes(nearest(target)))} free): "
                f"{target.name} could not be written; make room, or set WEIGHTS_DIR to a larger disk"
            )
    return DiskFailed(
        f"{target} could not be written ({error.strerror or error}): make WEIGHTS_DIR writable for user id "
        f"{os.geteuid()}, or set it to a directory that is"
    )


def human(size_bytes: int) -> str:
    """1_348_435_761 -> "1.35 GB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.{0 if size_bytes >= 100 * factor else 2}f} {unit}"
    return f"{size_bytes} bytes"


@dataclass(frozen=True, slots=True)
class Claim:
    """A held directory. `exclusive`: nobody else writes there. `keep`: what was there before it was made."""

    exclusive: bool
    keep: Path


@contextmanager
def claim(directory: Path, *, make: bool = True, wait: bool = True) -> Iterator[Claim]:
    """Make `directory` and hold it: no other process or thread of this node is in such a block for it meanwhile.

    The kernel's lock is on the directory itself, so a process that dies gives it back and leaves no lock file. It is
    not exclusive where the filesystem has no such locks (names are unique and renames atomic, so two processes only
    do the work twice), or where another holds it and `wait` is False. Raises OSError where it cannot be made or opened.
    """
    while True:
        handle, keep = _open(directory, make)
        try:
            exclusive = _lock(handle, directory, wait)
            if exclusive and not _is_still(handle, directory):
                continue  # its last holder failed and removed it
            yield Claim(exclusive, keep)
            return
        finally:
            os.close(handle)  # and with it the lock


def _open(directory: Path, make: bool) -> tuple[int, Path]:
    while True:
        keep = nearest(directory)
        try:
            if make:
                directory.mkdir(parents=True, exist_ok=True)
            return os.open(directory, os.O_RDONLY | os.O_DIRECTORY), keep
        except FileNotFoundError:
            if not make:
                raise  # else another process has just removed an empty parent


def _lock(handle: int, directory: Path, wait: bool) -> bool:
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                return False
            logs.event("weights_waiting", directory=str(directory))
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        logs.event("weights_lock_unsupported", directory=str(directory), reason=error.strerror)
        return False
    return True


def _is_still(handle: int, directory: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), directory.stat())
    return False


def remove_empty(directory: Path, keep: Path) -> None:
    """Remove `directory` and those above it while they are empty, up to `keep`, which stays."""
    with suppress(OSError):  # not empty, or gone already
        while directory != keep and keep in directory.parents:
            directory.rmdir()
            directory = directory.parent
