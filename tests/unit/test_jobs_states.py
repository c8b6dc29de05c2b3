"""What the names of a job's records mean: a table, and a property over all orders of writing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.jobs import OUTCOMES, Standing
from serve_app.jobs.states import (
    REQUEST,
    again_name,
    ended_name,
    ending_name,
    notified_name,
    outcome_name,
    run_name,
    standing,
)

RUN_1, RUN_2, RUN_3, RUN_4 = map(run_name, (1, 2, 3, 4))
FAILED_1, RELEASED_2 = ended_name(1, "failed"), ended_name(2, "released")
RETRY = again_name(1, 3)
RUNS = (RUN_1, RUN_2, RUN_3)

TABLE = [
    ([], {"exists": False, "state": "queued", "run": 0}),
    ([RUN_1], {"exists": False}),
    ([REQUEST], {"exists": True, "gone": False, "state": "queued", "outcome": None, "run": 0, "runs": 0}),
    ([REQUEST, RUN_1], {"state": "in_progress", "run": 1, "runs": 1, "reason": None, "lost": 1, "failed": 0}),
    ([REQUEST, RUN_1, FAILED_1], {"state": "queued", "reason": "failed", "failed": 1, "lost": 0}),
    ([REQUEST, RUN_1, RUN_2, FAILED_1], {"state": "in_progress", "run": 2, "reason": None, "failed": 1, "lost": 1}),
    ([REQUEST, RUN_1, RUN_2, RELEASED_2], {"state": "queued", "reason": "released", "failed": 0, "lost": 1}),
    ([REQUEST, RUN_1, ended_name(1, "waiting")], {"state": "queued", "reason": "waiting", "failed": 0, "lost": 0}),
    ([REQUEST, run_name(9999), run_name(10000)], {"run": 10000, "runs": 2}),
    # an outcome is the end, whatever else is written
    ([REQUEST, RUN_1, "completed.v1.json"], {"state": "completed", "outcome": "completed", "lost": 0}),
    ([REQUEST, "completed.v1.json", RUN_1, FAILED_1, RUN_2], {"state": "completed"}),
    ([REQUEST, ending_name(0)], {"state": "queued", "outcome": None}),
    ([REQUEST, RUN_1, ending_name(0)], {"state": "in_progress", "outcome": None}),
    # of two outcomes the first in OUTCOMES counts
    ([REQUEST, "failed.v1.json", "completed.v1.json"], {"state": "completed"}),
    ([REQUEST, "failed.v1.json", "cancelled.v1.json"], {"state": "cancelled"}),
    ([REQUEST, "expired.v1.json", "failed.v1.json"], {"state": "failed"}),
    ([REQUEST, "expired.v1.json", "cancelled.v1.json", "completed.v1.json"], {"state": "completed"}),
    # a retry: only outcomes and runs of its generation count, run numbers go on
    ([REQUEST, *RUNS, "failed.v1.json", RETRY], {"state": "queued", "generation": 1, "run": 3, "runs": 0, "lost": 0}),
    ([REQUEST, *RUNS, FAILED_1, "failed.v1.json", RETRY], {"failed": 0, "lost": 0, "reason": None}),
    ([REQUEST, *RUNS, "failed.v1.json", RETRY, RUN_4], {"state": "in_progress", "run": 4, "runs": 1, "lost": 1}),
    ([REQUEST, *RUNS, RETRY, RUN_4, ended_name(4, "failed")], {"state": "queued", "failed": 1}),
    ([REQUEST, "failed.v1.json", RETRY, "completed.v1.json"], {"state": "queued", "outcome": None}),
    ([REQUEST, "failed.v1.json", RETRY, "expired-0001.v1.json"], {"state": "expired", "generation": 1}),
    ([REQUEST, RETRY, "failed-0001.v1.json", again_name(2, 5)], {"state": "queued", "generation": 2, "run": 5}),
    ([REQUEST, RETRY, again_name(2, 5), "cancelled-0002.v1.json"], {"state": "cancelled", "generation": 2}),
    # what a run has kept, and what clients and collectors add
    ([REQUEST, "progress-0001-00002-00007-of-00010.v1.npz"], {"units_done": 7, "units": 10}),
    (
        [REQUEST, "progress-0001-00002-00007-of-00010.v1.npz", "progress-0002-00001-00008-of-00010.v1.npz"],
        {"units_done": 8, "units": 10},
    ),
    ([REQUEST], {"units_done": 0, "units": 0, "expires_ms": None, "notified": False}),
    ([REQUEST, "completed.v1.json", notified_name(0)], {"notified": True}),
    ([REQUEST, "failed.v1.json", notified_name(0), RETRY], {"notified": False}),
    ([REQUEST, "completed.v1.json", "gone.v1.json"], {"gone": True, "exists": True}),
    (["gone.v1.json"], {"gone": True, "exists": False}),
    # what is none of ours decides nothing
    ([REQUEST, "streamed.v1", "completed.v2.json", "run-1.v1.json", "x"], {"state": "queued", "run": 0}),
]


@pytest.mark.parametrize(("names", "expected"), TABLE)
def test_names_are_the_state(names, expected):
    """Each set of records means what the module's docstring says, in whichever order they are listed."""
    for order in (names, names[::-1]):
        found = standing(order)
        assert {name: getattr(found, name) for name in expected} == expected


