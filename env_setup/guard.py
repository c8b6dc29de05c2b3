"""Keeps pip and uv from installing anything into an f5 environment: flash_attn and torch stay as they were checked.

Measured with pip 26.3 and uv 0.13.9 (tests/integration/test_env_setup_guard.py):
- A constraint alone refuses another version, but not the same version again from a file. Required hashes do.
- A constraint that names flash_attn's URL makes pip fetch the wheel in order to find that it is there, so it names
  the version.
- PIP_NO_BUILD_ISOLATION=1, which the worker before this one set, leaves the isolation on: pip reads the value inverted.
  Nothing is built here at all: only-binary.
"""

from pathlib import Path

from env_setup.machine import Environment

__all__ = ["CONSTRAINTS", "PIP_CONF", "constraints", "pip_guard", "remove_guard", "write_guard"]

CONSTRAINTS = "constraints.txt"
PIP_CONF = "pip.conf"
GUARDED = ("torch", "torchaudio", "numpy", "flash_attn")

PIP_OPTIONS = {
    "no-index": "1",
    "no-deps": "1",
    "require-hashes": "1",
    "only-binary": ":all:",
    "no-build-isolation": "1",
    "disable-pip-version-check": "1",
}
UV_VARIABLES = {
    "UV_OFFLINE": "1",
    "UV_NO_INDEX": "1",
    "UV_REQUIRE_HASHES": "1",
    "UV_NO_BUILD": "1",
}


def pip_guard(constraints: Path | None = None) -> dict[str, str]:
    """Environment variables for a running replica and its children. `constraints`: a file that must exist there.

    Set them in the replica's own process, or as `env_vars` beside `py_executable`. Never as `env_vars` beside `uv` or
    `pip` in a runtime_env: Ray hands those to the installers too, which then install nothing.
    """
    variables = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in PIP_OPTIONS.items()} | UV_VARIABLES
    if constraints is not None:
        variables |= {"PIP_CONSTRAINT": str(constraints), "UV_CONSTRAINT": str(constraints)}
    return variables


def constraints(environment: Environment) -> str:
    """A constraints file of what must not change, at the versions that are installed."""
    versions = ((name, getattr(environment, name)) for name in GUARDED)
    return "".join(f"{name}=={version}\n" for name, version in versions if version)


def write_guard(directory: Path, environment: Environment) -> None:
    """Put pip.conf, which pip reads in every process of the venv `directory`, and constraints.txt there."""
    options = PIP_OPTIONS | {"constraint": str(directory / CONSTRAINTS)}
    lines = [f"{name} = {value}\n" for name, value in options.items()]
    for path, text in (
        (directory / CONSTRAINTS, constraints(environment)),
        (directory / PIP_CONF, "".join(["[global]\n", *lines])),
    ):
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def remove_guard(directory: Path) -> None:
    """Let `env_setup install` itself use pip there."""
    for name in (PIP_CONF, CONSTRAINTS):
        (directory / name).unlink(missing_ok=True)
