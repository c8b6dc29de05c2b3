"""Everything that speaks for or against running here, each with what was found, what is needed and a verdict."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from env_setup.build import build_problem
from env_setup.disk import Disk, human
from env_setup.facts import Facts
from env_setup.layout import F5_PYTHON, WEIGHTS_DIR, weights_dir
from env_setup.machine import numbers
from env_setup.pins import PINNED_WEIGHTS, TORCH_VERSION
from env_setup.plan import FLASH_ATTN, WEIGHTS, Step, absent_weights
from env_setup.prepared import problems
from env_setup.reach import unanswered, unfound
from env_setup.store import store_finding
from env_setup.verdicts import Finding

__all__ = ["Finding", "Probes", "all_findings", "weights_findings"]

PYTHON = "3.11"
LEAST_GLIBC = (2, 28)
LEAST_DRIVER = (525, 60, 13)
PREVIEW_BYTES = 2 * 10**9
F5_BYTES = 6 * 10**9
COPIED_IN_VAIN = (
    "{prefix} is a venv that holds torch, and Ray copies the venv it runs in for every session: {size} here, 6.3 GB "
    "with the f5 packages. Run Ray in an environment without torch (`make .venv/.installed`), or use --form installed"
)


@dataclass(frozen=True, slots=True)
class Probes:
    """What the findings ask of the world beside `Facts`; tests give others."""

    disk: Disk
    unanswered: Callable[[str], str | None] = unanswered
    unfound: Callable[[str], str | None] = unfound


def all_findings(
    facts: Facts, plan: Sequence[Step], probes: Probes, *, uv: Sequence[str] | None, root: Path
) -> list[Finding]:
    """Every finding, in the order of reading. `uv` and `root` are those of an installation."""
    found = [_python(facts), _glibc(facts), _gpu(facts), _driver(facts)]
    found.append(_form(facts, probes.disk))
    if (directory := facts.request.directory) is not None and facts.to_build:
        problem = build_problem(directory, facts.request.locks, root, uv)
        problem = problem or probes.disk.problem(directory.parent)
        found.append(Finding.of("new environment", str(directory), "a directory that can be made", problem))
    found += [_torch(facts), _flash_attn(facts, plan, probes), _memory(facts)]
    return found + weights_findings(facts, plan, probes)


def weights_findings(facts: Facts, plan: Sequence[Step], probes: Probes) -> list[Finding]:
    """Those that `prefetch` depends on."""
    found = [store_finding(facts.request.environ, probes.disk, probes.unanswered)]
    if facts.request.weights:
        found += _weights(facts, plan, probes.disk)
    return found + _free_disk(plan, probes.disk)


def _python(facts: Facts) -> Finding:
    running = facts.running
    verdict: Literal["ok", "fail"] = "ok" if running.python_minor == PYTHON else "fail"
    return Finding("Python", f"{running.python} ({running.path})", PYTHON, verdict)


def _glibc(facts: Facts) -> Finding:
    found, needed = facts.machine.glibc, ".".join(map(str, LEAST_GLIBC))
    if found is None:
        return Finding("glibc", "not found", needed, "warn" if facts.runs_f5 else "info")
    if numbers(found) >= LEAST_GLIBC:
        return Finding("glibc", found, needed, "ok")
    return Finding("glibc", f"{found}: the wheels of the locks need {needed}, a newer system", needed, "fail")


def _gpu(facts: Facts) -> Finding:
    machine = facts.machine
    if machine.has_nvidia_gpu:
        named = ", ".join(f"{gpu.name} ({human(gpu.memory_bytes)})" for gpu in machine.gpus)
        return Finding("GPU", named or "an NVIDIA device node", "NVIDIA, for f5", "ok")
    if facts.request.for_gpu:
        return Finding("GPU", "no NVIDIA GPU here: prepared for a machine that has one", "NVIDIA, for f5", "warn")
    return Finding("GPU", "no NVIDIA GPU: f5 will not be deployed, preview will", "NVIDIA, for f5", "warn")


def _driver(facts: Facts) -> Finding:
    machine, least = facts.machine, ".".join(map(str, LEAST_DRIVER))
    needed = f"{least} or newer, for CUDA 12"
    if machine.driver is None:
        return Finding("driver and CUDA", "no NVIDIA driver found", needed, "warn" if facts.runs_f5 else "info")
    found = f"driver {machine.driver}, CUDA up to {machine.driver_cuda or 'unknown'}"
    if numbers(machine.driver) < LEAST_DRIVER:
        return Finding("driver and CUDA", f"{found}: update the driver", needed, "fail" if facts.runs_f5 else "warn")
    return Finding("driver and CUDA", found, needed, "ok")


def _form(facts: Facts, disk: Disk) -> Finding:
    running, name = facts.running, f"form {facts.form}"
    if facts.form == "ray":
        needed = "an environment that is small to copy"
        if running.is_venv and running.torch is not None:
            size = human(disk.size_bytes(Path(running.prefix)))
            return Finding(name, COPIED_IN_VAIN.format(prefix=running.prefix, size=size), needed, "fail")
        if running.ray is None:
            return Finding(name, f"{running.path} has no Ray: `make run` makes its environment", needed, "info")
        problem = None if running.pip else f"{running.prefix} has no pip, which Ray's runtime_env needs: install pip"
        return Finding.of(name, f"Ray installs over {running.prefix}", needed, problem)
    if facts.form == "installed":
        problem = (
            None if running.torch else f"{running.prefix} has no torch: install f5.lock there, or use another --form"
        )
        return Finding.of(name, f"f5 runs in {running.prefix}", "torch in it", problem)
    if facts.to_build:
        return Finding(name, f"{facts.python} is made by this plan", "the cluster's Python, Ray and numpy", "info")
    if facts.target is None:
        mend = f"`python -m env_setup install --environment DIR` makes one, {F5_PYTHON} names it"
        return Finding(name, f"{facts.missing}: {mend}", "an interpreter", "fail")
    if running.ray is None:
        said = f"{running.path} has no Ray to compare with: run this in the environment that Ray runs in"
        return Finding(name, said, "the cluster's Python, Ray and numpy", "warn")
    against = problems(facts.target, running, None)
    return Finding.of(name, str(facts.python), "the cluster's Python, Ray and numpy", "; ".join(against) or None)


def _torch(facts: Facts) -> Finding:
    if facts.form == "ray" or facts.to_build:
        return Finding("torch", f"f5.lock brings {TORCH_VERSION}", TORCH_VERSION, "info")
    target = facts.target
    if target is None or target.torch is None:
        return Finding("torch", "absent", TORCH_VERSION, "fail" if facts.runs_f5 else "info")
    abi = "unknown" if target.cxx11_abi is None else str(target.cxx11_abi).upper()
    found = f"{target.torch}, CUDA {target.torch_cuda or 'unknown'}, C++11 ABI {abi}"
    fits = target.torch.partition("+")[0] == TORCH_VERSION
    return Finding("torch", found, TORCH_VERSION, "ok" if fits else "warn")


def _flash_attn(facts: Facts, plan: Sequence[Step], probes: Probes) -> Finding:
    chosen, needed = facts.flash_attn, "a wheel for this Python, torch, CUDA and ABI"
    if chosen.state == "refused":
        return Finding(FLASH_ATTN, chosen.reason, needed, "fail")
    if chosen.state == "misfit":
        return Finding(FLASH_ATTN, chosen.reason, needed, "warn")
    if chosen.state in ("present", "skip"):
        return Finding(FLASH_ATTN, chosen.reason, needed, "ok" if chosen.state == "present" else "info")
    wheel = chosen.wheel
    if wheel is not None and wheel.path is None and (problem := probes.unfound(wheel.url)) is not None:
        mend = "set FLASH_ATTN_WHEEL to a URL or file that can be had, or --attention sdpa to go without"
        verdict: Literal["warn", "fail"] = "fail" if facts.runs_f5 or chosen.state == "install" else "warn"
        return Finding(FLASH_ATTN, f"{wheel.url} ({wheel.origin}) {problem}: {mend}", needed, verdict)
    installs = [step for step in plan if step.name == FLASH_ATTN and step.skip is None]
    mine = installs and facts.target and probes.disk.problem(Path(facts.target.site_packages))
    return Finding.of(FLASH_ATTN, f"fits: {chosen.reason}", needed, mine or None)


def _memory(facts: Facts) -> Finding:
    least = F5_BYTES if facts.runs_f5 else PREVIEW_BYTES
    machine = facts.machine
    found = f"{human(machine.available_bytes)} of {human(machine.memory_bytes)} free, {machine.cores} cores"
    return Finding("memory", found, human(least), "ok" if machine.available_bytes >= least else "warn")


def _weights(facts: Facts, plan: Sequence[Step], disk: Disk) -> list[Finding]:
    folder = weights_dir(facts.request.environ)
    absent = absent_weights(folder)
    needed = f"{len(PINNED_WEIGHTS)} files in {folder}"
    if not absent:
        return [Finding(WEIGHTS, f"all {len(PINNED_WEIGHTS)} present", needed, "ok")]
    size = human(sum(file.size_bytes or 0 for file in absent))
    wrong = [str(folder / file.key) for file in absent if (folder / file.key).exists()]
    also = f"; not of their size: {', '.join(wrong)}" if wrong else ""
    fetch = f"{len(absent)} of {len(PINNED_WEIGHTS)} absent, {size}{also}: `python -m env_setup prefetch` fetches them"
    found = [Finding(WEIGHTS, fetch, needed, "warn" if facts.runs_f5 else "info")]
    fetches = any(step.name == WEIGHTS and step.skip is None for step in plan)
    problem = disk.problem(folder) if fetches else None
    said = problem and f"{WEIGHTS_DIR} is {folder}, and {problem}: name another directory"
    return [*found, Finding.of("weights directory", str(folder), "can be written", said)]


def _free_disk(plan: Sequence[Step], disk: Disk) -> list[Finding]:
    """One finding per file system: two steps that write to one disk are added."""
    by_device: dict[int, list[tuple[Step, Path, int]]] = {}
    for step in plan:
        for need in () if step.skip else step.needs:
            by_device.setdefault(disk.device(need.path), []).append((step, need.path, need.size_bytes))
    found = []
    for rows in by_device.values():
        free, total = disk.free_bytes(rows[0][1]), sum(size for _, _, size in rows)
        parts = ", ".join(f"{step.name} {human(size)} in {path}" for step, path, size in rows)
        said = f"{human(free)} free where {rows[0][1]} lies"
        problem = f"{said}, {human(total)} needed: free some space or name another directory" if free < total else None
        found.append(Finding.of("free disk", said, f"{human(total)}: {parts}", problem))
    return found
