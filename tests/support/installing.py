"""A clone with small locks, for `env_setup install` with real venvs and wheels and no download."""

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from env_setup.disk import Disk
from env_setup.facts import Request
from env_setup.findings import Probes
from env_setup.install import Installer
from env_setup.machine import Environment, describe_environment, describe_machine
from env_setup.wheels import sha256_of
from tests.support.stand_in_wheel import write_wheel

PURE = {"python_tag": "py3", "platform": "any"}
BACKEND = '''"""Builds an editable wheel of this folder: no index is asked for setuptools."""

import zipfile
from pathlib import Path


def build_editable(directory, config_settings=None, metadata_directory=None):
    info, name = "serve_app-0.1.dist-info", "serve_app-0.1-py3-none-any.whl"
    with zipfile.ZipFile(Path(directory) / name, "w") as wheel:
        wheel.writestr("serve_app.pth", str(Path(__file__).parent))
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: serve_app\\nVersion: 0.1\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
'''
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "serve_app"
version = "0.1"
"""
WEIGHTS = """
import os, sys
print("fetching", *sys.argv[1:], flush=True)
sys.exit(int(os.environ.get("WEIGHTS_EXIT", "0")))
"""


class Roomy(Disk):
    """The real file systems, but never full: the plan's sizes are those of the real packages."""

    def free_bytes(self, path: Path) -> int:
        return 10**12


@dataclass
class World:
    """A clone with small locks, and what was said."""

    root: Path
    running: Environment
    said: list[str] = field(default_factory=list)

    @property
    def printed(self) -> str:
        return "\n".join(self.said)

    def installer(self, disk: Disk | None = None, **asked: object) -> Installer:
        self.said.clear()
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "AWS_"))}
        environ |= {"UV_CACHE_DIR": str(self.root / "cache"), "UV_OFFLINE": "1", "UV_NO_CONFIG": "1"}
        environ |= {"WEIGHTS_DIR": str(self.root / "weights"), "DATA_DIR": str(self.root), **asked.pop("environ", {})}
        request = Request(**({"environ": environ, "locks": self.root / "locks"} | asked))
        machine = replace(describe_machine(), has_nvidia_gpu=False, gpus=())
        return Installer(request, machine, self.running, Probes(disk or Roomy()), self.root, self.said.append)


def make_world(tmp_path: Path) -> World:
    """Locks of stand-ins in the running Ray's and numpy's versions; serve_app is a stub; uv's cache is empty."""
    running = replace(describe_environment(Path(sys.executable)), has_serve_app=False, torch=None)
    for folder in ("locks", "serve_app"):
        (tmp_path / folder).mkdir()
    names = {"ray": running.ray, "numpy": running.numpy, "torch": "2.6.0", "torchaudio": "2.6.0", "f5_tts": "1.1.22"}
    made = {name: write_wheel(tmp_path / "wheels", name, version, **PURE) for name, version in names.items()}
    lock(tmp_path / "locks" / "base.lock", made["ray"], made["numpy"])
    lock(tmp_path / "locks" / "f5.lock", made["torch"], made["torchaudio"], made["f5_tts"])
    files = {
        "pyproject.toml": PROJECT,
        "backend.py": BACKEND,
        "serve_app/__init__.py": "",
        "serve_app/weights.py": WEIGHTS,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return World(tmp_path, running)


def lock(path: Path, *wheels: Path) -> None:
    path.write_text(
        "".join(f"{wheel.name.split('-')[0]} @ {wheel.as_uri()} --hash=sha256:{sha256_of(wheel)}\n" for wheel in wheels)
    )


def contents(folder: Path) -> dict[str, int]:
    """Every file below it and when it was written; without uv's cache and what Python compiled."""
    paths = (path for path in folder.rglob("*") if not {"cache", "__pycache__"} & set(path.relative_to(folder).parts))
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in paths if not path.is_dir()}
