"""What a running service holds in memory, now and at the most: its ingress, Serve's proxy, and Ray's objects."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

__all__ = ["KINDS", "OBJECTS", "Peak", "memory_mb", "processes_of", "watched"]

KINDS: Mapping[str, str] = {"ingress": "ray::ServeReplica:speech:Ingress", "Serve's proxy": "ray::ProxyActor"}
"""How the titles of their processes begin."""
OBJECTS = "Ray's objects"
"""Shared memory, of the whole machine. Ray fills what is free again before it takes more, and gives nothing back: so
this is the most that lay there at once since the start."""
EVERY_S = 0.2


@dataclass
class Peak:
    """The most that each held at once, in MB."""

    mb: dict[str, float] = field(default_factory=dict)

    def take(self, now: Mapping[str, float]) -> None:
        for kind, mb in now.items():
            self.mb[kind] = max(mb, self.mb.get(kind, 0.0))


def processes_of(root_pid: int) -> dict[str, list[psutil.Process]]:
    """The processes below `root_pid`, by kind."""
    found: dict[str, list[psutil.Process]] = {kind: [] for kind in KINDS}
    for process in psutil.Process(root_pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            title = " ".join(process.cmdline())
            for kind, name in KINDS.items():
                if title.startswith(name):
                    found[kind].append(process)
    assert all(found.values()), found
    return found


def memory_mb(processes: Mapping[str, list[psutil.Process]]) -> dict[str, float]:
    """Of each kind of process what it shares with no other, and of OBJECTS."""
    own = {kind: sum(_own_bytes(process) for process in those) / 1e6 for kind, those in processes.items()}
    return own | {OBJECTS: psutil.virtual_memory().shared / 1e6}


def _own_bytes(process: psutil.Process) -> int:
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


@contextmanager
def watched(processes: Mapping[str, list[psutil.Process]]) -> Iterator[Peak]:
    """The peak of what is looked at every 0.2 s meanwhile."""
    peak, over = Peak(), threading.Event()

    def watch() -> None:
        while not over.wait(EVERY_S):
            peak.take(memory_mb(processes))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        peak.take(memory_mb(processes))
