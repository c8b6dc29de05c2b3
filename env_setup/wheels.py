"""Which flash_attn wheel is meant, and whether it fits an environment. Standard library only; installs nothing.

FLASH_ATTN_WHEEL, else the row of pins.py that fits -> ChosenWheel -> misfits(), requirement
"""

import hashlib
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from env_setup.pins import FLASH_ATTN_WHEELS, TORCH_VERSION

__all__ = [
    "BUILT_FOR",
    "LOCKED_TARGET",
    "OVERRIDE",
    "ChosenWheel",
    "Target",
    "WheelError",
    "choose_wheel",
    "misfits",
    "sha256_of",
]

OVERRIDE = "FLASH_ATTN_WHEEL"
DISTRIBUTION = "flash_attn"
FILE_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl"
)
BUILT_FOR = re.compile(r"\+cu(?P<cuda>\d+)torch(?P<torch>[\d.]+)cxx11abi(?P<abi>TRUE|FALSE)")
SHA256 = re.compile(r"[0-9a-f]{64}")


class WheelError(ValueError):
    """What is asked for is not a wheel of flash_attn; the message says what to set."""


@dataclass(frozen=True, slots=True)
class Target:
    """The environment that a wheel must fit. None: not known, and not compared."""

    python: str  # "3.11"
    torch: str | None = None  # "2.6.0"
    cxx11_abi: bool | None = None
    cuda: str | None = None  # "12.4"
    platform: str = "linux_x86_64"


LOCKED_TARGET = Target(python="3.11", torch=TORCH_VERSION, cxx11_abi=False, cuda="12.4")
"""What base.lock and f5.lock install together (torch 2.6.0 of the package registry)."""


@dataclass(frozen=True, slots=True)
class ChosenWheel:
    """A wheel: `url` is http(s):// or file://, without a fragment; `origin` says who chose it, for messages."""

    url: str
    sha256: str | None
    origin: str

    @property
    def filename(self) -> str:
        return urllib.parse.unquote(urllib.parse.urlsplit(self.url).path.rsplit("/", 1)[-1])

    @property
    def version(self) -> str:
        """By its file name: "2.8.2+cu12torch2.6cxx11abiFALSE". Installed, the published wheels say "2.8.2"."""
        return _file_name(self.filename, self.origin)["version"]

    @property
    def path(self) -> Path | None:
        """The file of a file:// URL."""
        parts = urllib.parse.urlsplit(self.url)
        return Path(urllib.parse.unquote(parts.path)) if parts.scheme == "file" else None

    @property
    def requirement(self) -> str:
        """For pip and uv: they check the hash before they install."""
        return f"{DISTRIBUTION} @ {self.url}" + (f"#sha256={self.sha256}" if self.sha256 else "")


def choose_wheel(environ: Mapping[str, str], target: Target = LOCKED_TARGET) -> ChosenWheel:
    """FLASH_ATTN_WHEEL where it is set (URL or file, `#sha256=` accepted), else the pinned row that fits `target`.

    Where no row fits it is the first, so that `misfits` can say why. Raises WheelError.
    """
    if value := environ.get(OVERRIDE, "").strip():
        return _overridden(value)
    pinned = [ChosenWheel(row.url, row.sha256, "env_setup/pins.py") for row in FLASH_ATTN_WHEELS]
    return next((wheel for wheel in pinned if not misfits(wheel, target)), pinned[0])


def misfits(wheel: ChosenWheel, target: Target) -> list[str]:
    """Why `wheel` cannot be used in `target`; empty if nothing speaks against it."""
    tags = _file_name(wheel.filename, wheel.origin)
    found = []
    pythons, wanted = tags["python"].split("."), "cp" + target.python.replace(".", "")
    if not {wanted, "py3"}.intersection(pythons):
        found.append(f"it is for {tags['python']} and the Python is {wanted}")
    platforms = tags["platform"].split(".")
    if "any" not in platforms and not any(p.endswith(target.platform.removeprefix("linux")) for p in platforms):
        found.append(f"it is for {tags['platform']} and the machine is {target.platform}")
    built = BUILT_FOR.search(tags["version"])
    if built is None:
        return found  # a wheel that somebody built themselves: its name does not say for which torch
    if target.torch is not None and not f"{target.torch}.".startswith(f"{built['torch']}."):
        found.append(f"it is for torch {built['torch']} and the torch is {target.torch}")
    if target.cxx11_abi is not None and (built["abi"] == "TRUE") != target.cxx11_abi:
        found.append(f"it is for C++11 ABI {built['abi']} and torch's is {str(target.cxx11_abi).upper()}")
    if target.cuda is not None and target.cuda.split(".")[0] != built["cuda"][:2]:
        found.append(f"it is for CUDA {built['cuda'][:2]} and torch's is {target.cuda}")
    return found


def sha256_of(path: Path) -> str:
    """Hex digest of the file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _overridden(value: str) -> ChosenWheel:
    address, _, fragment = value.partition("#")
    sha256 = fragment.removeprefix("sha256=").lower() if fragment else None
    if sha256 is not None and (not fragment.startswith("sha256=") or not SHA256.fullmatch(sha256)):
        raise WheelError(f"{OVERRIDE} ends in #{fragment!r}: write #sha256= and 64 hex digits, or nothing")
    scheme = urllib.parse.urlsplit(address).scheme
    if scheme in ("http", "https", "file"):
        wheel = ChosenWheel(address, sha256, OVERRIDE)
    elif scheme:
        raise WheelError(f"{OVERRIDE} is {value!r}: give an http(s):// or file:// URL, or the path of a file")
    else:
        wheel = ChosenWheel(Path(address).absolute().as_uri(), sha256, OVERRIDE)
    _file_name(wheel.filename, OVERRIDE)
    if wheel.path is not None and not wheel.path.is_file():
        raise WheelError(f"{OVERRIDE} is {value!r}, and there is no such file on this machine")
    return wheel


def _file_name(name: str, origin: str) -> dict[str, str]:
    match = FILE_NAME.fullmatch(name)
    if match is None or match["name"].lower().replace(".", "_") != DISTRIBUTION:
        raise WheelError(
            f"{origin} names {name!r}, which is not a wheel of flash_attn: it ends in a file name such as "
            f"{FLASH_ATTN_WHEELS[0].url.rsplit('/', 1)[-1]}"
        )
    return {key: value or "" for key, value in match.groupdict().items()}
