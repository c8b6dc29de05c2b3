"""What the bucket holds in the end, read past the service: runs, outcomes and audio of every job."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

from tests.chaos.cluster import DEAD_AFTER_S, HEARTBEAT_S
from tests.chaos.store import BUCKET
from tests.support.running import until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["Stored", "read_bucket", "settled_bucket"]

RECORD = re.compile(r"jobs/[0-9a-f]/(?P<id>[0-9a-f-]{36})/(?P<name>.+)")
MARKER = re.compile(r"pending/[0-9a-f]/(?:[0-9a-f]{12}\.)?(?P<id>[0-9a-f-]{36})\..+")
"""Of this version, and without the time of the version before."""
OUTCOMES = ("completed", "cancelled", "failed", "expired")
OUTCOME = re.compile(rf"({'|'.join(OUTCOMES)})(-\d+)?\.v1\.json")
READERS = 8
SETTLE_S = 60.0
"""Longest wait for the last marker to go: many times what sweeps take to see one that a crash left."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One job. Of runs that another followed, `given_back` are those that their own replica had let go before that, so
    that nothing was taken over. Not so those that `failed`, nor those that a replica let go which another thought dead:
    that they were repeated is to be explained by a fault.

    `sha256` is of the bytes at the key that the outcome names; None where it names none or nothing lies there. `hasty`
    are runs that another replica began sooner after the one before than a death can be noticed: both took the job at
    once. `conditional`: each outcome was decided by a conditional put, of the record `ending-N`.
    """

    runs: int
    owners: int
    given_back: int
    hasty: int
    outcomes: tuple[str, ...]
    pending: bool
    conditional: bool
    finished_at: float | None = None
    sha256: str | None = None
    failed: int = 0


def settled_bucket(client: "S3Client", within_s: float = SETTLE_S) -> dict[str, Stored]:
    """`read_bucket` when no marker is left, or so late that those which are will not go."""
    with suppress(AssertionError):
        until(lambda: not _pending(client), "nothing is pending", within_s)
    return read_bucket(client)


def read_bucket(client: "S3Client") -> dict[str, Stored]:
    """Every job of the bucket by its id."""
    names: dict[str, list[str]] = defaultdict(list)
    for key in _keys(client, "jobs/"):
        if found := RECORD.fullmatch(key):
            names[found["id"]].append(found["name"])
    pending = _pending(client)

    @cache
    def sha256(key: str) -> str | None:
        try:
            return hashlib.sha256(client.get_object(Bucket=BUCKET, Key=key)["Body"].read()).hexdigest()
        except client.exceptions.NoSuchKey:
            return None

    def stored(job_id: str) -> Stored:
        found = names[job_id]
        runs = sorted(name for name in found if name.startswith("run-"))
        outcomes = sorted((name for name in found if OUTCOME.fullmatch(name)), key=_precedence)
        ends = sorted(name for name in found if name.startswith("ended-"))
        read = {name: _json(client, f"jobs/{job_id[-1]}/{job_id}/{name}") for name in (*runs, *ends, *outcomes[:1])}
        outcome = read[outcomes[0]] if outcomes else {}
        audio = outcome.get("audio") or {}
        return Stored(
            runs=len(runs),
            owners=len({str(read[name].get("owner")) for name in runs}),
            given_back=_given_back([read[name] for name in runs], [read[name] for name in ends]),
            hasty=_hasty([read[name] for name in runs]),
            outcomes=tuple(name.partition(".")[0] for name in outcomes),
            pending=job_id in pending,
            conditional=bool(outcomes) and all(_ending(name) in found for name in outcomes),
            finished_at=outcome.get("finished_at"),
            sha256=sha256(audio["key"]) if "key" in audio else None,
            failed=sum(read[name]["reason"] == "failed" for name in ends),
        )

    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(names, pool.map(stored, names), strict=True))


def _pending(client: "S3Client") -> set[str]:
    """The ids of the jobs that have a marker."""
    return {found["id"] for key in _keys(client, "pending/") if (found := MARKER.fullmatch(key))}


def _given_back(runs: Sequence[dict], ends: Sequence[dict]) -> int:
    let_go = {end["run"]: end["ended_at"] for end in ends if end["reason"] != "failed"}
    return sum(let_go.get(earlier["run"], inf) <= later["started_at"] for earlier, later in pairwise(runs))


def _ending(outcome: str) -> str:
    """The record that announces `outcome`: of the same generation."""
    found = OUTCOME.fullmatch(outcome)
    return f"ending{found[2] or '-0000'}.v1.json" if found else ""


def _hasty(runs: Sequence[dict]) -> int:
    return sum(
        later["owner"] != earlier["owner"] and later["started_at"] - earlier["started_at"] < DEAD_AFTER_S - HEARTBEAT_S
        for earlier, later in pairwise(runs)
    )


def _keys(client: "S3Client", prefix: str) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def _json(client: "S3Client", key: str) -> dict:
    return json.loads(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())


def _precedence(name: str) -> int:
    return next(place for place, state in enumerate(OUTCOMES) if name.startswith(state))
