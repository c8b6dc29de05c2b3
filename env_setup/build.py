"""Makes the prepared environment of the f5 replicas: a venv from the locks, complete or not there at all."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["LOCK_NAMES", "STAMP", "StepFailed", "build", "build_problem", "is_current", "run"]

STAMP = ".installed"
LOCK_NAMES = ("base.lock", "f5.lock")
LAST_LINES = 12


class StepFailed(RuntimeError):
    """A step of the installation failed; the message says why, and the disk is as it was."""


def is_current(directory: Path, locks: Path) -> bool:
    """Whether `directory` was completed from these locks."""
    try:
        return (directory / STAMP).read_text() == _digest(locks)
    except OSError:
        return False


def build_problem(directory: Path, locks: Path, root: Path, uv: Sequence[str] | None) -> str | None:
    """Why nothing may or can be built at `directory`; None if nothing speaks against it."""
    for name in LOCK_NAMES:
        if not (locks / name).is_file():
            return f"--locks is {str(locks)!r}, which does not hold {name}: name the folder env_setup/locks of a clone"
    if not (root / "pyproject.toml").is_file():
        return (
            f"env_setup runs from {root}, where the sources of serve_app are not: --environment installs them too, so "
            "run it from a clone of the repository"
        )
    if uv is None:
        return f"uv is not there: `{sys.executable} -m pip install uv`, or run this in .venv (`make .venv/.installed`)"
    if os.path.lexists(directory) and not directory.is_dir():
        return f"--environment is {str(directory)!r}, which is not a directory"
    if directory.is_dir() and not (directory / "pyvenv.cfg").is_file() and any(directory.iterdir()):
        return f"--environment is {str(directory)!r}, which holds something else than a venv: name a new directory"
    if directory.is_symlink():
        return f"--environment is {str(directory)!r}, which is a link: name the directory itself"
    if Path(sys.prefix).absolute() == directory.absolute():
        return f"--environment is {str(directory)!r}, the environment that this runs in: name another directory"
    return None


def build(directory: Path, locks: Path, root: Path, uv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Build the venv at `directory`, in place of one that is not current. Raises StepFailed.

    Whatever goes wrong, what stood there before stands there again.
    """
    python = directory / "bin" / "python"
    install = [*uv, "pip", "install", "--python", str(python), "--no-deps"]
    packages = [part for name in LOCK_NAMES for part in ("-r", str(locks / name))]
    with _own_folder(directory.parent), _replacing(directory):
        run([*uv, "venv", "--python", sys.executable, str(directory)], environ)
        run([*install, "--compile-bytecode", *packages], environ)
        run([*install, "--editable", str(root)], environ)
        (directory / STAMP).write_text(_digest(locks))


def run(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Run it to its end; on a terminal its progress is seen. Raises StepFailed with its last lines."""
    seen = sys.stderr.isatty()
    try:
        done = subprocess.run(
            command, env=dict(environ), text=True, stdin=subprocess.DEVNULL, stderr=None if seen else subprocess.PIPE
        )
    except OSError as error:
        raise StepFailed(f"{command[0]} does not run: {error.strerror}") from error
    if done.returncode != 0:
        said = "its messages stand above" if seen else "\n".join(done.stderr.strip().splitlines()[-LAST_LINES:])
        raise StepFailed(f"`{' '.join(command)}` ended with exit status {done.returncode}:\n{said}")


@contextmanager
def _own_folder(folder: Path) -> Iterator[None]:
    """Make `folder` where it is missing, and hold it against another env_setup. Made in vain, it is removed again."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise StepFailed(f"{folder} cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # of the directory itself: no file is left behind
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise
    finally:
        os.close(handle)


@contextmanager
def _replacing(directory: Path) -> Iterator[None]:
    """What stands at `directory` is put aside, then removed; after an exception it is put back."""
    aside = directory.with_name(f"{directory.name}.replaced-{os.getpid()}")
    try:
        if had := directory.exists():
            directory.rename(aside)
    except OSError as error:
        raise StepFailed(f"{directory} cannot be replaced: {error.strerror}") from error
    try:
        yield
    except BaseException as error:
        shutil.rmtree(directory, ignore_errors=True)
        if had:
            aside.rename(directory)
        if isinstance(error, OSError):
            raise StepFailed(f"{directory} cannot be written: {error.strerror}") from error
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _digest(locks: Path) -> str:
    """Of the locks together."""
    return hashlib.sha256(b"".join((locks / name).read_bytes() for name in LOCK_NAMES)).hexdigest() + "\n"
