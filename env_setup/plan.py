"""The steps in order, and what each needs of which disk."""

import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from env_setup.disk import Disk, human
from env_setup.facts import Facts
from env_setup.layout import weights_dir
from env_setup.pins import FLASH_ATTN_WHEELS, PINNED_WEIGHTS, HubFile, Wheel
from env_setup.wheels import ChosenWheel

__all__ = ["ENVIRONMENT", "FLASH_ATTN", "RAY", "WEIGHTS", "Need", "Step", "absent_weights", "make_plan", "uv_cache"]

ENVIRONMENT, FLASH_ATTN, WEIGHTS, RAY = "environment", "flash_attn", "weights", "ray"

# Measured: base.lock and f5.lock with torch 2.6.0.
CACHED_BYTES = 5_600_000_000  # downloaded and unpacked in uv's cache
LINKED_BYTES = 320_000_000  # beside the hard links into it: bytecode
COPIED_BYTES = 6_400_000_000  # in place of links, where cache and environment are on two file systems


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that will be written below `path`."""

    what: str
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Step:
    """`skip`: why nothing is to be done. The step `ray` is Ray's own, when f5 is deployed."""

    name: str
    does: str
    needs: tuple[Need, ...] = ()
    skip: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        needs = [asdict(need) | {"path": str(need.path)} for need in self.needs]
        return {"name": self.name, "does": self.does, "needs": needs, "skip": self.skip}

    def __str__(self) -> str:
        needs = ", ".join(f"{need.what} {human(need.size_bytes)} in {need.path}" for need in self.needs)
        return f"{self.name}: " + (f"nothing to do: {self.skip}" if self.skip else self.does + (needs and f"; {needs}"))


def make_plan(facts: Facts, disk: Disk) -> list[Step]:
    """In the order of running. Heavy packages come before weights, so nothing is fetched for what cannot run."""
    request = facts.request
    steps = [_environment(facts, disk)] if request.directory is not None else []
    steps.append(_flash_attn(facts, disk))
    if request.weights:
        steps.append(_weights(facts))
    if facts.form == "ray" and facts.runs_f5:
        steps.append(_ray(facts, disk))
    return steps


def uv_cache(environ: Mapping[str, str]) -> Path:
    """Where uv keeps what it has downloaded."""
    if value := environ.get("UV_CACHE_DIR", "").strip():
        return Path(value).absolute()
    return Path(environ.get("XDG_CACHE_HOME", "").strip() or Path.home() / ".cache") / "uv"


def absent_weights(folder: Path) -> list[HubFile]:
    """The pinned files that are not in `folder` in their size."""
    return [file for file in PINNED_WEIGHTS if _size(folder / file.key) != file.size_bytes]


def _environment(facts: Facts, disk: Disk) -> Step:
    directory = facts.request.directory
    assert directory is not None  # only planned where it was given
    if not facts.to_build:
        return Step(ENVIRONMENT, f"venv {directory}", skip=f"{directory} is complete and of these locks")
    return Step(
        ENVIRONMENT, f"build a venv at {directory} from base.lock and f5.lock", _closure(facts, disk, directory)
    )


def _closure(facts: Facts, disk: Disk, directory: Path) -> tuple[Need, ...]:
    cache = uv_cache(facts.request.environ)
    linked = disk.device(cache) == disk.device(directory)
    unpack = Need("unpack", directory, LINKED_BYTES if linked else COPIED_BYTES)
    return Need("download", cache, CACHED_BYTES), unpack


def _flash_attn(facts: Facts, disk: Disk) -> Step:
    chosen = facts.flash_attn
    if chosen.state != "install" or chosen.wheel is None:
        return Step(FLASH_ATTN, "install flash_attn", skip=chosen.reason)
    into = Path(facts.target.site_packages) if facts.target else facts.python.parents[1]
    download, unpacked = _wheel_bytes(chosen.wheel)
    cache = uv_cache(facts.request.environ)
    needs = [Need("download and unpack", cache, download + unpacked)]
    if disk.device(cache) != disk.device(into):
        needs.append(Need("unpack", into, unpacked))
    return Step(FLASH_ATTN, f"install {chosen.reason} into {facts.python.parents[1]}", tuple(needs))


def _wheel_bytes(wheel: ChosenWheel) -> tuple[int, int]:
    """(download, unpacked); estimates, unless it is a file."""
    if wheel.path is not None:
        try:
            with zipfile.ZipFile(wheel.path) as archive:
                return 0, sum(entry.file_size for entry in archive.infolist())
        except (OSError, zipfile.BadZipFile):
            return 0, 0  # a finding says so
    row: Wheel = next((row for row in FLASH_ATTN_WHEELS if row.url == wheel.url), FLASH_ATTN_WHEELS[0])
    return row.download_bytes, row.installed_bytes


def _weights(facts: Facts) -> Step:
    folder = weights_dir(facts.request.environ)
    if not facts.runs_f5:
        return Step(
            WEIGHTS, "fetch the weights", skip="no NVIDIA GPU on this machine: `prefetch` fetches them all the same"
        )
    size = sum(file.size_bytes or 0 for file in absent_weights(folder))
    does = f"fetch the weights into {folder}" if size else f"check the weights in {folder}"
    return Step(WEIGHTS, does, (Need("download", folder, size),) if size else ())


def _ray(facts: Facts, disk: Disk) -> Step:
    environ = facts.request.environ
    temporary = environ.get("RAY_TMPDIR", "").strip() or environ.get("TMPDIR", "").strip() or "/tmp"
    folder = Path(temporary) / "ray"
    needs = _closure(facts, disk, folder)
    if facts.running.is_venv:
        copied = disk.size_bytes(Path(facts.running.prefix))
        needs = (Need("copy of the environment, in every Ray session", folder, copied), *needs)
    return Step(RAY, "Ray installs f5.lock and flash_attn over this environment, when f5 is deployed", needs)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
