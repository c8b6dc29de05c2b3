"""What is read of a bucket, from one that lies in a dict: ends, markers, and which runs were let go."""

import json
from io import BytesIO
from typing import Any

import pytest

from tests.chaos.bucket import read_bucket, settled_bucket

ID = "01a215fd-c048-7011-8ba5-5e2948ce5493"
FOLDER = f"jobs/3/{ID}/"


class FakeClient:
    """As much of a boto3 client as is asked for."""

    class exceptions:  # noqa: N801  # the client's own name
        NoSuchKey = KeyError

    def __init__(self, objects: dict[str, Any]) -> None:
        self._objects = {key: json.dumps(value).encode() for key, value in objects.items()}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803  # the client's own names
        return {"Body": BytesIO(self._objects[Key])}

    def get_paginator(self, _: str) -> "FakeClient":
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> list[dict[str, Any]]:  # noqa: N803  # the client's own names
        return [{"Contents": [{"Key": key} for key in sorted(self._objects) if key.startswith(Prefix)]}]


def stored(**records: Any):
    """The one job of a bucket, with these records of its folder (`_` for `-`)."""
    names = {f"{FOLDER}{name.replace('_', '-')}.v1.json": body for name, body in records.items()}
    return read_bucket(FakeClient({f"{FOLDER}request.v1.json": {}} | names))[ID]


def run(number: int, started_at: float, owner: str = "one") -> dict[str, Any]:
    return {"run": number, "owner": owner, "started_at": started_at}


def end(number: int, ended_at: float, reason: str = "released") -> dict[str, Any]:
    return {"run": number, "reason": reason, "ended_at": ended_at}


@pytest.mark.parametrize("name", [f"019f00000000.{ID}.default.n3", f"019f00000000.{ID}.default.n3.1", f"{ID}.default"])
def test_a_marker_is_known_by_the_id_in_its_name(name: str):
    """Of this version, of a retry, and of the version before."""
    client = FakeClient({f"pending/3/{name}": "", f"{FOLDER}request.v1.json": {}, f"{FOLDER}completed.v1.json": {}})
    assert read_bucket(client)[ID].pending


@pytest.mark.parametrize(("looks", "pending"), [(2, False), (10_000, True)])
def test_markers_are_given_time_to_go(looks: int, pending: bool):
    """One that goes soon is not there, one that is left is."""
    marker, left = f"pending/3/{ID}.default", looks

    class Client(FakeClient):
        def paginate(self, *, Bucket: str, Prefix: str) -> list[dict[str, Any]]:  # noqa: N803
            nonlocal left
            left -= Prefix == "pending/"
            return [*super().paginate(Bucket=Bucket, Prefix=Prefix)] + [
                {"Contents": [{"Key": marker}]} for _ in range(left >= 0 and Prefix == "pending/")
            ]

    client = Client({f"{FOLDER}request.v1.json": {}, f"{FOLDER}completed.v1.json": {}})
    assert settled_bucket(client, within_s=1.0)[ID].pending == pending


@pytest.mark.parametrize(
    ("records", "conditional"),
    [
        (("ending_0000", "completed"), True),
        (("completed",), False),
        (("ending_0000",), False),  # announced, and not ended yet
        (("ending_0000", "failed", "completed_0001"), False),
        (("ending_0000", "failed", "ending_0001", "completed_0001"), True),
    ],
)
def test_an_end_is_announced_for_its_generation(records: tuple[str, ...], conditional: bool):
    """Each outcome needs the announcement of its own generation."""
    assert stored(**{name: {} for name in records}).conditional == conditional


@pytest.mark.parametrize(
    ("ended", "counts"),
    [
        ({}, (0, 0)),
        ({"ended_0001_released": end(1, 11.0)}, (1, 0)),
        ({"ended_0001_waiting": end(1, 11.0, "waiting")}, (1, 0)),
        ({"ended_0001_released": end(1, 13.0)}, (0, 0)),  # by a replica that had been paused
        ({"ended_0001_failed": end(1, 11.0, "failed")}, (0, 1)),
        ({"ended_0002_released": end(2, 14.0)}, (0, 0)),  # nothing followed it
    ],
)
def test_only_what_was_let_go_before_the_next_began_needs_no_fault(ended: dict[str, Any], counts: tuple[int, int]):
    """Given back and failed ones, of two runs by two replicas, the second of which began at 12."""
    found = stored(run_0001=run(1, 10.0), run_0002=run(2, 12.0, "other"), **ended)
    assert (found.given_back, found.failed) == counts
    assert (found.runs, found.owners) == (2, 2)
