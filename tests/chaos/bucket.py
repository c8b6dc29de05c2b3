"""What the bucket holds in the end, read past the service: runs, outcomes and audio of every job."""

import hashlib
import json
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.chaos.cluster import DEAD_AFTER_S, HEARTBEAT_S
from tests.chaos.store import BUCKET

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["Stored", "read_bucket"]

RECORD = re.compile(r"jobs/[0-9a-f]/(?P<id>[0-9a-f-]{36})/(?P<name>.+)")
OUTCOMES = ("completed", "cancelled", "failed", "expired")
OUTCOME = re.compile(rf"({'|'.join(OUTCOMES)})(-\d+)?\.v1\.json")
READERS = 8


@dataclass(frozen=True, slots=True)
class Stored:
    """One job. `given_back` are runs that their own replica ended without an outcome, so no other took them over.

    `sha256` is of the bytes at the key that the outcome names; None where it names none or nothing lies there. `hasty`
    are runs that another replica began sooner after the one before than a death can be noticed: both took the job at
    once. `conditional`: the outcome was decided by a conditional put.
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


def read_bucket(client: "S3Client") -> dict[str, Stored]:
    """Every job of the bucket by its id."""
    names: dict[str, list[str]] = defaultdict(list)
    for key in _keys(client, "jobs/"):
        if found := RECORD.fullmatch(key):
            names[found["id"]].append(found["name"])
    pending = {key.rpartition("/")[2].partition(".")[0] for key in _keys(client, "pending/")}

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
        read = {name: _json(client, f"jobs/{job_id[-1]}/{job_id}/{name}") for name in (*runs, *outcomes[:1])}
        outcome = read[outcomes[0]] if outcomes else {}
        audio = outcome.get("audio") or {}
        return Stored(
            runs=len(runs),
            owners=len({str(read[name].get("owner")) for name in runs}),
            given_back=sum(name.startswith("ended-") for name in found),
            hasty=_hasty([read[name] for name in runs]),
            outcomes=tuple(name.partition(".")[0] for name in outcomes),
            pending=job_id in pending,
            conditional=any(name.startswith("ending-") for name in found),
            finished_at=outcome.get("finished_at"),
            sha256=sha256(audio["key"]) if "key" in audio else None,
        )

    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(names, pool.map(stored, names), strict=True))


def _hasty(runs: list[dict]) -> int:
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
