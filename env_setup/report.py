"""The plan and the findings, for people and for machines."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from env_setup.plan import Step
from env_setup.verdicts import Finding

__all__ = ["as_json", "is_go", "table"]

FOUND_COLUMNS = 76
FIRST_REASONS = 3


def is_go(findings: Sequence[Finding]) -> bool:
    """No finding failed."""
    return all(finding.verdict != "fail" for finding in findings)


def as_json(plan: Sequence[Step], findings: Sequence[Finding]) -> str:
    """One object."""
    answer = {
        "go": is_go(findings),
        "plan": [step.as_json() for step in plan],
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(answer, indent=2)


def table(plan: Sequence[Step], findings: Sequence[Finding]) -> str:
    """Numbered steps, aligned findings, and GO or NO-GO as the last line."""
    lines = ["Plan", *(f"  {number}. {step}" for number, step in enumerate(plan, 1)), "", "Findings"]
    name_columns = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        found = textwrap.wrap(finding.found, FOUND_COLUMNS, break_long_words=False, break_on_hyphens=False) or [""]
        head = f"  {finding.verdict:<4}  {finding.name:<{name_columns}}  "
        if finding.verdict in ("warn", "fail"):
            found.append(f"(needed: {finding.needed})")
        lines += [(head if first == 0 else " " * len(head)) + text for first, text in enumerate(found)]
    against = [f"{finding.name}: {finding.found}" for finding in findings if finding.verdict == "fail"]
    more = len(against) - FIRST_REASONS
    reasons = " | ".join(against[:FIRST_REASONS]) + (f" | and {more} more" if more > 0 else "")
    return "\n".join([*lines, "", f"NO-GO: {reasons}" if against else "GO"])
