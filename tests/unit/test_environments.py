"""Which environment an f5 replica gets, and what is refused before anything is submitted."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from env_setup.machine import Gpu
from env_setup.wheels import LOCKED_TARGET, choose_wheel, sha256_of
from serve_app import environments
from serve_app.environments import choose_environment, locked_requirements, wheel_problem
from serve_app.errors import ConfigError
from serve_app.settings import F5Settings
from tests.support.stand_in_wheel import write_wheel


@pytest.fixture(autouse=True)
def lean(monkeypatch):
    """As in the environment that `make run` made: a venv without torch."""
    monkeypatch.setattr(environments, "_has_torch", lambda: False)


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return str(tmp_path / ".venv")


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    python = tmp_path / ".venv-f5" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    return python


def test_auto_takes_what_was_prepared(prefix, prepared):
    """An environment beside the running one wins: it costs nothing per session."""
    chosen = choose_environment(F5Settings(), {}, prefix=prefix)
    assert (chosen.form, chosen.python) == ("prepared", prepared)
    assert chosen.runtime_env == {"py_executable": str(prepared)}
    assert chosen.wheel is not None


def test_f5_python_names_another_place_even_if_nothing_is_there(prefix, tmp_path):
    """A wrong path is found by the check of the nodes; nothing falls back."""
    chosen = choose_environment(F5Settings(), {"F5_PYTHON": str(tmp_path / "no")}, prefix=prefix)
    assert (chosen.form, chosen.python) == ("prepared", tmp_path / "no")


def test_auto_uses_the_torch_that_is_installed(prefix, monkeypatch):
    """As in the image: no runtime_env at all, so nothing is copied."""
    monkeypatch.setattr(environments, "_has_torch", lambda: True)
    chosen = choose_environment(F5Settings(), {}, prefix=prefix)
    assert (chosen.form, chosen.runtime_env, chosen.wheel) == ("installed", {}, None)


def test_auto_has_ray_install_over_a_lean_environment(prefix):
    """The locked closure, with its hashes, and the pinned wheel, none with its dependencies."""
    chosen = choose_environment(F5Settings(), {}, prefix=prefix)
    assert chosen.form == "ray"
    assert set(chosen.runtime_env) == {"uv"}
    *locked, wheel = chosen.runtime_env["uv"]["packages"]
    assert locked == locked_requirements()
    assert wheel == choose_wheel({}).requirement
    assert "#sha256=" in wheel
    assert chosen.runtime_env["uv"]["uv_pip_install_options"] == ["--no-deps"]


def test_every_locked_requirement_has_a_hash():
    """What Ray installs on a node is what was locked, torch 2.6.0 included, and Ray itself is not among it."""
    locked = locked_requirements()
    assert all("==" in line and "--hash=sha256:" in line for line in locked)
    names = [line.split("==")[0] for line in locked]
    assert {"torch", "torchaudio", "f5-tts"} <= set(names)
    assert "ray" not in names
    assert any(line.startswith("torch==2.6.0 ") for line in locked)


def test_ray_over_a_venv_with_torch_is_refused(prefix, monkeypatch):
    """Ray would copy 6.3 GB in every session, which filled the old worker's disk."""
    monkeypatch.setattr(environments, "_has_torch", lambda: True)
    with pytest.raises(ConfigError, match=r"environment: ray.*6\.3 GB.*environment: installed"):
        choose_environment(F5Settings(environment="ray"), {}, prefix=prefix)


@pytest.mark.parametrize("changes", [{"attention": "sdpa"}, {"num_gpus": 0}, {"device": "cpu"}])
def test_no_wheel_where_it_is_of_no_use(prefix, changes):
    """Without a GPU, or with SDPA asked for, nothing of flash_attn is fetched."""
    chosen = choose_environment(F5Settings(**changes), {}, prefix=prefix)
    assert chosen.wheel is None
    assert chosen.runtime_env["uv"]["packages"] == locked_requirements()


def test_a_wheel_for_another_python_is_refused_by_its_name(prefix, tmp_path):
    """The refusal says what the wheel is for, what is needed and what to set."""
    wheel = write_wheel(tmp_path, python_tag="cp310")
    chosen = choose_environment(F5Settings(), {"FLASH_ATTN_WHEEL": str(wheel)}, prefix=prefix)
    assert "it is for cp310 and the Python is cp311" in chosen.refusal
    assert "set FLASH_ATTN_WHEEL" in chosen.refusal
    assert chosen.runtime_env["uv"]["packages"] == locked_requirements()


def test_a_pinned_wheel_that_does_not_fit_means_sdpa_with_the_reason(prefix, monkeypatch):
    """Only asking for flash_attn by name makes it a refusal."""
    monkeypatch.setattr(environments, "_target", lambda: replace(LOCKED_TARGET, python="3.12"))
    chosen = choose_environment(F5Settings(), {}, prefix=prefix)
    assert (chosen.wheel, chosen.refusal) == (None, None)
    assert "without flash_attn" in chosen.reason
    assert "cp312" in chosen.reason
    asked = choose_environment(F5Settings(attention="flash_attn"), {}, prefix=prefix)
    assert "cp312" in asked.refusal


@pytest.mark.parametrize("value", ["/no/flash_attn-1-cp311-cp311-linux_x86_64.whl", "ftp://x/y.whl", "not-a-wheel"])
def test_a_wheel_that_is_none_is_refused(prefix, value):
    """The words name the variable and its value."""
    refusal = choose_environment(F5Settings(), {"FLASH_ATTN_WHEEL": value}, prefix=prefix).refusal
    assert "FLASH_ATTN_WHEEL" in refusal


def test_a_file_with_another_hash_is_found_on_the_node(tmp_path):
    """Both hashes are said; with the right one nothing is."""
    wheel = write_wheel(tmp_path)
    right = sha256_of(wheel)
    assert wheel_problem(choose_wheel({"FLASH_ATTN_WHEEL": f"{wheel}#sha256={right}"})) is None
    problem = wheel_problem(choose_wheel({"FLASH_ATTN_WHEEL": f"{wheel}#sha256={'0' * 64}"}))
    assert problem.startswith(f"{wheel} has sha256 {right}, and FLASH_ATTN_WHEEL says {'0' * 64}")
    chosen = choose_wheel({"FLASH_ATTN_WHEEL": str(wheel)})
    wheel.unlink()
    assert "not on this node" in wheel_problem(chosen)


@pytest.mark.parametrize(("asked_for", "lacks"), [(False, False), (True, True)])
def test_a_gpu_too_old_for_the_wheel_does_without_it_unless_it_was_asked_for(monkeypatch, asked_for, lacks):
    """env_setup leaves the wheel out on such a machine, so the prepared environment need not hold it there."""
    real = environments.describe_machine()
    turing = Gpu("Tesla T4", memory_bytes=16 * 10**9, compute_capability="7.5")
    monkeypatch.setattr(environments, "describe_machine", lambda: replace(real, gpus=(turing,)))
    said = environments.prepared_problems(Path(sys.executable), choose_wheel({}), asked_for)
    assert any("needs flash_attn-2.8.2" in problem for problem in said) is lacks
