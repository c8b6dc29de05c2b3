"""Runs the steps in order and stops at the first failure. Running it again does only what is missing.

findings -> environment -> flash_attn -> guard -> weights (`python -m serve_app.weights`)
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from env_setup.build import STAMP, StepFailed, build
from env_setup.facts import Facts, Request, gather
from env_setup.findings import Probes, all_findings, weights_findings
from env_setup.flash_attn import install_wheel
from env_setup.guard import write_guard
from env_setup.machine import Environment, EnvironmentMissing, Machine, describe_environment
from env_setup.plan import ENVIRONMENT, FLASH_ATTN, RAY, WEIGHTS, Step, make_plan
from env_setup.report import table
from env_setup.verdicts import Finding

__all__ = ["ROOT", "Installer"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Installer:
    """One run of `check`, `install` or `prefetch`. `root` holds the sources of serve_app; `say` prints a line."""

    request: Request
    machine: Machine
    running: Environment
    probes: Probes
    root: Path = ROOT
    say: Callable[[str], None] = print

    def look(self) -> tuple[Facts, list[Step], list[Finding]]:
        """What would be done, and what speaks for and against it. Writes nothing."""
        facts = gather(self.request, self.machine, self.running)
        plan = make_plan(facts, self.probes.disk)
        return facts, plan, all_findings(facts, plan, self.probes, uv=self._uv(), root=self.root)

    def install(self, more: Sequence[str] = ()) -> int:
        """The exit status; `more` are arguments for serve_app.weights."""
        facts, plan, findings = self.look()
        if any(finding.verdict == "fail" for finding in findings):
            self.say(table(plan, findings))
            return 1
        try:
            for step in plan:
                if step.name == RAY:
                    continue
                self.say(str(step))
                if step.skip is None:
                    self._run(step.name, facts, more)
                    facts = gather(self.request, self.machine, self.running)  # what the next step finds
                self._guard(facts)
        except (StepFailed, EnvironmentMissing) as error:
            self.say(f"{step.name} failed: {error}")
            return 1
        done = [step.name for step in plan if step.skip is None and step.name != RAY]
        self.say(f"done: {', '.join(done)}" if done else "nothing to do")
        return 0

    def prefetch(self, more: Sequence[str] = ()) -> int:
        """Only the weights, whether or not this machine runs f5. The exit status."""
        self.request = replace(self.request, for_gpu=True, attention="sdpa", weights=True)
        facts = gather(self.request, self.machine, self.running)
        plan = [step for step in make_plan(facts, self.probes.disk) if step.name == WEIGHTS]
        findings = weights_findings(facts, plan, self.probes)
        if any(finding.verdict == "fail" for finding in findings):
            self.say(table(plan, findings))
            return 1
        try:
            self._weights(facts, more)
        except StepFailed as error:
            self.say(f"{WEIGHTS} failed: {error}")
            return 1
        return 0

    def _run(self, name: str, facts: Facts, more: Sequence[str]) -> None:
        uv, environ = self._uv(), self.request.environ
        if name == ENVIRONMENT:
            assert self.request.directory is not None  # the step is planned only with one
            assert uv is not None  # a finding says so otherwise
            build(self.request.directory, self.request.locks, self.root, uv, environ)
        elif name == FLASH_ATTN:
            if facts.target is None or facts.flash_attn.wheel is None:
                raise StepFailed(f"there is no environment to install into: {facts.missing}")
            if facts.flash_attn.state != "install":  # what was built is not what the locks promised
                raise StepFailed(facts.flash_attn.reason)
            try:
                install_wheel(facts.target, facts.flash_attn.wheel, uv, environ)
            finally:
                self._guard(facts)  # which the step lifts
        else:
            self._weights(facts, more)

    def _weights(self, facts: Facts, more: Sequence[str]) -> None:
        able = [each for each in (facts.running, facts.target) if each is not None and each.has_serve_app]
        if not able:
            raise StepFailed(
                f"{facts.running.path} cannot import serve_app, which fetches the weights: run this in the environment "
                "that Ray runs in (`.venv/bin/python`, made by `make .venv/.installed`)"
            )
        command = [str(able[0].path), "-m", "serve_app.weights", *more]
        environ = {**self.request.environ, "PYTHONSAFEPATH": "1"}  # what is installed, not what lies here
        ended = subprocess.run(command, env=environ).returncode
        if ended != 0:
            raise StepFailed(f"`{' '.join(command)}` ended with exit status {ended}; its messages stand above")

    def _guard(self, facts: Facts) -> None:
        """In an environment that is f5's alone; never in one where others install."""
        folder = facts.python.parents[1]
        if facts.form == "prepared" and (folder / STAMP).exists() and folder != Path(sys.prefix):
            try:
                write_guard(folder, describe_environment(facts.python))
            except OSError as error:
                raise StepFailed(f"the files that keep pip out of {folder}: {error.strerror}") from error

    def _uv(self) -> Sequence[str] | None:
        if self.running.uv is not None:
            return [str(self.running.path), "-m", "uv"]
        found = shutil.which("uv", path=self.request.environ.get("PATH"))
        return None if found is None else [found]
