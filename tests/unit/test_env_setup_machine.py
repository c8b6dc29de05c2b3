"""What an interpreter and a machine say of themselves."""

import sys
from pathlib import Path

import pytest

from env_setup.machine import Environment, EnvironmentMissing, Gpu, describe_environment, describe_machine


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_running_interpreter_is_described():
    """Versions come from metadata; torch's ABI and CUDA from its own files; nothing is imported."""
    found = describe_environment(Path(sys.executable))
    assert isinstance(found, Environment)
    assert (found.python_minor, found.is_venv, found.prefix) == ("3.11", True, sys.prefix)
    assert (found.torch, found.torch_cuda, found.cxx11_abi) == ("2.6.0", "12.4", False)
    assert (found.ray, found.f5_tts, found.flash_attn) == ("2.60.0", "1.1.22", None)
    assert found.has_serve_app


def test_what_lies_in_the_current_directory_is_not_installed(tmp_path, monkeypatch):
    """A clone's own folder does not make serve_app importable elsewhere."""
    (tmp_path / "serve_app").mkdir()
    (tmp_path / "serve_app" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    outside = Path(sys.base_prefix) / "bin" / "python3"
    assert not describe_environment(outside).has_serve_app


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no interpreter at"),
        ("plain", "is not an executable file"),
        ("exit 3", "does not run: exit status 3, it printed nothing"),
        ("echo broken >&2; exit 1", "does not run: exit status 1, broken"),
        ("echo hello", "is not a Python: it answered 'hello'"),
        ("exec sleep 60", r"did not answer within 0\.2 s"),
    ],
)
def test_what_is_no_interpreter_is_named(tmp_path, text, message):
    """One sentence with the path, never a traceback."""
    path = tmp_path / "python"
    if text == "plain":
        path.write_text("")
    elif text is not None:
        script(path, text)
    with pytest.raises(EnvironmentMissing, match=message) as caught:
        describe_environment(path, timeout_s=0.2 if text == "exec sleep 60" else 30)
    assert str(path) in str(caught.value)


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMORY = "MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:   12000 kB\n"


def test_a_machine_with_gpus(tmp_path):
    """Name, memory and compute capability of each; the driver."""
    root = tree(tmp_path, proc__meminfo=MEMORY)
    listed = "NVIDIA H200, 143771, 9.0, 550.54.15\nTesla T4, 15360, 7.5, 550.54.15\n"
    found = describe_machine(root, lambda: listed)
    assert found.gpus == (Gpu("NVIDIA H200", 143771 * 2**20, "9.0"), Gpu("Tesla T4", 15360 * 2**20, "7.5"))
    assert (found.driver, found.has_nvidia_gpu) == ("550.54.15", True)
    assert (found.memory_bytes, found.available_bytes) == (16000 * 1024, 12000 * 1024)


def test_a_driver_of_the_host_is_no_gpu_of_the_container(tmp_path):
    """/proc shows the host's driver to every container; the device node only to the one that was given a GPU."""
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Sat Feb 24\n"
    root = tree(tmp_path, proc__meminfo=MEMORY, proc__driver__nvidia__version=version)
    without = describe_machine(root, lambda: "")
    assert (without.driver, without.has_nvidia_gpu) == ("535.161.08", False)
    tree(root, dev__nvidiactl="")
    assert not describe_machine(root, lambda: "").has_nvidia_gpu
    tree(root, dev__nvidia0="")
    assert describe_machine(root, lambda: "").has_nvidia_gpu


def test_a_cgroup_limits_memory(tmp_path):
    """The limit of a parent counts too; cached file pages are given back, so they are available."""
    root = tree(tmp_path, proc__meminfo=MEMORY, proc__self__cgroup="0::/pod/box\n")
    cgroup = root / "sys/fs/cgroup"
    tree(cgroup / "pod/box", **{"memory.max": "max\n", "memory.current": "5\n"})
    tree(
        cgroup / "pod",
        **{"memory.max": "8000000", "memory.current": "6000000", "memory.stat": "inactive_file 1000000\n"},
    )
    found = describe_machine(root, lambda: "")
    assert (found.memory_bytes, found.available_bytes) == (8_000_000, 3_000_000)
