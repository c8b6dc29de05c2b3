"""When a model that takes nothing rests, whose pauses end with that, and which run is stuck."""

from serve_app.errors import Overloaded, StorageUnreachable
from serve_app.job_models import GIVE_WAY_S, LAST_S, ModelProgress, Models
from serve_app.patience import Patience
from serve_app.storage import MemoryStore
from tests.support.jobs import Clock, job_request, model_refused, no_pause, unit_of


async def test_a_run_whose_replica_was_lost_is_not_stuck_for_what_was_refused_before():
    """Its units go to the model anew; and those that are spoken alone, after a replica ended, take longer."""
    clock, suspects, request = Clock(), set[int](), job_request()
    models = Models(clock, clock.wall)
    progress = ModelProgress(models, MemoryStore(), request, 1, suspects, Patience(no_pause))
    await progress.refused(unit_of(request.speech, 0), Overloaded("full"))
    clock.now += GIVE_WAY_S
    assert progress.is_stuck()
    suspects.add(0)
    assert not progress.is_stuck()
    suspects.clear()
    await progress.planned([unit_of(request.speech, 0)])
    assert not progress.is_stuck()


def test_only_a_pause_for_the_model_ends_with_its_rest():
    """What a store refused waits as its run said, and so does what a model refused after it spoke."""
    clock, words = Clock(), []
    models = Models(clock, clock.wall, lambda: words.append(clock.now))
    ref, tried = (job_request(number).ref for number in range(2))
    for each in (ref, tried):
        models.learn(each, "f5")
    refused = model_refused(clock.wall(), Overloaded("full"))
    assert not models.has_own_time(ref, refused)
    models.took_nothing("f5", tried)
    assert models.rests(ref, ())
    assert models.has_own_time(ref, refused)
    assert not models.has_own_time(ref, model_refused(clock.wall(), StorageUnreachable("no answer")))
    models.spoke("f5")
    assert (models.rests(ref, ()), models.has_own_time(ref, refused), words) == (False, True, [0.0])
    assert not models.has_own_time(tried, refused)
    assert not models.has_own_time(ref, model_refused(clock.wall() + 1.0, Overloaded("full")))


def test_a_rest_grows_by_tries_and_not_by_runs_that_end_together():
    """2, 4, 8 ... s, a minute at the longest; after it one job at a time may try."""
    clock = Clock()
    models = Models(clock, clock.wall)
    refs = [job_request(number).ref for number in range(2)]
    for ref in refs:
        models.learn(ref, "f5")
    rests = []
    for _ in range(8):
        models.took_nothing("f5", refs[1])
        models.took_nothing("f5", refs[0])
        began = clock.now
        while models.rests(refs[0], ()):
            clock.now += 1.0
        rests.append(clock.now - began)
        assert models.rests(refs[0], refs[1:])
        assert models.rests(refs[1], ())
        clock.now += LAST_S
        assert not models.rests(refs[1], ())
    assert rests == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
