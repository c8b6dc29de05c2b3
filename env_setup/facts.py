"""What was asked for, against what is there: decided once, for the plan, the findings and the installation.

Request + Machine + Environments -> gather() -> Facts (form, target, flash_attn)
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from env_setup.build import is_current
from env_setup.layout import F5_PYTHON, prepared_python
from env_setup.machine import Environment, EnvironmentMissing, Machine, describe_environment, numbers
from env_setup.prepared import holds_wheel, problems
from env_setup.wheels import (
    BUILT_FOR,
    LOCKED_TARGET,
    OVERRIDE,
    ChosenWheel,
    Target,
    WheelError,
    choose_wheel,
    misfits,
    sha256_of,
)

__all__ = ["Facts", "FlashAttn", "Form", "Request", "gather", "machine_misfits"]

Form = Literal["prepared", "installed", "ray"]
LEAST_GLIBC = "2.32"
"""Of the published wheels since 2.7.4 (Dao-AILab/flash-attention, issues 1708, 1762 and 2225)."""

LEAST_CAPABILITY = "8.0"
"""Of a GPU for flash_attn 2: Ampere."""


@dataclass(frozen=True, slots=True)
class Request:
    """The command line and the environment. `directory` is that of --environment."""

    environ: Mapping[str, str]
    locks: Path
    directory: Path | None = None
    form: Form | None = None
    attention: Literal["auto", "sdpa", "flash_attn"] = "auto"
    for_gpu: bool = False
    weights: bool = True


@dataclass(frozen=True, slots=True)
class FlashAttn:
    """`state`: present; install (by env_setup) or ray (by Ray); skip; misfit (SDPA will be used); refused (no-go)."""

    state: Literal["present", "install", "ray", "skip", "misfit", "refused"]
    reason: str
    wheel: ChosenWheel | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """`target` is the interpreter of the f5 replicas; None where there is none yet, or Ray will make it."""

    request: Request
    machine: Machine
    running: Environment
    form: Form
    to_build: bool
    python: Path  # of the f5 replicas
    target: Environment | None
    missing: str | None  # why there is no target
    flash_attn: FlashAttn

    @property
    def runs_f5(self) -> bool:
        """Whether this machine is to run f5."""
        return self.machine.has_nvidia_gpu or self.request.for_gpu


def gather(request: Request, machine: Machine, running: Environment) -> Facts:
    """Runs the f5 interpreter once, and reads a local wheel to check its hash."""
    form = request.form or _form(request, running)
    python = running.path
    if form == "prepared":
        python = prepared_python(request.environ, running.prefix)
        if request.directory is not None:
            python = request.directory / "bin" / "python"
    to_build = request.directory is not None and not is_current(request.directory, request.locks)
    target, missing = (None, None) if to_build or form == "ray" else _describe(python, running)
    if request.directory is not None and not to_build and _is_spoilt(target, running):
        to_build, target, missing = True, None, None
    wanted = Target(running.python_minor) if target is None else _target(target)
    if form == "ray" or to_build:
        wanted = replace(LOCKED_TARGET, python=running.python_minor)
    flash_attn = _flash_attn(request, machine, form, target, replace(wanted, platform=machine.platform))
    return Facts(request, machine, running, form, to_build, python, target, missing, flash_attn)


def _form(request: Request, running: Environment) -> Form:
    told = request.directory is not None or bool(request.environ.get(F5_PYTHON, "").strip())
    if told or prepared_python(request.environ, running.prefix).exists():
        return "prepared"
    return "ray" if running.torch is None else "installed"


def _is_spoilt(target: Environment | None, running: Environment) -> bool:
    """Whether an environment that was completed cannot be used any more, and not for want of the wheel."""
    return target is None or (running.ray is not None and bool(problems(target, running, None)))


def _describe(python: Path, running: Environment) -> tuple[Environment | None, str | None]:
    if python == running.path:
        return running, None
    try:
        return describe_environment(python), None
    except EnvironmentMissing as error:
        return None, str(error)


def _target(environment: Environment) -> Target:
    return Target(environment.python_minor, environment.torch, environment.cxx11_abi, environment.torch_cuda)


def _flash_attn(
    request: Request, machine: Machine, form: Form, target: Environment | None, wanted: Target
) -> FlashAttn:
    if request.attention == "sdpa":
        return FlashAttn("skip", "attention is sdpa")
    overridden = bool(request.environ.get(OVERRIDE, "").strip())
    explicit = overridden or request.attention == "flash_attn"
    try:
        wheel = choose_wheel(request.environ, wanted)
        found = misfits(wheel, wanted) + machine_misfits(wheel, machine)
    except WheelError as error:
        return FlashAttn("refused", str(error))
    if target is not None and target.torch is None:
        found.append(f"{target.path} has no torch")
    if not (explicit or machine.has_nvidia_gpu or request.for_gpu):
        return FlashAttn("skip", "no NVIDIA GPU on this machine; --for-gpu installs it all the same", wheel)
    if found:
        said = f"{wheel.filename} ({wheel.origin}) does not fit: {'; '.join(found)}"
        if explicit:
            mend = f"set {OVERRIDE} to a wheel that fits" if overridden else "set attention to auto or sdpa"
            return FlashAttn("refused", f"{said}: {mend}", wheel)
        return FlashAttn("misfit", f"SDPA will be used: {said}", wheel)
    if (damage := _damage(wheel)) is not None:
        return FlashAttn("refused", damage, wheel)
    if target is not None and holds_wheel(target, wheel):
        return FlashAttn("present", f"{wheel.version} in {target.prefix}", wheel)
    if form == "ray":
        return FlashAttn("ray", "Ray installs it with the packages of f5.lock, when f5 is deployed", wheel)
    return FlashAttn("install", f"{wheel.filename} ({wheel.origin})", wheel)


def machine_misfits(wheel: ChosenWheel, machine: Machine) -> list[str]:
    """Why a wheel that fits the environment is of no use on this machine: its glibc, its GPUs."""
    found = []
    if BUILT_FOR.search(wheel.version) and machine.glibc and numbers(machine.glibc) < numbers(LEAST_GLIBC):
        found.append(f"it needs glibc {LEAST_GLIBC} and the machine has {machine.glibc}")
    for gpu in machine.gpus:
        if gpu.compute_capability and numbers(gpu.compute_capability) < numbers(LEAST_CAPABILITY):
            found.append(
                f"it needs compute capability {LEAST_CAPABILITY} and the {gpu.name} has {gpu.compute_capability}"
            )
    return found


def _damage(wheel: ChosenWheel) -> str | None:
    """What is wrong with a local file."""
    if wheel.path is None:
        return None
    try:
        if wheel.sha256 is not None and (found := sha256_of(wheel.path)) != wheel.sha256:
            return (
                f"{wheel.path} has sha256 {found}, and {wheel.origin} says {wheel.sha256}: fetch the file again, or "
                "correct the #sha256="
            )
        if not zipfile.is_zipfile(wheel.path):
            return f"{wheel.path} ({wheel.origin}) is damaged: a wheel is a zip file; fetch it again"
    except OSError as error:
        return f"{wheel.path} ({wheel.origin}) cannot be read: {error.strerror}"
    return None
