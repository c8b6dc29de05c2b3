"""What `make run` would do, on a machine with an NVIDIA GPU and on one without."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PREPARE = "python -m env_setup install --environment .venv-f5 --no-weights"


def planned(folder: Path, *words: str) -> str:
    """What `make` would run in a clone where nothing is installed yet."""
    for name in ("Makefile", "env_setup", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    done = subprocess.run(["make", "--dry-run", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(("f5", "prepares"), [("F5=prepared", True), ("F5=", False)])
def test_the_f5_environment_is_prepared_before_the_service_starts(f5: str, prepares: bool, tmp_path: Path):
    """With a GPU (or told so) .venv-f5 is made first, by env_setup; otherwise nothing of f5 is installed."""
    lines = planned(tmp_path, "run", f5)
    assert (PREPARE in lines) is prepares
    assert lines.index("-m venv .venv") < lines.index("serve_app.launcher deploy.yaml")
    if prepares:
        assert lines.index("-m venv .venv") < lines.index(PREPARE) < lines.index("serve_app.launcher deploy.yaml")


def test_an_environment_that_was_left_unfinished_is_gone_on_with(tmp_path: Path):
    """A stamp says that the venv was built, not that the wheel came: env_setup itself looks, at every start."""
    (tmp_path / ".venv-f5").mkdir()
    (tmp_path / ".venv-f5" / ".installed").touch()
    lines = planned(tmp_path, "run", "F5=prepared", "F5_ARGS=--attention sdpa")
    assert f"{PREPARE} --attention sdpa" in lines


def test_torch_in_the_base_environment_needs_no_second_one(tmp_path: Path):
    """EXTRAS=f5 installs torch into .venv, where f5 then runs."""
    lines = planned(tmp_path, "run", "EXTRAS=f5")
    assert "f5.lock" in lines
    assert PREPARE not in lines
