"""Processes that this run started: each in a session of its own, by which all of its descendants are found.

Only members of those sessions are ever signalled. Nothing outlives the run, not even one that is killed itself: a guard
process reads which sessions there are, and ends what is left of them when this process is gone.

    start(command) -> session -> guard: "+pid"        end(process) -> all killed, leader reaped -> guard: "-pid"
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.support.running import ROOT, until

__all__ = ["Process", "Sessions", "commands", "kill", "members", "title"]

END_S = 30
Process = subprocess.Popen[bytes]


class Sessions:
    """Starts processes and ends them with all of their descendants. One for a run."""

    def __enter__(self) -> Self:
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.processes"], cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._guard.communicate(timeout=2 * END_S)

    def start(self, command: list[str], env: Mapping[str, str], log: Path) -> Process:
        """Start `command` as the leader of a session. Linux ends it with the thread that called this."""
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._tell(f"+{process.pid}")
        return process

    def end(self, process: Process) -> int:
        """kill -9 of every process of its session, those that are being started included; how many there were at first.

        The leader is reaped last, for until then its pid, which is the session's, cannot be another's.
        """
        count = len(members([process.pid]))
        _end_all([process.pid])
        process.wait(END_S)
        self._tell(f"-{process.pid}")
        return count

    def _tell(self, line: str) -> None:
        pipe: IO[bytes] | None = self._guard.stdin
        assert pipe is not None
        pipe.write(f"{line}\n".encode())
        pipe.flush()


def members(sessions: Iterable[int]) -> list[int]:
    """Pids of the processes of these sessions that live, the oldest first; zombies do not."""
    wanted = set(sessions)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(entry)) is not None:
            state, session, started = stat
            if session in wanted and state not in "ZX":
                found.append((started, int(entry.name)))
    return [pid for _, pid in sorted(found)]


def title(pid: int) -> str:
    """Its command line as it is now; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def commands() -> list[str]:
    """The command line of every process of this machine."""
    return [title(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    """Whether there was such a process to signal."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _end_all(sessions: Iterable[int]) -> None:
    def none_left() -> bool:
        left = members(sessions)
        for pid in left:
            kill(pid)
        return not left

    until(none_left, "processes end", END_S)


def _stat(entry: Path) -> tuple[str, int, int] | None:
    """State, session and start of a process (fields 3, 6 and 22 of proc(5)); None when it is gone."""
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[3]), int(fields[19])


def _guard(lines: Iterable[str]) -> None:
    """End what is open when the lines end, which is when whoever writes them is gone."""
    open_sessions: set[int] = set()
    for line in lines:
        (open_sessions.add if line[0] == "+" else open_sessions.discard)(int(line[1:]))
    if open_sessions:
        _end_all(open_sessions)


if __name__ == "__main__":
    _guard(sys.stdin)
