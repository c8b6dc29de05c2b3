"""`env_setup install` with real venvs, real wheels and real file systems: all or nothing, and safe to run again."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from env_setup.build import STAMP, StepFailed
from env_setup.disk import Disk
from env_setup.facts import Request
from env_setup.findings import Probes
from env_setup.flash_attn import install_wheel
from env_setup.guard import CONSTRAINTS, PIP_CONF
from env_setup.install import Installer
from env_setup.machine import Environment, describe_environment, describe_machine
from env_setup.wheels import choose_wheel, sha256_of
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


def lock(path: Path, *wheels: Path) -> None:
    path.write_text(
        "".join(f"{wheel.name.split('-')[0]} @ {wheel.as_uri()} --hash=sha256:{sha256_of(wheel)}\n" for wheel in wheels)
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
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


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a small file system of its own."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"mounted-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("this user may not mount a file system")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def contents(folder: Path) -> dict[str, int]:
    """Every file below it and when it was written; without uv's cache and what Python compiled."""
    paths = (path for path in folder.rglob("*") if not {"cache", "__pycache__"} & set(path.relative_to(folder).parts))
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in paths if not path.is_dir()}


def test_everything_from_nothing_and_a_second_time_nothing(world: World, tmp_path: Path):
    """Environment, wheel, guard, weights, in this order; the second run changes no file."""
    wheel = write_wheel(tmp_path / "wheels")
    given = {
        "directory": tmp_path / "made/venv-f5",
        "environ": {"FLASH_ATTN_WHEEL": f"{wheel}#sha256={sha256_of(wheel)}"},
    }
    assert world.installer(for_gpu=True, **given).install(["--config", "x.yaml"]) == 0, world.printed
    assert [line.partition(":")[0] for line in world.said] == ["environment", "flash_attn", "weights", "done"]
    made = describe_environment(tmp_path / "made/venv-f5/bin/python")
    assert (made.torch, made.flash_attn, made.has_serve_app) == ("2.6.0", "2.8.2", True)
    folder = Path(made.prefix)
    assert "constraint" in (folder / PIP_CONF).read_text()
    assert (
        folder / CONSTRAINTS
    ).read_text() == f"torch==2.6.0\ntorchaudio==2.6.0\nnumpy=={made.numpy}\nflash_attn==2.8.2\n"
    before = contents(folder)
    assert world.installer(weights=False, **given).install() == 0
    assert world.said[-1] == "nothing to do"
    assert contents(folder) == before


def test_without_a_gpu_the_wheel_is_left_out_with_the_reason(world: World, tmp_path: Path):
    """The environment was asked for; the pinned wheel is of no use here."""
    assert world.installer(directory=tmp_path / "venv-f5").install() == 0, world.printed
    assert "flash_attn: nothing to do: no NVIDIA GPU on this machine" in world.printed
    assert describe_environment(tmp_path / "venv-f5/bin/python").flash_attn is None
    assert (tmp_path / "venv-f5" / PIP_CONF).exists()


def test_other_locks_build_it_anew_and_a_failure_leaves_the_old_one(world: World, tmp_path: Path):
    """A wrong hash in a lock: the message is uv's, and the environment is the one from before."""
    directory = tmp_path / "venv-f5"
    assert world.installer(directory=directory).install() == 0
    before, good = contents(directory), (tmp_path / "locks/f5.lock").read_text()
    torch = next((tmp_path / "wheels").glob("torch-*"))
    (tmp_path / "locks/f5.lock").write_text(good.replace(sha256_of(torch), "0" * 64))
    assert world.installer(directory=directory).install() == 1
    assert "environment failed" in world.said[-1]
    assert "Hash mismatch for `torch" in world.said[-1]
    assert contents(directory) == before
    (tmp_path / "locks/f5.lock").write_text(good + "# changed\n")
    assert world.installer(directory=directory).install() == 0
    assert (directory / STAMP).stat().st_mtime_ns != before[STAMP]
    assert [path.name for path in tmp_path.glob("venv-f5*")] == ["venv-f5"]


