"""Reads a Dockerfile, and runs one target of it in a scratch directory in place of a container.

    text -> instructions -> those of a target, parents first -> ScratchImage: a directory, an environment, a CMD

Only what our Dockerfile uses is understood; anything else is a ValueError, never skipped.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

__all__ = ["Ignore", "Instruction", "ScratchImage", "instructions", "of_target"]

IMAGE_PATH = re.compile(r"(?<![\w:/.${}*-])/(?=[a-z])")
"""Where an absolute path begins, but not within a URL or a relative path."""
NO_EFFECT_HERE = {"EXPOSE", "USER"}
"""A directory publishes no port and has no user of its own; what they say is asserted by the test."""


@dataclass(frozen=True)
class Instruction:
    keyword: str
    value: str  # without its flags
    flags: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """Of the JSON form, else of the shell's."""
        return json.loads(self.value) if self.value.startswith("[") else shlex.split(self.value)


def instructions(text: str) -> Iterator[Instruction]:
    """One per instruction: comments and blank lines out, continued lines joined, leading flags apart."""
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    for line in joined.splitlines():
        keyword, _, rest = line.partition(" ")
        flags = []
        while rest.lstrip().startswith("--"):
            flag, _, rest = rest.lstrip().partition(" ")
            flags.append(flag)
        yield Instruction(keyword, rest.strip(), tuple(flags))


def of_target(text: str, target: str) -> list[Instruction]:
    """What builds `target`: the instructions of the stages that it is made from, the deepest first."""
    stages: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []  # ARGs before the first FROM concern the base image's name alone
    for instruction in instructions(text):
        if instruction.keyword == "FROM":
            parent, _as, name = instruction.value.split()
            current = stages.setdefault(name, list(stages.get(parent, [])))
        else:
            current.append(instruction)
    return stages[target]


