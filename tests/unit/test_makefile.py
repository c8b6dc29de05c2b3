"""What `make run` would do, on a machine with an NVIDIA GPU and on one without."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PREPARE = "python -m env_setup install --environment .venv-f5 --no-weights"


@pytest.mark.parametrize(("f5", "prepares"), [("F5=prepared", True), ("F5=", False)])
def test_the_f5_environment_is_prepared_before_the_service_starts(f5: str, prepares: bool, tmp_path: Path):
    """With a GPU (or told so) .venv-f5 is made first, by env_setup; otherwise nothing of f5 is installed."""
    for name in ("Makefile", "env_setup", "pyproject.toml"):  # a clone where nothing is installed yet
        (tmp_path / name).symlink_to(ROOT / name)
    command = ["make", "--dry-run", "run", f5]
    planned = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert (PREPARE in planned) is prepares
    assert planned.index("-m venv .venv") < planned.index("serve_app.launcher deploy.yaml")
    if prepares:
        assert planned.index("-m venv .venv") < planned.index(PREPARE) < planned.index("serve_app.launcher deploy.yaml")
