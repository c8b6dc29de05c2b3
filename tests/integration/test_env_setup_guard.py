"""Inside a guarded f5 environment pip and uv install nothing: shown by trying, with the real ones."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ray._private.runtime_env.uv import UvProcessor

from env_setup.guard import CONSTRAINTS, PIP_CONF, constraints, pip_guard, remove_guard, write_guard
from env_setup.machine import Environment, describe_environment
from tests.support.stand_in_wheel import write_wheel

UV = [sys.executable, "-m", "uv"]
NEITHER = ("PIP_", "UV_")


def bare(**more: str) -> dict[str, str]:
    """This process's variables without those of pip and uv; no package index is asked for anything."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NEITHER)}
    return kept | {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1"} | more


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    pure = {"python_tag": "py3", "platform": "any"}
    return {
        "torch": write_wheel(folder, "torch", "2.6.0", **pure),
        "newer torch": write_wheel(folder, "torch", "2.7.0", **pure),
        "flash_attn": write_wheel(folder),
        "newer flash_attn": write_wheel(folder, version="2.8.3"),
    }


@pytest.fixture
def environment(tmp_path, wheels) -> Environment:
    """A venv with torch, flash_attn and pip; not guarded yet."""
    venv = tmp_path / "venv-f5"
    subprocess.run([*UV, "venv", "--quiet", "--python", sys.executable, venv], check=True, env=bare())
    found = [wheels["torch"], wheels["flash_attn"]]
    command = [*UV, "pip", "install", "--quiet", "--no-index", "--no-deps", "--python", venv / "bin" / "python"]
    subprocess.run([*command, *found], check=True, env=bare())
    return describe_environment(venv / "bin" / "python")


PIP, UV_PIP = "pip", "uv pip"
ATTEMPTS = [
    "torch",
    "--upgrade torch",
    "flash_attn",
    "{again} flash_attn",
    "flash-attn==2.8.3",
    "{newer torch}",
    "{again} {torch}",
    "{again} {flash_attn}",
    "{newer flash_attn}",
    "--upgrade --find-links {folder} torch flash_attn",
    "{again} --find-links {folder} torch",
]


def attempt(installer: str, what: str, environment: Environment, wheels: dict[str, Path], env: dict[str, str]) -> int:
    """The exit status of the installation; for pip the one of this environment, run on the guarded venv."""
    again = "--force-reinstall" if installer == PIP else "--reinstall"
    words = what.format(again=again, folder=wheels["torch"].parent, **wheels).split()
    command = [sys.executable, "-m", "pip", "--python", str(environment.path), "install"]
    if installer == UV_PIP:
        command = [*UV, "pip", "install", "--python", str(environment.path)]
    return subprocess.run([*command, *words], env=env, capture_output=True, stdin=subprocess.DEVNULL).returncode


def everything(environment: Environment) -> dict[str, float]:
    """Each installed file and when it was written, in nanoseconds; without what Python compiled."""
    folder = Path(environment.site_packages)
    files = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(path): path.stat().st_mtime_ns for path in files} | {"inode": folder.stat().st_ino}


@pytest.mark.parametrize("installer", [PIP, UV_PIP])
def test_the_variables_keep_everything_as_it_is(environment, wheels, tmp_path, installer):
    """What a replica sets for itself and its children."""
    write_guard(tmp_path, environment)
    env = bare() | pip_guard(tmp_path / CONSTRAINTS)
    before = everything(environment)
    for what in ATTEMPTS:
        attempt(installer, what, environment, wheels, env)
        assert everything(environment) == before, what


@pytest.mark.parametrize("installer", [PIP, UV_PIP])
def test_the_variables_do_so_without_constraints_too(environment, wheels, installer):
    """In the form `ray` there is no constraints file."""
    before = everything(environment)
    for what in ATTEMPTS:
        attempt(installer, what, environment, wheels, bare() | pip_guard())
        assert everything(environment) == before, what


def test_the_files_of_a_prepared_environment_guard_it_from_pip(environment, wheels):
    """pip.conf at its root is pip's own: no variable is needed."""
    folder = Path(environment.prefix)
    write_guard(folder, environment)
    env = {name: value for name, value in bare().items() if name != "PIP_CONFIG_FILE"}
    before = everything(environment)
    for what in ATTEMPTS:
        attempt(PIP, what, environment, wheels, env)
        assert everything(environment) == before, what
    assert (folder / CONSTRAINTS).read_text() == "torch==2.6.0\nflash_attn==2.8.2\n"
    remove_guard(folder)
    assert not (folder / PIP_CONF).exists()
    assert attempt(PIP, "{newer torch} --no-deps", environment, wheels, env) == 0
    assert describe_environment(environment.path).torch == "2.7.0"


@pytest.mark.parametrize("installer", [PIP, UV_PIP])
def test_without_the_guard_the_same_attempts_change_it(environment, wheels, installer):
    """The tests above can fail."""
    before = everything(environment)
    for what in ("{newer torch}", "{again} {flash_attn}", "{newer flash_attn}"):
        assert attempt(installer, what, environment, wheels, bare()) == 0
        assert everything(environment) != before
        before = everything(environment)


def test_constraints_hold_the_installed_versions(environment):
    """Of what must not change, and of nothing else."""
    held = replace(environment, numpy="2.4.6", ray="2.60.0", flash_attn="2.8.2+cu12torch2.6cxx11abifalse")
    assert constraints(held) == "torch==2.6.0\nnumpy==2.4.6\nflash_attn==2.8.2+cu12torch2.6cxx11abifalse\n"


def test_ray_hands_env_vars_to_its_installers():
    """Why the guard is not for the `env_vars` of a runtime_env that installs."""

    class Spec:
        def uv_config(self):
            return {"packages": []}

        def env_vars(self):
            return pip_guard()

    assert pip_guard().items() <= UvProcessor("/nowhere", Spec())._uv_env.items()
