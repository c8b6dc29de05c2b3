"""`env_setup install` with real venvs, real wheels and real file systems: all or nothing, and safe to run again."""

from pathlib import Path

import pytest

from env_setup.build import STAMP
from env_setup.guard import CONSTRAINTS, PIP_CONF
from env_setup.machine import describe_environment
from env_setup.wheels import sha256_of
from tests.support.installing import World, contents, make_world
from tests.support.stand_in_wheel import write_wheel


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


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
