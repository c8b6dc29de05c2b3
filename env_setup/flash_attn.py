"""Puts the flash_attn wheel into an environment, or leaves the environment as it was."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from env_setup.build import StepFailed, run
from env_setup.guard import remove_guard
from env_setup.machine import Environment, describe_environment
from env_setup.prepared import holds_wheel
from env_setup.wheels import OVERRIDE, ChosenWheel

__all__ = ["install_wheel"]

TOP_LEVEL = ("flash_attn", "hopper")
"""How the names begin that a wheel of flash_attn puts into site-packages."""


def install_wheel(
    target: Environment, wheel: ChosenWheel, uv: Sequence[str] | None, environ: Mapping[str, str]
) -> Environment:
    """The environment with `wheel`, its dependencies untouched. Raises StepFailed.

    The installer checks the wheel's hash. What stood there before is put aside, so that it must be checked: uv takes
    what is installed from the same URL for right, whatever the hash.
    """
    command = [sys.executable, "-m", "pip", "--python", str(target.path), "install", "--disable-pip-version-check"]
    if uv is not None:
        command = [*uv, "pip", "install", "--python", str(target.path)]
    with _replacing(Path(target.site_packages)):
        if uv is None and target.is_venv:
            remove_guard(Path(target.prefix))  # which pip reads and uv does not; the caller writes it again
        try:
            run([*command, "--no-deps", wheel.requirement], environ)
        except StepFailed as error:
            raise StepFailed(
                f"{wheel.filename} ({wheel.origin}) could not be installed into {target.prefix}, which is as it was. "
                f"If the address or the hash is wrong, set {OVERRIDE} to a URL or file, with its #sha256=. {error}"
            ) from error
        after = describe_environment(target.path)
        if not holds_wheel(after, wheel):
            raise StepFailed(
                f"{wheel.filename} ({wheel.origin}) installed flash_attn {after.flash_attn or 'nowhere'}: its METADATA "
                f"does not say what its name says; {target.prefix} is as it was"
            )
    return after


@contextmanager
def _replacing(site_packages: Path) -> Iterator[None]:
    """The flash_attn that is there is put aside, then removed; after an exception it is put back."""
    aside = site_packages / f".flash_attn-replaced-{os.getpid()}"
    try:
        had = _names(site_packages)
        if mine := sorted(name for name in had if name.startswith(TOP_LEVEL[0])):
            aside.mkdir()
            for name in mine:
                (site_packages / name).rename(aside / name)
    except OSError as error:
        raise StepFailed(f"{site_packages} cannot be written: {error.strerror}") from error
    kept = _names(site_packages)
    try:
        yield
    except BaseException:
        for name in _names(site_packages) - kept:
            if name.startswith(TOP_LEVEL):
                _remove(site_packages / name)
        for name in mine:
            (aside / name).rename(site_packages / name)
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
