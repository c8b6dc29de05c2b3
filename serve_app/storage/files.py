"""What keeping files in directories takes beside writing them."""

import os
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["prune", "stat_file", "sync_directory"]


def stat_file(path: Path) -> os.stat_result | None:
    """None where there is no file: nothing, or a directory."""
    with suppress(FileNotFoundError, NotADirectoryError):
        status = path.stat()
        return None if stat.S_ISDIR(status.st_mode) else status
    return None


def prune(directory: Path, root: Path) -> None:
    """Remove `directory` and those above it while they are empty; never `root`, nor what lies directly in it."""
    with suppress(OSError):  # not empty, or gone already
        while directory != root and directory.parent != root:
            directory.rmdir()
            directory = directory.parent


def sync_directory(directory: Path) -> None:
    """Put the names in `directory` on the disk: a rename is there for good only then."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
