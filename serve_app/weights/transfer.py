"""Brings one file from a hub or a bucket to its place on the disk, whole and verified or not at all.

    Remote.read -> .<name>.<pid>-<random>.part, hashed on the way -> checked -> fsync -> rename -> fsync of directory

Only a process that is killed leaves its part, and the next one goes on with it. Whoever calls holds the directory
(`disk.claim`). Knows neither HTTP nor S3.
"""

import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from serve_app import logs
from serve_app.errors import ModelLoadFailed
from serve_app.storage.files import sync_directory
from serve_app.storage.streaming import blocks
from serve_app.weights.disk import disk_error

__all__ = ["CannotResume", "Described", "Interrupted", "Progress", "Remote", "Transfer", "leftovers", "sweep"]

PART = re.compile(r"\.(?P<name>.+)\.\d+-[0-9a-f]{16}\.part")
ATTEMPTS = 6
PAUSE_S = 1.0
"""Before the second attempt, and twice as long before each next: 31 s in all without one new byte."""

Progress = Callable[[str, int, int], None]
"""Called with a file's name, its bytes so far and its size."""


class Interrupted(Exception):
    """The stream broke off: worth another try from where it did."""


class CannotResume(Exception):
    """The remote gives the file from its beginning only."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a file must be: its size, and the sha256 where anybody knows it."""

    size_bytes: int
    sha256: str | None


class Remote(Protocol):
    """A file elsewhere. `label` says where, for messages: its address."""

    @property
    def label(self) -> str: ...

    def describe(self) -> Described:
        """Ask for size and sha256. Raises a ServiceError with a message of its own for each reason."""
        ...

    def read(self, start: int) -> Iterator[bytes]:
        """The bytes from `start`. Raises a ServiceError, Interrupted or CannotResume."""
        ...


class Transfer:
    """Fetches files. `pause` waits between attempts."""

    def __init__(self, progress: Progress | None = None, pause: Callable[[float], None] = time.sleep) -> None:
        self._progress = progress or (lambda name, done, size: None)
        self._pause = pause

    def fetch(self, remote: Remote, target: Path, expected: Described, *, exclusive: bool) -> None:
        """Write `target`. Raises ModelLoadFailed or the remote's error, and then leaves no part.

        `exclusive`: no other process writes here, so a part of this file is a dead one's. It is gone on with where a
        sha256 can tell in the end whether that was right.
        """
        part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(8)}.part")
        try:
            if exclusive:
                _take_over(part, target, usable=expected.sha256 is not None)
            with part.open("a+b") as file:
                written = _Part(file)
                self._fill(written, remote, target, expected)
                written.to_disk()
            part.replace(target)
            sync_directory(target.parent)
        except Exception as error:  # not KeyboardInterrupt, which is a kill: the part stays for the next start
            part.unlink(missing_ok=True)
            if isinstance(error, OSError):  # remotes turn theirs into others
                raise disk_error(error, target) from error
            raise

    def _fill(self, part: "_Part", remote: Remote, target: Path, expected: Described) -> None:
        """Write what is missing and check the whole; begin anew, once, where going on from a part came out wrong."""
        self._complete(part, remote, target, expected)
        if expected.sha256 not in (None, part.sha256) and part.resumed:
            logs.event("weights_begun_anew", file=target.name, expected=expected.sha256, got=part.sha256)
            part.clear()
            self._complete(part, remote, target, expected)
        if expected.sha256 not in (None, part.sha256):
            raise ModelLoadFailed(
                f"{remote.label} came with the sha256 {part.sha256}, but {target.name} must have {expected.sha256}: "
                "the file there is another one or damaged, or something on the way changes it; correct the file or "
                "the sha256 that is given for it"
            )

    def _complete(self, part: "_Part", remote: Remote, target: Path, expected: Described) -> None:
        furthest, failures = part.size_bytes, 0
        while part.size_bytes < expected.size_bytes:
            try:
                self._stream(part, remote, target, expected)
            except CannotResume:
                part.clear()
            except Interrupted as error:
                failures = 1 if part.size_bytes > furthest else failures + 1
                furthest = max(furthest, part.size_bytes)
                part.resumed = True
                if failures == ATTEMPTS:
                    raise ModelLoadFailed(
                        f"{remote.label} broke off {ATTEMPTS} times running at {part.size_bytes} of "
                        f"{expected.size_bytes} bytes ({error}): try again when the network holds, or bring the file "
                        "by other means and name its path in deploy.yaml"
                    ) from error
                logs.event("weights_interrupted", file=target.name, at_bytes=part.size_bytes, reason=str(error))
                self._pause(PAUSE_S * 2 ** (failures - 1))

    def _stream(self, part: "_Part", remote: Remote, target: Path, expected: Described) -> None:
        for block in remote.read(part.size_bytes):
            part.write(block)
            if part.size_bytes > expected.size_bytes:
                raise ModelLoadFailed(
                    f"{remote.label} is longer than the {expected.size_bytes} bytes that {target.name} must have: the "
                    "file there is another one"
                )
            self._progress(target.name, part.size_bytes, expected.size_bytes)
        if part.size_bytes < expected.size_bytes:
            raise Interrupted(f"it ended after {part.size_bytes} of {expected.size_bytes} bytes")


class _Part:
    """A file that is being written, with the digest of what is in it. `resumed`: not all of it came in one stream."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest, self.size_bytes = hashlib.sha256(), 0
        file.seek(0)
        for block in blocks(file):
            self._digest.update(block)
            self.size_bytes += len(block)
        self.resumed = self.size_bytes > 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, block: bytes) -> None:
        self._file.write(block)
        self._digest.update(block)
        self.size_bytes += len(block)

    def clear(self) -> None:
        self._file.truncate(0)
        self._digest, self.size_bytes, self.resumed = hashlib.sha256(), 0, False

    def to_disk(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def leftovers(directory: Path, name: str | None = None) -> list[Path]:
    """Parts in `directory`, of the file `name` or of all, the largest first."""
    found: list[tuple[int, Path]] = []
    with suppress(FileNotFoundError, NotADirectoryError):  # no such directory yet
        for path in directory.iterdir():
            if (match := PART.fullmatch(path.name)) and name in (None, match["name"]):
                with suppress(FileNotFoundError):  # its writer has just ended
                    found.append((path.stat().st_size, path))
    return [path for _, path in sorted(found, reverse=True)]


def sweep(directory: Path, wanted: Iterable[str] = ()) -> None:
    """Remove the parts that dead processes left, save those of files that are `wanted`. Only for who holds it."""
    keep = {path for name in wanted for path in leftovers(directory, name)[:1]}
    for path in leftovers(directory):
        if path not in keep:
            path.unlink(missing_ok=True)


def _take_over(part: Path, target: Path, *, usable: bool) -> None:
    """Make the largest part that the dead have left of `target` into `part`; remove the others, or all."""
    for at, left in enumerate(leftovers(target.parent, target.name)):
        if usable and at == 0:
            left.rename(part)
        else:
            left.unlink()