WRITES = st.one_of(
    st.integers(1, 5).map(run_name),
    st.tuples(st.integers(1, 5), st.sampled_from(["failed", "waiting", "released"])).map(
        lambda args: ended_name(*args)
    ),
    st.tuples(st.sampled_from(OUTCOMES), st.integers(0, 2)).map(lambda args: outcome_name(*args)),
    st.integers(0, 2).map(ending_name),
    st.sampled_from([again_name(1, 2), again_name(2, 4)]),
    st.integers(0, 2).map(notified_name),
    st.just("progress-0001-00002-00007-of-00010.v1.npz"),
)


def may_follow(before: Standing, after: Standing) -> bool:
    """Whether one write may lead from `before` to `after`, where `before` has an outcome."""
    if after.generation > before.generation:
        return True
    rank = OUTCOMES.index
    return after.outcome is not None and rank(after.outcome) <= rank(before.outcome)


@given(st.lists(WRITES, max_size=25))
def test_once_a_job_has_ended_only_precedence_or_a_retry_changes_it(writes):
    """Two owners, a client's cancel and retries write in any order: no later write takes an end back."""
    names = {REQUEST}
    for write in writes:
        before = standing(names)
        names.add(write)
        after = standing(names)
        assert after.generation >= before.generation
        assert after.run >= before.run or after.generation > before.generation
        if before.outcome is not None and before != after:
            assert may_follow(before, after), (write, before.state, after.state)
        assert after.state == (after.outcome or after.state)


@given(st.lists(WRITES, max_size=20), st.integers(0, 1))
def test_late_writes_of_an_older_generation_change_no_outcome(writes, older):
    """What a run before the retry still writes cannot end the job that was retried."""
    names = {REQUEST, again_name(1, 2), again_name(2, 4), "completed-0002.v1.json"}
    before = standing(names)
    late = [write for write in writes if write in {outcome_name(state, older) for state in OUTCOMES} | {RUN_1, RUN_2}]
    after = standing(names | set(late))
    assert (after.state, after.outcome, after.run, after.runs) == (
        before.state,
        before.outcome,
        before.run,
        before.runs,
    )


@given(st.lists(WRITES, max_size=12), st.randoms())
def test_the_order_of_writing_does_not_matter(writes, random):
    """The set of records is the state: how it came about is not."""
    shuffled = [*writes, REQUEST]
    random.shuffle(shuffled)
    assert standing(shuffled) == standing([REQUEST, *writes])
