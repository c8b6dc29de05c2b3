"""Runs a function in a process of its own, limited in memory and time: for files of strangers, and code that may crash.

    run -> child: limits set -> function(fields, data) -> (fields, data) -> back, or its error

What passes is JSON and bytes, never pickles: a child that a hostile file has taken over cannot answer with code. Nor
does it get our environment, with its keys. It is no sandbox: it is the same user, with that user's files.
"""

import ctypes
import importlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from serve_app import errors
from serve_app.errors import InvalidRequest, Unavailable

__all__ = ["Fields", "LimitExceeded", "Limits", "run"]

Fields = Mapping[str, Any]
Function = Callable[[Fields, bytes], tuple[Fields, bytes]]

KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "OPENBLAS_CORETYPE",
    "HF_HOME",
    "HF_ENDPOINT",
)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Threads of maths libraries cost address space, which is what is limited."""
LAST_WORDS = 500
PR_SET_PDEATHSIG = 1


class LimitExceeded(Exception):
    """The child ran out of memory or time, or crashed; says which."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`memory_bytes` of address space, and `seconds` on the clock."""

    memory_bytes: int
    seconds: float


def run(function: str, fields: Fields, data: bytes, limits: Limits) -> tuple[dict[str, Any], bytes]:
    """What `function` ("module:name" of ours) returns for `fields` and `data`. Blocks.

    Raises LimitExceeded, an InvalidRequest that the function raised, Unavailable where the machine killed it, or
    RuntimeError with the child's last words.
    """
    seconds = math.ceil(limits.seconds)
    task = {"function": function, "fields": fields, "memory_bytes": limits.memory_bytes, "cpu_seconds": seconds}
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | ONE_THREAD
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        [sys.executable, "-m", "serve_app.isolated"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # so that all it may have started ends with it
    )
    with process:
        try:
            output, said = process.communicate(json.dumps(task).encode() + b"\n" + data, timeout=limits.seconds)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            raise LimitExceeded(f"took more than {limits.seconds:g} s") from error
    if process.returncode == -signal.SIGKILL:  # not by us: the machine is short of memory, or goes down
        raise Unavailable(f"{function} was killed, perhaps for want of memory: send the request again")
    if process.returncode < 0:
        raise LimitExceeded(f"ended by {signal.Signals(-process.returncode).name}")
    head, _, body = output.partition(b"\n")
    answer: dict[str, Any] = json.loads(head) if head else {}
    if answer.get("out_of_memory"):
        raise LimitExceeded(f"took more than {limits.memory_bytes / 1e6:.0f} MB")
    if refused := answer.get("refused"):
        raise _request_error(refused["class"], refused["message"])
    if process.returncode or "fields" not in answer:
        raise RuntimeError(f"{function} failed: {said.decode(errors='replace')[-LAST_WORDS:]}")
    return answer["fields"], body


def _request_error(name: str, message: str) -> InvalidRequest:
    """The error of ours with this class name, if it is one that blames the request."""
    found = getattr(errors, name, None)
    if not (isinstance(found, type) and issubclass(found, InvalidRequest)):
        raise RuntimeError(f"the child raised {name}: {message}")
    return found(message)


def _main() -> None:
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is not the answer
    task = json.loads(sys.stdin.buffer.readline())
    resource.setrlimit(resource.RLIMIT_AS, (task["memory_bytes"],) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (task["cpu_seconds"] + 1, task["cpu_seconds"] + 5))  # SIGXCPU, then SIGKILL
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody waits for an answer when the parent is gone
    module, _, name = task["function"].partition(":")
    try:
        function: Function = getattr(importlib.import_module(module), name)
        fields, data = function(task["fields"], sys.stdin.buffer.read())
        _answer(output, {"fields": fields}, data)
    except InvalidRequest as error:
        _answer(output, {"refused": {"class": type(error).__name__, "message": error.message}})
    except MemoryError:
        _answer(output, {"out_of_memory": True})


def _answer(output: BinaryIO, head: Fields, data: bytes = b"") -> None:
    output.write(json.dumps(head).encode() + b"\n" + data)
    output.flush()


if __name__ == "__main__":
    _main()