class Ignore:
    """.dockerignore: the last pattern that matches a path, or a folder above it, decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        self._rules = [(self._regex(line.removeprefix("!")), line.startswith("!")) for line in lines]

    def excludes(self, path: str) -> bool:
        kept = True
        for regex, keeps in self._rules:
            if regex.fullmatch(path):
                kept = keeps
        return not kept

    @staticmethod
    def _regex(pattern: str) -> re.Pattern[str]:
        escaped = re.escape(pattern.strip("/")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        return re.compile(f"{escaped}(/.*)?")


@dataclass
class ScratchImage:
    """A target, built in the directory `root`: RUN runs there, with the image's absolute paths put under `root`.

    `context` is the build context. `not_run` are the RUN commands that a scratch directory cannot have, each of which
    must occur. `substitutes` are words of CMD and HEALTHCHECK that differ here, by a word of the image.
    """

    root: Path
    context: Path
    environment: dict[str, str]
    build_args: Mapping[str, str] = field(default_factory=dict)
    not_run: frozenset[str] = frozenset()
    substitutes: Mapping[str, str] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    workdir: Path = field(init=False)
    command: list[str] = field(init=False)
    health_command: list[str] = field(init=False)
    stop_signal: str = field(init=False)

    def __post_init__(self) -> None:
        python = _system_python(self.root / "usr" / "local")
        self.environment = self.environment | {
            "PATH": f"{python.parent}:/usr/bin:/bin",
            "DEB_PYTHON_INSTALL_LAYOUT": "deb_system",  # where the tests' Python is Debian's: no second `local`
        }
        self.workdir = self.root
        self._ignore = Ignore((self.context / ".dockerignore").read_text())
        self._args: dict[str, str] = {}

    def build(self, of: list[Instruction]) -> None:
        """Raises AssertionError with a command's output where it fails, ValueError for what is not understood."""
        for instruction in of:
            if instruction.keyword in NO_EFFECT_HERE:
                continue
            step = getattr(self, f"_{instruction.keyword.lower()}", None)
            if step is None:
                raise ValueError(f"{instruction.keyword} is not understood: teach tests/support/dockerfile.py")
            step(instruction)
        assert self.not_run <= set(self.ran), "not_run names a command that the Dockerfile no longer has"
        assert set(self.build_args) <= set(self._args), "a build argument that the Dockerfile does not have"

    def run(self, command: list[str], **options) -> "subprocess.CompletedProcess[str]":
        """As `docker run` or `docker exec` would, to its end."""
        return subprocess.run(
            command, cwd=self.workdir, env=self.environment, capture_output=True, text=True, timeout=240, **options
        )

    def _arg(self, instruction: Instruction) -> None:
        (word,) = instruction.words
        name, _, default = word.partition("=")
        self._args[name] = self.build_args.get(name, default)

    def _env(self, instruction: Instruction) -> None:
        for word in instruction.words:
            name, _, value = word.partition("=")
            self.environment[name] = self._mapped(value)

    def _workdir(self, instruction: Instruction) -> None:
        self.workdir = Path(self._mapped(instruction.value))
        self.workdir.mkdir(parents=True, exist_ok=True)

    def _volume(self, instruction: Instruction) -> None:
        for word in instruction.words:
            Path(self._mapped(word)).mkdir(parents=True, exist_ok=True)

    def _copy(self, instruction: Instruction) -> None:
        if instruction.flags:
            raise ValueError(f"COPY {instruction.flags} is not understood")
        *sources, to = instruction.words
        for source in sources:
            at = self.workdir / to
            self._copy_one(source, at / Path(source).name if to.endswith("/") else at)

    def _copy_one(self, source: str, to: Path) -> None:
        taken = self.context / source
        files = [path for path in sorted(taken.rglob("*")) if path.is_file()] if taken.is_dir() else [taken]
        kept = [path for path in files if not self._ignore.excludes(path.relative_to(self.context).as_posix())]
        if not kept:
            raise AssertionError(f"COPY {source}: .dockerignore or the repository leaves nothing to copy")
        for path in kept:
            target = to / path.relative_to(taken) if taken.is_dir() else to
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)

    def _run(self, instruction: Instruction) -> None:
        if any(not flag.startswith("--mount=type=cache,") for flag in instruction.flags):
            raise ValueError(f"RUN {instruction.flags} is not understood")
        self.ran.append(instruction.value)
        if instruction.value in self.not_run:
            return
        command = ["/bin/sh", "-c", self._under_root(instruction.value)]  # the shell fills in ARG and ENV
        ended = subprocess.run(
            command, cwd=self.workdir, env=self.environment | self._args, capture_output=True, text=True, timeout=240
        )
        assert ended.returncode == 0, f"RUN {instruction.value}\n{ended.stdout}{ended.stderr}"

    def _cmd(self, instruction: Instruction) -> None:
        self.command = self._exec_form(instruction.value)

    def _healthcheck(self, instruction: Instruction) -> None:
        self.health_command = self._exec_form(instruction.value.removeprefix("CMD "))

    def _stopsignal(self, instruction: Instruction) -> None:
        self.stop_signal = instruction.value

    def _exec_form(self, value: str) -> list[str]:
        words = [self._mapped(word) for word in json.loads(value)]
        for old, new in self.substitutes.items():
            assert any(old in word for word in words), f"{old!r} is not in {words}"
            words = [word.replace(old, new) for word in words]
        return words

    def _mapped(self, text: str) -> str:
        """`text` with this directory before every absolute path, and with the ARGs and ENVs that it names."""
        return Template(self._under_root(text)).safe_substitute({**self._args, **self.environment})

    def _under_root(self, text: str) -> str:
        return IMAGE_PATH.sub(f"{self.root}/", text)


def _system_python(prefix: Path) -> Path:
    """An interpreter of its own that is no venv, as the base image has: the tests' Python, with no packages but pip.

    uv's `--system` takes no venv, and Ray treats one differently.
    """
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python, library = prefix / "bin" / name, prefix / "lib" / name
    for folder in (python.parent, library / "site-packages", prefix / "lib" / "python3" / "dist-packages"):
        folder.mkdir(parents=True)
    shutil.copy2(Path(sys.executable).resolve(), python)
    for alias in ("python", "python3"):
        (python.parent / alias).symlink_to(name)
    for entry in Path(sysconfig.get_path("stdlib")).iterdir():
        if entry.name not in ("site-packages", "dist-packages", "EXTERNALLY-MANAGED"):
            (library / entry.name).symlink_to(entry)
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    layout = os.environ | {"DEB_PYTHON_INSTALL_LAYOUT": "deb_system"}
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "pip"], env=layout, check=True)
    return python
