"""What keeping files in directories takes beside writing them."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from serve_app.errors import StorageMisconfigured

__all__ = ["link_new", "prune", "rename", "stat_file", "sync_directory"]

NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}
"""What link(2) fails with on a filesystem that has no hard links, such as exFAT and some of FUSE."""


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


def rename(fresh: Path, target: Path) -> bool:
    """Give `fresh` the name `target`, whatever had it. True, so that it can stand where `link_new` does."""
    fresh.replace(target)
    return True


def link_new(fresh: Path, target: Path) -> bool:
    """Give `fresh` the name `target` as well, in one step: False where another file has it.

    Raises IsADirectoryError where a directory has it, StorageMisconfigured where the filesystem has no hard links.
    """
    try:
        os.link(fresh, target)
    except FileExistsError as error:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target)) from error
        found = stat_file(target)  # NFS repeats a link whose reply was lost, and then finds its own
        return found is not None and os.path.samestat(found, fresh.stat())
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        raise StorageMisconfigured(
            f"{target} cannot be written only where nothing is: its filesystem has no hard links ({error.strerror}); "
            "set DATA_DIR to one that has, or do without conditional writes"
        ) from error
    return True
