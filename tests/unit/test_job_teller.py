"""Telling Jobs replicas of new jobs: off the path of requests, in few calls, and what fails is a log line."""

import asyncio
import logging

import pytest

from serve_app import logs
from serve_app.errors import Unavailable
from serve_app.job_teller import MOST_TOLD, PAUSE_S, JobTeller
from serve_app.jobs import JobRef, Marker
from tests.support.deadline import DEADLINE_S
from tests.support.jobs import job_id_of, until


def marker_of(number: int) -> Marker:
    return Marker(JobRef("default", job_id_of(number)), accepted_ms=number)


class Replica:
    """Stands in for the Jobs replicas; a call is over when `gate` is open."""

    def __init__(self, *errors: Exception) -> None:
        self.calls: list[list[Marker]] = []
        self.errors = list(errors)
        self.gate = asyncio.Event()
        self.gate.set()

    async def start(self, markers) -> None:
        self.calls.append(list(markers))
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)


async def no_pause(seconds: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture
def logged(caplog, monkeypatch):
    """What is logged: event, and fields."""
    monkeypatch.setattr(logging.getLogger("serve_app"), "propagate", True)
    caplog.set_level(logging.INFO, "serve_app")
    return lambda: [(each.levelname, each.message, each.fields) for each in caplog.records]


async def test_the_first_is_told_of_at_once_and_the_others_together():
    """While a call is on its way, what comes meanwhile waits for it, and is one call."""
    replica = Replica()
    teller = JobTeller(replica, sleep=no_pause)
    replica.gate.clear()
    teller.tell(marker_of(1))
    await until(lambda: replica.calls)
    for number in (2, 3, 4):
        teller.tell(marker_of(number))
    await asyncio.sleep(0)
    assert replica.calls == [[marker_of(1)]]
    replica.gate.set()
    await until(lambda: len(replica.calls) == 2)
    assert replica.calls[1] == [marker_of(2), marker_of(3), marker_of(4)]


async def test_calls_are_a_pause_apart():
    """Many jobs one after another are few calls: the next waits PAUSE_S, and takes what came meanwhile."""
    replica, pauses, over = Replica(), [], asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await over.wait()

    teller = JobTeller(replica, sleep=pause)
    teller.tell(marker_of(1))
    await until(lambda: pauses)
    teller.tell(marker_of(2))
    teller.tell(marker_of(3))
    assert (replica.calls, pauses) == ([[marker_of(1)]], [PAUSE_S])
    over.set()
    await until(lambda: len(replica.calls) == 2)
    assert replica.calls[1] == [marker_of(2), marker_of(3)]


@pytest.mark.parametrize("error", [Unavailable("no replica"), TypeError("JobRef() is no marker")])
async def test_a_call_that_fails_is_logged_and_the_next_is_made(error, logged):
    """No replica, or one of a version before that knows no markers: a sweep finds these jobs."""
    replica = Replica(error)
    teller = JobTeller(replica, sleep=no_pause)
    teller.tell(marker_of(1))
    await until(lambda: replica.calls and teller._telling is None)
    teller.tell(marker_of(2))
    await until(lambda: len(replica.calls) == 2)
    assert [(event, fields["job_id"], fields["jobs"]) for _, event, fields in logged()] == [
        ("runner_not_told", job_id_of(1), 1)
    ]


async def test_a_replica_that_never_answers_holds_nobody(logged):
    """A handle whose deployment has no replica waits for one; after `tell_s` the next are told."""
    replica = Replica()
    replica.gate.clear()
    teller = JobTeller(replica, tell_s=0.01, sleep=no_pause)
    teller.tell(marker_of(1))
    await asyncio.wait_for(teller._telling, DEADLINE_S)
    assert [fields["reason"] for _, _, fields in logged()] == ["no Jobs replica answered in 0.01 s"]
    teller.tell(marker_of(2))
    await until(lambda: len(replica.calls) == 2)


async def test_what_waits_is_bounded(logged):
    """What comes beyond the bound is left to the sweeps, and said so."""
    replica = Replica()
    replica.gate.clear()
    teller = JobTeller(replica, sleep=no_pause)
    teller.tell(marker_of(0))
    await until(lambda: replica.calls)
    for number in range(1, MOST_TOLD + 2):
        teller.tell(marker_of(number))
    assert [fields["job_id"] for _, _, fields in logged()] == [job_id_of(MOST_TOLD + 1)]
    replica.gate.set()
    await until(lambda: len(replica.calls) == 2)
    assert replica.calls[1] == [marker_of(number) for number in range(1, MOST_TOLD + 1)]


async def test_a_word_is_not_logged_with_the_request_that_brought_it(logged):
    """It may speak of many requests' jobs, and outlives them."""
    teller = JobTeller(Replica(Unavailable("gone")), sleep=no_pause)
    with logs.bind(request_id="r1"):
        teller.tell(marker_of(1))
        await until(logged)
    assert "request_id" not in logged()[0][2]
