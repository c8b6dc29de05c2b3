"""What one interpreter holds, found by running it once, and what the machine below it is. Judges nothing."""

import ctypes
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Environment", "EnvironmentMissing", "Gpu", "Machine", "describe_environment", "describe_machine", "numbers"]

TIMEOUT_S = 30.0

# Torch is not imported: that takes 2 s and 200 MB. Its C++ ABI stands in TorchConfig.cmake, which extensions are built
# by; its CUDA version in version.py. The current directory counts for nothing: what lies there is not installed.
SCRIPT = r"""
import importlib.metadata as metadata, importlib.util as util, json, os, re, sys, sysconfig
sys.path[:] = [entry for entry in sys.path if entry]

def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

def package(name):
    spec = util.find_spec(name)
    return spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else None

def in_torch(pattern, *path):
    try:
        with open(os.path.join(package("torch") or "", *path)) as file:
            found = re.search(pattern, file.read())
    except OSError:
        return None
    return found and found.group(1)

def wheel_of(name):
    try:
        url = json.loads(metadata.distribution(name).read_text("direct_url.json") or "{}").get("url")
    except metadata.PackageNotFoundError:
        return None
    return url and url.partition("#")[0].rpartition("/")[2]

abi = in_torch(r"_GLIBCXX_USE_CXX11_ABI=([01])", "share", "cmake", "Torch", "TorchConfig.cmake")
names = {"ray": "ray", "numpy": "numpy", "torch": "torch", "torchaudio": "torchaudio", "f5_tts": "f5-tts",
         "flash_attn": "flash_attn", "uv": "uv", "pip": "pip"}
print("\n" + json.dumps({
    "python": "%d.%d.%d" % sys.version_info[:3],
    "prefix": sys.prefix,
    "is_venv": sys.prefix != sys.base_prefix,
    "site_packages": sysconfig.get_path("platlib"),
    **{field: version(name) for field, name in names.items()},
    "flash_attn_wheel": wheel_of("flash_attn"),
    "torch_cuda": in_torch(r"cuda\b[^=\n]*=\s*'([^']+)'", "version.py"),
    "cxx11_abi": None if abi is None else abi == "1",
    "has_serve_app": package("serve_app") is not None,
    "has_env_setup": package("env_setup") is not None,
}))
"""


class EnvironmentMissing(ValueError):
    """There is no interpreter that runs; the message names the path and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What one interpreter has. A version is None where the package is absent."""

    path: Path
    python: str  # "3.11.9"
    prefix: str
    is_venv: bool
    site_packages: str = ""
    ray: str | None = None
    numpy: str | None = None
    torch: str | None = None
    torchaudio: str | None = None
    f5_tts: str | None = None
    flash_attn: str | None = None
    uv: str | None = None
    pip: str | None = None
    flash_attn_wheel: str | None = None  # name of the file that it was installed from, where that is recorded
    torch_cuda: str | None = None  # "12.4"
    cxx11_abi: bool | None = None  # None: torch does not say
    has_serve_app: bool = False
    has_env_setup: bool = False

    @property
    def is_system(self) -> bool:
        """No venv."""
        return not self.is_venv

    @property
    def python_minor(self) -> str:
        """ "3.11"."""
        return ".".join(self.python.split(".")[:2])


