"""Machines, environments and disks that are given, and what env_setup plans and finds of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from env_setup.disk import Disk
from env_setup.facts import Request, gather
from env_setup.findings import Probes, all_findings
from env_setup.machine import Environment, Gpu, Machine
from env_setup.plan import Step, make_plan
from env_setup.verdicts import Finding

GB = 10**9
UV = ("uv",)
LAPTOP = Machine("linux_x86_64", 2, 8 * GB, 6 * GB, glibc="2.36")
SERVER = replace(
    LAPTOP,
    available_bytes=7 * GB,
    driver="550.54.15",
    driver_cuda="12.4",
    gpus=(Gpu("NVIDIA L4", 24 * GB, "8.9"),),
    has_nvidia_gpu=True,
)
LEAN = Environment(
    Path("/lean/bin/python"), "3.11.7", "/lean", True, ray="2.60.0", numpy="2.4.6", uv="0.13.9", pip="26"
)
HEAVY = replace(LEAN, torch="2.6.0", torch_cuda="12.4", cxx11_abi=False, site_packages="/lean/site-packages")


class OneDisk(Disk):
    """All paths on one file system with this much space, unless `devices` says otherwise; all can be written."""

    def __init__(self, free: int = 100 * GB, devices: dict[str, int] | None = None, broken: str = "\0") -> None:
        self.free, self.devices, self.broken = free, devices or {}, broken

    def free_bytes(self, path):
        return self.free

    def device(self, path):
        return next((device for part, device in self.devices.items() if part in str(path)), 0)

    def problem(self, directory):
        return f"{directory} is mounted read-only" if self.broken in str(directory) else None

    def size_bytes(self, directory):
        return 800_000_000


Look = Callable[..., tuple[list[Step], dict[str, Finding]]]


def looking(tmp_path: Path) -> Look:
    """What tells (plan, findings by name) of a machine and an environment; locks and weights lie in `tmp_path`."""
    locks = tmp_path / "locks"
    locks.mkdir()
    for name in ("base.lock", "f5.lock"):
        (locks / name).write_text(name)
    (tmp_path / "pyproject.toml").touch()

    def look(machine=LAPTOP, running=LEAN, disk=None, unanswered=None, unfound=None, environ=None, **asked):
        environ = {"WEIGHTS_DIR": str(tmp_path / "weights"), "UV_CACHE_DIR": "/cache"} | (environ or {})
        facts = gather(Request(environ, **({"locks": locks} | asked)), machine, running)
        probes = Probes(disk or OneDisk(), lambda url: unanswered, lambda url: unfound)
        plan = make_plan(facts, probes.disk)
        found = all_findings(facts, plan, probes, uv=UV, root=tmp_path)
        return plan, {finding.name: finding for finding in found}

    return look


def verdicts(found: dict[str, Finding], verdict: str) -> list[str]:
    """Names of the findings with this verdict."""
    return sorted(name for name, finding in found.items() if finding.verdict == verdict)