def test_a_first_build_that_fails_leaves_nothing(world: World, tmp_path: Path):
    """Not even the directories above it."""
    (tmp_path / "locks/f5.lock").write_text("torch==2.6.0 --hash=sha256:" + "0" * 64 + "\n")
    assert world.installer(directory=tmp_path / "new/deep/venv-f5").install() == 1
    assert "environment failed" in world.said[-1]
    assert not (tmp_path / "new").exists()


@pytest.fixture
def prepared(world: World, tmp_path: Path) -> Path:
    """With a flash_attn of another build."""
    old = write_wheel(tmp_path / "wheels", version="2.8.1")
    directory = tmp_path / "venv-f5"
    assert world.installer(directory=directory, environ={"FLASH_ATTN_WHEEL": str(old)}).install() == 0, world.printed
    return directory


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "wheels"))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_wheel_from_a_url_replaces_another(world: World, prepared: Path, web: str, tmp_path: Path, installer: str):
    """Its hash is checked on arrival, by pip too where there is no uv; a wrong one leaves what was there."""
    wheel = write_wheel(tmp_path / "wheels")
    before = contents(prepared)
    if installer == "pip":
        world.running = replace(world.running, uv=None)
    environ = {"UV_OFFLINE": "0", "PATH": ""}
    for sha256, status in (("0" * 64, 1), (sha256_of(wheel), 0)):
        asked = {"FLASH_ATTN_WHEEL": f"{web}/{wheel.name}#sha256={sha256}"}
        assert world.installer(directory=prepared, weights=False, environ=environ | asked).install() == status, (
            world.printed
        )
        if status == 1:
            assert "(FLASH_ATTN_WHEEL) could not be installed into" in world.said[-1]
            assert sha256_of(wheel) in world.said[-1]
            changed = {name for name, at in contents(prepared).items() if before.get(name) != at}
            assert changed <= {PIP_CONF, CONSTRAINTS}
    assert describe_environment(prepared / "bin/python").flash_attn == "2.8.2"
    assert "flash_attn==2.8.2" in (prepared / CONSTRAINTS).read_text()


def test_a_url_that_answers_404_stops_before_anything(world: World, prepared: Path, web: str):
    """NO-GO, and the findings say what to set."""
    before, wheel = contents(prepared), "flash_attn-2.8.2-cp311-cp311-linux_x86_64.whl"
    environ = {"FLASH_ATTN_WHEEL": f"{web}/no/{wheel}", "UV_OFFLINE": "0"}
    assert world.installer(directory=prepared, environ=environ).install() == 1
    assert world.printed.splitlines()[-1].startswith("NO-GO: flash_attn: ")
    assert "answers 404: set FLASH_ATTN_WHEEL" in " ".join(world.printed.split())
    assert contents(prepared) == before


def test_a_wheel_that_is_not_what_its_name_says_is_taken_out_again(world: World, prepared: Path, tmp_path: Path):
    """METADATA of another version: the old one stays, and works."""
    wheel = write_wheel(tmp_path / "wheels", version="2.8.3", metadata_version="2.7.0")
    before = contents(prepared)
    assert world.installer(directory=prepared, environ={"FLASH_ATTN_WHEEL": str(wheel)}).install() == 1
    assert world.said[-1].startswith("flash_attn failed: ")
    assert contents(prepared) == before
    assert describe_environment(prepared / "bin/python").flash_attn == "2.8.1"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 0", "installed flash_attn nowhere"),
        ("mkdir -p {site}/flash_attn; echo half > {site}/flash_attn/__init__.py; exit 1", "ended with exit status 1"),
    ],
    ids=["it did nothing", "it stopped half-way"],
)
def test_an_installer_is_not_believed(prepared: Path, tmp_path: Path, script: str, says: str):
    """Whatever it leaves or claims, the old flash_attn stands there again."""
    target = describe_environment(prepared / "bin/python")
    installer = ["sh", "-c", script.format(site=target.site_packages)]
    before = contents(prepared)
    wheel = choose_wheel({"FLASH_ATTN_WHEEL": str(write_wheel(tmp_path / "wheels"))})
    with pytest.raises(StepFailed, match=says):
        install_wheel(target, wheel, installer, os.environ)
    assert contents(prepared) == before


