"""How torch, f5-tts and flash_attn reach the replicas of an f5 model, while every other replica goes without.

    settings of the model + what this environment holds -> form -> runtime_env of that one deployment

`prepared`: an environment that `python -m env_setup install` made. `installed`: the cluster's own, as in our image.
`ray`: Ray installs the locked closure and the wheel over the lean environment, once per node and Ray session. What
cannot work is said here, before anything is submitted: Ray would hang or fail minutes later. Knows nothing of Ray.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from env_setup.facts import machine_misfits
from env_setup.layout import F5_PYTHON, prepared_python
from env_setup.machine import EnvironmentMissing, describe_environment, describe_machine
from env_setup.prepared import problems
from env_setup.reach import unfound
from env_setup.wheels import LOCKED_TARGET, OVERRIDE, ChosenWheel, Target, WheelError, choose_wheel, misfits, sha256_of
from serve_app.errors import ConfigError
from serve_app.settings import F5Settings

__all__ = [
    "Form",
    "ModelEnvironment",
    "choose_environment",
    "locked_requirements",
    "prepared_problems",
    "wheel_problem",
]

Form = Literal["installed", "ray", "prepared"]
MEND_WHEEL = f"set {OVERRIDE} to a wheel that fits, as a URL or file with #sha256=, or set attention: sdpa"


@dataclass(frozen=True, slots=True)
class ModelEnvironment:
    """`runtime_env` is the deployment's. `refusal`: why its replicas must not start; they fail with these words.

    `wheel_asked_for`: by name, so that doing without it is no choice.
    """

    form: Form
    reason: str
    wheel: ChosenWheel | None = None
    wheel_asked_for: bool = False
    python: Path | None = None  # of the prepared form
    refusal: str | None = None
    runtime_env: Mapping[str, Any] = field(default_factory=dict)


def choose_environment(model: F5Settings, environ: Mapping[str, str], *, prefix: str = sys.prefix) -> ModelEnvironment:
    """The environment for the replicas of `model`. `prefix` is that of the running environment.

    `auto` is prepared where such an environment is found, installed where the running one holds torch, else ray.
    Raises ConfigError for the ray form over a venv that holds torch.
    """
    form, reason = _form(model, environ, prefix)
    if form == "installed":
        unused = f"; {OVERRIDE} is not used, for nothing is installed here" if environ.get(OVERRIDE, "").strip() else ""
        return ModelEnvironment(form, reason + unused)
    if form == "ray" and _has_torch() and sys.prefix != sys.base_prefix:
        raise ConfigError(
            f"model {model.name!r} has environment: ray, and the environment {prefix} in which Ray runs is a venv that "
            "holds torch: Ray would copy all of it, 6.3 GB, in every session; set environment: installed, or run "
            "Ray in an environment without torch"
        )
    environment = _with_wheel(ModelEnvironment(form, reason), model, environ)
    if form == "prepared":
        python = prepared_python(environ, prefix)
        return replace(environment, python=python, runtime_env={"py_executable": str(python)})
    packages = locked_requirements() + ([environment.wheel.requirement] if environment.wheel else [])
    # Given at all, the options bring uv's cache into use: what two sessions or models install is fetched once.
    return replace(environment, runtime_env={"uv": {"packages": packages, "uv_pip_install_options": ["--no-deps"]}})


def locked_requirements() -> list[str]:
    """f5.lock, one requirement a string, with its hashes."""
    text = files("env_setup").joinpath("locks/f5.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (re.sub(r"\s+", " ", line.split(" #")[0]).strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def wheel_problem(wheel: ChosenWheel) -> str | None:
    """Why this node could not install `wheel`; None if nothing speaks against it. The hash of a URL shows only then."""
    if wheel.path is None:
        return _unreachable(wheel)
    if not wheel.path.is_file():
        return f"{wheel.origin} names {wheel.path}, which is not on this node: put it there, or {MEND_WHEEL}"
    if wheel.sha256 is not None and (found := sha256_of(wheel.path)) != wheel.sha256:
        return (
            f"{wheel.path} has sha256 {found}, and {wheel.origin} says {wheel.sha256}: fetch the file again, or "
            "correct the #sha256="
        )
    return None


def prepared_problems(python: Path, wheel: ChosenWheel | None, asked_for: bool) -> list[str]:
    """Why `python` on this node cannot run replicas beside this interpreter's Ray; empty if it can.

    A wheel of no use to this node's GPU or glibc need not be there, as `env_setup install` leaves it out, unless it
    was `asked_for`.
    """
    if wheel is not None and not asked_for and machine_misfits(wheel, describe_machine()):
        wheel = None
    try:
        prepared = describe_environment(python)
    except EnvironmentMissing as error:
        return [f"{error}: make it with `python -m env_setup install --environment DIR`, or set {F5_PYTHON}"]
    return problems(prepared, describe_environment(Path(sys.executable)), wheel)


def _form(model: F5Settings, environ: Mapping[str, str], prefix: str) -> tuple[Form, str]:
    if model.environment != "auto":
        return model.environment, f"environment is set to {model.environment}"
    python = prepared_python(environ, prefix)
    if environ.get(F5_PYTHON, "").strip() or python.exists():
        return "prepared", f"{python} was prepared for f5"
    if _has_torch():
        return "installed", f"the environment {prefix} holds torch"
    return "ray", f"the environment {prefix} holds no torch, and there is no {python}"


def _with_wheel(environment: ModelEnvironment, model: F5Settings, environ: Mapping[str, str]) -> ModelEnvironment:
    overridden = bool(environ.get(OVERRIDE, "").strip())
    on_gpu = model.num_gpus > 0 and model.device != "cpu"
    if model.attention == "sdpa" or not (on_gpu or overridden):
        return environment
    try:
        wheel = choose_wheel(environ, _target())
        found = misfits(wheel, _target())
    except WheelError as error:
        return replace(environment, refusal=str(error))
    asked_for = overridden or model.attention == "flash_attn"
    if not found:
        return replace(environment, wheel=wheel, wheel_asked_for=asked_for)
    said = f"{wheel.filename} ({wheel.origin}) does not fit: {'; '.join(found)}"
    if asked_for:
        return replace(environment, refusal=f"{said}: {MEND_WHEEL}")
    return replace(environment, reason=f"{environment.reason}; without flash_attn, for {said}")


def _target() -> Target:
    return replace(LOCKED_TARGET, python=f"{sys.version_info.major}.{sys.version_info.minor}")


def _has_torch() -> bool:
    return find_spec("torch") is not None


def _unreachable(wheel: ChosenWheel) -> str | None:
    problem = unfound(wheel.url)
    return problem and f"{wheel.url} ({wheel.origin}) {problem} from this node: {MEND_WHEEL}"
