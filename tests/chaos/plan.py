"""Which faults a run has, and after how many acknowledged jobs each comes: decided by the seed alone."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from tests.chaos.cluster import JOBS_REPLICAS

__all__ = ["ENDS_RUNS", "KILLS", "KINDS", "OUTAGES", "STORE_OUTAGES", "Fault", "make_plan"]

KINDS = {
    "replica": "kill -9 of a Synthesizer or Jobs replica",
    "ingress": "kill -9 of an Ingress replica",
    "actor": "kill -9 of the voice cache actor",
    "controller": "kill -9 of the Serve controller",
    "node": "kill -9 of all processes of a Ray node",
    "cluster": "kill -9 of all processes of Ray",
    "store": "kill -9 of the store",
    "cut": "the store's connections are closed, and refused for a while",
    "slow": "the store's answers are late for a while",
    "pause": "SIGSTOP of a Jobs replica until others think it dead, then SIGCONT",
    "update": "rolling update of all deployments, with jobs of the version before in the store",
}
REPLICAS = ("jobs", "synthesizer")
"""Killed as often as each other."""

ENDS_RUNS = {"jobs": 1, "pause": 1} | dict.fromkeys(("node", "cluster", "store", "cut", "update"), JOBS_REPLICAS)
"""By `Fault.what`: of how many Jobs replicas the runs may be repeated after it. A node may hold all of them. Without a
store no heartbeat comes, so each may take the others for dead. An update lets runs go, but Serve kills what is slow."""

KILLS = frozenset({"jobs", "synthesizer", "ingress", "actor", "controller", "node"})
"""Those that leave a cluster and a store, so that jobs can complete meanwhile."""

OUTAGES = frozenset({"cluster", "store", "cut"})
"""Nothing can make progress until these are over, so they are told apart."""

STORE_OUTAGES = frozenset({"store", "cut"})
"""Nothing is kept until these are over, whatever time an outcome has that is written then."""

FIRST, LAST = 0.05, 0.92
"""Share of the jobs before the first fault and before the last, so that there is load before and after each."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`draw`, in [0, 1), chooses among the victims that live then; `lasts_s` is for what lasts."""

    index: int
    kind: str
    what: str  # the kind, but of a replica's kill its deployment: `jobs` or `synthesizer`
    after_jobs: int
    draw: float
    lasts_s: float = 0.0


def make_plan(seed: int, jobs: int, counts: Mapping[str, int], dead_after_s: float) -> tuple[Fault, ...]:
    """`counts` faults of each kind of KINDS in an order drawn from `seed`, spread over `jobs`."""
    dice = random.Random(seed)
    kinds = [(kind, REPLICAS[nth % 2] if kind == "replica" else kind) for kind in KINDS for nth in range(counts[kind])]
    dice.shuffle(kinds)
    step = (LAST - FIRST) * jobs / max(1, len(kinds))
    faults = []
    for index, (kind, what) in enumerate(kinds):
        after = round(FIRST * jobs + (index + dice.random() * 0.8) * step)
        lasts_s = round(_length_s(kind, dice, dead_after_s), 2)
        faults.append(Fault(index, kind, what, after, round(dice.random(), 4), lasts_s))
    return tuple(faults)


def _length_s(kind: str, dice: random.Random, dead_after_s: float) -> float:
    """Cuts are shorter and longer than what counts as death; a pause is always longer, a sweep included."""
    if kind == "pause":
        return dead_after_s * dice.uniform(1.8, 3.0)
    if kind == "cut":
        return dead_after_s * dice.uniform(0.2, 2.0)
    return dice.uniform(2.0, 5.0) if kind == "slow" else 0.0