def test_a_small_disk_is_refused_before_anything_is_written(world: World, mount):
    """The real free space: the message names the directory, the need and what is free."""
    small = mount("size=4m")
    installer = world.installer(Disk(), directory=small / "venv-f5")
    assert installer.install() == 1
    (failed,) = (finding for finding in installer.look()[2] if finding.verdict == "fail")
    assert failed.found.startswith(f"4 MB free where {small}/venv-f5 lies, 6.4 GB needed: ")
    assert world.printed.splitlines()[-1] == f"NO-GO: free disk: {failed.found}"
    assert list(small.iterdir()) == []


def test_a_read_only_disk_is_refused_before_anything_is_written(world: World, mount):
    """Also for root, whom permissions do not stop."""
    fixed = mount("size=4m,ro")
    environ = {"WEIGHTS_DIR": str(fixed / "weights")}
    assert world.installer(directory=fixed / "venv-f5", for_gpu=True, attention="sdpa", environ=environ).install() == 1
    said = " ".join(world.printed.split())
    assert f"{fixed} is on a file system that is mounted read-only" in said
    assert f"WEIGHTS_DIR is {fixed}/weights, and {fixed} is on a file system" in said


def test_a_disk_that_fills_up_during_the_build_is_left_as_it_was(world: World, mount, tmp_path: Path):
    """Nobody knows beforehand what else will write there."""
    small = mount("size=4m")
    big = write_wheel(tmp_path / "wheels", "torch", "2.6.0", files={"torch/weights.txt": "x" * 8_000_000}, **PURE)
    lock(tmp_path / "locks/f5.lock", big)
    assert world.installer(directory=small / "venv-f5").install() == 1
    assert "No space left on device" in world.said[-1]
    assert list(small.iterdir()) == []


def test_a_disk_that_fills_up_with_the_wheel_keeps_the_old_one(world: World, mount, tmp_path: Path):
    """The environment lies on a disk with room for a small wheel only."""
    small = mount("size=8m")
    old = write_wheel(tmp_path / "wheels", version="2.8.1")
    asked = {"directory": small / "venv-f5", "weights": False}
    assert world.installer(**asked, environ={"FLASH_ATTN_WHEEL": str(old)}).install() == 0, world.printed
    before = contents(small / "venv-f5")
    new = write_wheel(tmp_path / "wheels", files={"flash_attn/__init__.py": "x = 1\n" + "#" * 20_000_000})
    assert world.installer(**asked, environ={"FLASH_ATTN_WHEEL": str(new)}).install() == 1
    assert "No space left on device" in world.said[-1]
    assert contents(small / "venv-f5") == before
    assert describe_environment(small / "venv-f5/bin/python").flash_attn == "2.8.1"


def test_prefetch_runs_the_services_own_command(world: World, tmp_path: Path, capfd, monkeypatch):
    """The installed one, not what lies in the current directory; its exit status decides."""
    (tmp_path / "here/serve_app").mkdir(parents=True)
    (tmp_path / "here/serve_app/__init__.py").touch()
    (tmp_path / "here/serve_app/weights.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path / "here")
    assert world.installer().prefetch() == 1
    assert "cannot import serve_app" in world.said[-1]
    assert world.installer(directory=tmp_path / "venv-f5").install() == 0
    asked = {"form": "prepared", "environ": {"F5_PYTHON": str(tmp_path / "venv-f5/bin/python")}}
    capfd.readouterr()
    assert world.installer(**asked).prefetch(["--config", "x.yaml"]) == 0, world.printed
    assert capfd.readouterr().out == "fetching --config x.yaml\n"
    asked["environ"] |= {"WEIGHTS_EXIT": "1"}
    assert world.installer(**asked).prefetch() == 1
    assert "ended with exit status 1" in world.said[-1]


def test_the_first_failure_stops_the_rest(world: World, prepared: Path, tmp_path: Path, capfd):
    """No weights are fetched for an environment that is not what it should be."""
    wheel = write_wheel(tmp_path / "wheels", version="2.8.3", metadata_version="2.7.0")
    capfd.readouterr()
    assert world.installer(directory=prepared, for_gpu=True, environ={"FLASH_ATTN_WHEEL": str(wheel)}).install() == 1
    assert "fetching" not in capfd.readouterr().out
