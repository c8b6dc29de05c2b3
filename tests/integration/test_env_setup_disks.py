"""Disks that are small, read-only or fill up: refused beforehand, or left as they were."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from env_setup.disk import Disk
from env_setup.machine import describe_environment
from tests.support.installing import PURE, World, contents, lock, make_world
from tests.support.stand_in_wheel import write_wheel


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


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
