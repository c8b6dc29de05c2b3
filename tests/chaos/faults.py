"""Does to the cluster and the store what the plan says, when it says so, and repairs what an operator would."""

import signal
import threading
import time
from collections.abc import Callable

from tests.chaos.cluster import RayCluster
from tests.chaos.history import History
from tests.chaos.load import Load
from tests.chaos.older import write_older_job
from tests.chaos.plan import Fault
from tests.chaos.processes import kill
from tests.chaos.store import BUCKET, KillableStore
from tests.chaos.texts import LONG_EVERY, spoken
from tests.support.running import until

__all__ = ["Injector"]

VICTIM_WITHIN_S = 120
SLOW_S = 0.25
OLDER_JOBS = 3
AWAKE_S = 2.0
"""A replica that was paused is left alone so long, twice `watch_s`: it goes on as if its jobs were still its own, and
finds out. Were it killed by the next fault at once, a pause would be no more than a kill."""


class Injector:
    """One fault after the other; each is in the history with its time."""

    def __init__(self, cluster: RayCluster, store: KillableStore, history: History, load: Load) -> None:
        self._load = load
        self._cluster = cluster
        self._store = store
        self._history = history
        self._do: dict[str, Callable[[Fault], None]] = {
            "jobs": self._kill_one,
            "synthesizer": self._kill_one,
            "ingress": self._kill_one,
            "actor": self._kill_one,
            "controller": self._kill_one,
            "node": self._kill_node,
            "cluster": self._kill_cluster,
            "store": self._kill_store,
            "cut": self._cut,
            "slow": self._slow,
            "pause": self._pause,
            "update": self._update,
        }

    def inject(self, fault: Fault) -> None:
        """Returns when what it killed itself is started again; Serve and Ray heal the rest in their own time."""
        self._do[fault.what](fault)

    def _kill_one(self, fault: Fault) -> None:
        while not kill(pid := self._victim(fault)):
            pass  # it ended by itself meanwhile
        self._record(fault, pid)

    def _kill_node(self, fault: Fault) -> None:
        count = self._cluster.kill_node()
        self._healing(fault, count, self._cluster.start_node)

    def _kill_cluster(self, fault: Fault) -> None:
        count = self._cluster.kill()
        self._healing(fault, count, self._cluster.start)

    def _kill_store(self, fault: Fault) -> None:
        self._store.kill()
        self._healing(fault, 1, self._store.start)

    def _cut(self, fault: Fault) -> None:
        self._store.relay.cut()
        self._healing(fault, 0, lambda: self._lasting(fault.lasts_s, self._store.relay.mend))

    def _slow(self, fault: Fault) -> None:
        self._store.relay.delay(SLOW_S)
        self._healing(fault, 0, lambda: self._lasting(fault.lasts_s, self._store.relay.mend))

    def _pause(self, fault: Fault) -> None:
        while not kill(pid := self._victim(fault), signal.SIGSTOP):
            pass
        self._healing(fault, pid, lambda: self._lasting(fault.lasts_s, lambda: kill(pid, signal.SIGCONT)))
        self._lasting(AWAKE_S)

    def _update(self, fault: Fault) -> None:
        for number in range(OLDER_JOBS):
            text, seed = spoken(number * LONG_EVERY)  # several units each
            self._load.adopt(write_older_job(self._store.client(), BUCKET, text, seed), text, seed)
        self._healing(fault, 0, self._cluster.update)

    def _victim(self, fault: Fault) -> int:
        part = "jobs" if fault.kind == "pause" else fault.what
        pids = until(lambda: self._cluster.pids(part), f"a victim: {part}", VICTIM_WITHIN_S)
        return pids[int(fault.draw * len(pids))]

    def _lasting(self, seconds: float, end: Callable[[], object] = lambda: None) -> None:
        threading.Event().wait(seconds)  # the fault's own length, not a wait for anything
        end()

    def _healing(self, fault: Fault, victim: int, heal: Callable[[], object]) -> None:
        at = time.time()
        try:
            heal()
        finally:
            self._record(fault, victim, at)

    def _record(self, fault: Fault, victim: int, at: float | None = None) -> None:
        now = time.time()
        self._history.add(
            "fault", index=fault.index, kind=fault.kind, what=fault.what, victim=victim, at=at or now, healed=now
        )
