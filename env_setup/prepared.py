"""Whether an environment can run the f5 replicas beside a cluster: Ray itself checks none of this."""

import re

from env_setup.machine import Environment
from env_setup.pins import TORCH_VERSION
from env_setup.wheels import ChosenWheel

__all__ = ["holds_wheel", "problems"]

MAKE = "make it again: `python -m env_setup install --environment {prefix}`"


def problems(environment: Environment, reference: Environment, wheel: ChosenWheel | None) -> list[str]:
    """Why `environment` cannot be `py_executable` beside a cluster that runs `reference`; empty if it can.

    `wheel`: the flash_attn that it must hold, or None where none is needed.
    """
    mend = MAKE.format(prefix=environment.prefix)
    here, there = environment.path, reference.path
    found = []
    if environment.python_minor != reference.python_minor:
        found.append(
            f"{here} is Python {environment.python} and the cluster runs {reference.python} ({there}); "
            f"both must be {reference.python_minor}: {mend}"
        )
    for name in ("ray", "numpy"):
        mine, needed = getattr(environment, name), getattr(reference, name)
        if mine != needed or mine is None:
            found.append(
                f"{here} has {_named(name, mine)} and the cluster has {_named(name, needed)} ({there}): {mend}"
            )
    if _public(environment.torch) != TORCH_VERSION:
        found.append(f"{here} has {_named('torch', environment.torch)} and needs {TORCH_VERSION}: {mend}")
    for name, version in (("torchaudio", environment.torchaudio), ("f5-tts", environment.f5_tts)):
        if version is None:
            found.append(f"{here} has no {name}, which f5.lock names: {mend}")
    if not environment.has_serve_app:
        found.append(f"{here} cannot import serve_app, which its replicas run: {mend}")
    if wheel is not None and not holds_wheel(environment, wheel):
        had = environment.flash_attn_wheel or _named("flash_attn", environment.flash_attn)
        found.append(f"{here} has {had} and needs {wheel.filename} ({wheel.origin}): {mend}")
    return found


def holds_wheel(environment: Environment, wheel: ChosenWheel) -> bool:
    """Whether flash_attn is installed in exactly that build, as far as is recorded.

    The published wheels say 2.8.2 in their METADATA and 2.8.2+cu12torch2.6cxx11abiFALSE in their file names only
    (Dao-AILab/flash-attention, issue 730). So it is the file name that installers record which tells builds apart.
    """
    if environment.flash_attn is None:
        return False
    installed, wanted = _normalised(environment.flash_attn), _normalised(wheel.version)
    if installed != wanted and ("+" in installed or installed != _public(wanted)):
        return False
    if environment.flash_attn_wheel is not None and environment.flash_attn_wheel.endswith(".whl"):
        return _normalised(environment.flash_attn_wheel) == _normalised(wheel.filename)
    return True


def _named(name: str, version: str | None) -> str:
    return f"no {name}" if version is None else f"{name} {version}"


def _public(version: str | None) -> str | None:
    return None if version is None else version.partition("+")[0]


def _normalised(version: str) -> str:
    """Case and separators of the local part, as PEP 440 has it; also escapes of a URL."""
    public, plus, local = version.lower().replace("%2b", "+").partition("+")
    return public + plus + re.sub(r"[-_]", ".", local)