def describe_environment(python: Path, timeout_s: float = TIMEOUT_S) -> Environment:
    """What the interpreter at `python` holds. Raises EnvironmentMissing."""
    if not python.exists():
        raise EnvironmentMissing(f"there is no interpreter at {python}")
    if not python.is_file() or not os.access(python, os.X_OK):
        raise EnvironmentMissing(f"{python} is not an executable file")
    try:
        done = subprocess.run(
            [python, "-c", SCRIPT], capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentMissing(f"{python} did not answer within {timeout_s:g} s") from error
    except OSError as error:
        raise EnvironmentMissing(f"{python} does not run: {error.strerror}") from error
    lines = done.stdout.splitlines() or [""]
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise EnvironmentMissing(f"{python} does not run: exit status {done.returncode}, {said}")
    try:
        return Environment(path=python, **json.loads(lines[-1]))
    except (ValueError, TypeError) as error:
        raise EnvironmentMissing(f"{python} is not a Python: it answered {lines[-1][:80]!r}") from error


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU as nvidia-smi lists it."""

    name: str
    memory_bytes: int
    compute_capability: str | None = None  # "9.0"


@dataclass(frozen=True, slots=True)
class Machine:
    """None: not known. Memory is what this process may use: the smaller of the machine's and its cgroups'."""

    platform: str  # "linux_x86_64", as wheels are tagged
    cores: int
    memory_bytes: int
    available_bytes: int
    glibc: str | None = None  # "2.36"
    driver: str | None = None  # "550.54.15"
    driver_cuda: str | None = None  # "12.4": the newest CUDA that the driver can run
    gpus: tuple[Gpu, ...] = ()
    has_nvidia_gpu: bool = False


def describe_machine(root: Path = Path("/"), query: Callable[[], str] | None = None) -> Machine:
    """`root` holds proc, sys and dev; `query` is nvidia-smi, for tests."""
    gpus, driver = _gpus((query or _nvidia_smi)())
    memory, available = _memory(root)
    if driver is None and (stated := root / "proc/driver/nvidia/version").exists():
        found = re.search(r"Kernel Module\D*([\d.]+)", stated.read_text())
        driver = found.group(1) if found else None
    library, version = platform.libc_ver()
    return Machine(
        platform=f"{platform.system().lower()}_{platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=memory,
        available_bytes=available,
        glibc=version if library == "glibc" else None,
        driver=driver,
        driver_cuda=_driver_cuda(),
        gpus=gpus,
        # A container sees its host's /proc/driver whether or not it was given the GPU; its device node it does not.
        has_nvidia_gpu=bool(gpus) or any(re.fullmatch(r"nvidia\d+", node.name) for node in root.glob("dev/nvidia*")),
    )


def numbers(version: str) -> tuple[int, ...]:
    """For comparing: "550.54.15" as (550, 54, 15)."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _nvidia_smi() -> str:
    if (program := shutil.which("nvidia-smi")) is None:
        return ""
    command = [program, "--query-gpu=name,memory.total,compute_cap,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _gpus(listed: str) -> tuple[tuple[Gpu, ...], str | None]:
    """From `name, MiB, compute capability, driver` lines."""
    rows = [[cell.strip() for cell in line.split(",")] for line in listed.splitlines()]
    rows = [row for row in rows if len(row) == 4]
    gpus = tuple(
        Gpu(name, int(mib) * 2**20 if mib.isdigit() else 0, capability if capability[:1].isdigit() else None)
        for name, mib, capability, _ in rows
    )
    return gpus, rows[0][3] if rows else None


def _driver_cuda() -> str | None:
    try:
        version = ctypes.c_int()
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _memory(root: Path) -> tuple[int, int]:
    """Total and available bytes."""
    lines = _read(root / "proc/meminfo").splitlines()
    stated = {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}
    total = stated.get("MemTotal", 0)
    available = stated.get("MemAvailable", total)
    for limit, used, stat in _cgroups(root):
        if limit.strip().isdigit() and (allowed := int(limit)) < 2**60:
            cached = re.search(
                r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE
            )  # given back when it is asked for
            free = allowed - int(used or 0) + (int(cached.group(1)) if cached else 0)
            total, available = min(total, allowed), max(0, min(available, free))
    return total, available


def _cgroups(root: Path) -> list[tuple[str, str, str]]:
    """(limit, used, statistics) of this process's cgroups, as they stand in their files."""
    found = re.search(r"^0::/(.*)$", _read(root / "proc/self/cgroup"), re.MULTILINE)
    top = root / "sys/fs/cgroup"
    own = top / (found.group(1) if found else "")
    folders = [own, *(parent for parent in own.parents if parent == top or top in parent.parents)]
    names = ("memory.max", "memory.current", "memory.stat")
    rows = [(_read(folder / names[0]), _read(folder / names[1]), _read(folder / names[2])) for folder in folders]
    old = top / "memory"  # version 1
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    return [*rows, (_read(old / names[0]), _read(old / names[1]), _read(old / names[2]))]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
