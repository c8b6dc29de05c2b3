"""What the file systems of this machine can take. Only looks; writes nothing."""

import os
from pathlib import Path

__all__ = ["Disk", "human", "nearest"]

OWN_BLOCK_BYTES = 512  # st_blocks counts in these, whatever the file system


class Disk:
    """The real file systems; tests give another one."""

    def free_bytes(self, path: Path) -> int:
        """What this user may still write where `path` lies, or will lie."""
        found = os.statvfs(nearest(path))
        return found.f_bavail * found.f_frsize

    def device(self, path: Path) -> int:
        """Equal for two paths on one file system."""
        return nearest(path).stat().st_dev

    def problem(self, directory: Path) -> str | None:
        """Why nothing could be written below `directory`, which need not exist; None if nothing speaks against it."""
        there = nearest(directory)
        if not there.is_dir():
            return f"{there} is not a directory"
        if os.statvfs(there).f_flag & os.ST_RDONLY:
            return f"{there} is on a file system that is mounted read-only"
        if not os.access(there, os.W_OK | os.X_OK):
            return f"this user may not write to {there}"
        return None

    def size_bytes(self, directory: Path) -> int:
        """Blocks in use below `directory`; a file with several names counts once."""
        seen: set[tuple[int, int]] = set()
        total = 0
        for folder, folders, files in os.walk(directory):
            for name in (*folders, *files):
                found = os.lstat(os.path.join(folder, name))
                if found.st_nlink > 1 and (found.st_dev, found.st_ino) in seen:
                    continue
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * OWN_BLOCK_BYTES
        return total


def nearest(path: Path) -> Path:
    """`path`, or the closest parent of it that exists."""
    path = path.absolute()
    return next(there for there in (path, *path.parents) if os.path.lexists(there))


def human(count: int) -> str:
    """ "1.4 GB"."""
    if count >= 10**9:
        return f"{count / 10**9:.1f} GB"
    return f"{count / 10**6:.0f} MB" if count >= 10**6 else f"{count} bytes"
