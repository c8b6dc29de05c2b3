"""The cache actor and its clients, on a real Ray over a real S3 server, with every request counted on the wire."""

import os
import signal
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayTaskError

from serve_app import __version__
from serve_app.deployments.unwrap import unwrap
from serve_app.deployments.voice_cache import VoiceCacheArgs, VoiceCacheClient
from serve_app.domain import BUILTIN, VoiceRef, VoiceStats
from serve_app.errors import Unavailable, VoiceNotFound
from serve_app.preparation import RecordingPreparer
from serve_app.voice_cache import CacheStats
from tests.support.caching import CALLERS, ROOM, TEXT, Deployed, is_read, summary, tone
from tests.support.running import until
from tests.support.wire import Refuse

CALLS = 50


@pytest.mark.parametrize("own_cache", [True, False], ids=["clients", "actor-alone"])
def test_a_cold_voice_is_read_once(deployed: Deployed, callers: list[Any], own_cache: bool) -> None:
    """200 callers in four processes, all waiting at once: one GET of the prepared voice, all answered.

    Through the clients each process asks the actor once; without their caches the actor gets all 200 calls.
    """
    ref = deployed.create("anna")
    opened = deployed.hold_audio()
    answers = [caller.get.remote(ref, CALLS, own_cache) for caller in callers]
    asked = CALLERS if own_cache else CALLERS * CALLS
    until(lambda: deployed.actor_stats().misses == asked, "all calls at the actor")
    if own_cache:
        assert ray.get([caller.waiting.remote() for caller in callers]) == [CALLS] * CALLERS
    opened.set()
    assert ray.get(answers) == [[summary(deployed.library.load(ref))] * CALLS] * CALLERS
    assert deployed.gets() == [1, 0]
    assert deployed.actor_stats() == CacheStats(hits=0, misses=asked, loads=1, size=4 * 24_000 * 5 + len(TEXT))


def test_callers_survive_the_death_of_the_actor(deployed: Deployed, callers: list[Any]) -> None:
    """SIGKILL of its process while all wait: Ray restarts the same actor, which reads once more and answers them all.

    The call that goes past the clients, which would try again, shows that it is Ray who repeats it.
    """
    ref = deployed.create("anna")
    opened = deployed.hold_audio()
    answers = [caller.get.remote(ref, CALLS, True) for caller in callers]
    actor = deployed.actor()
    direct = actor.get.remote(ref)
    until(lambda: deployed.actor_stats().misses == CALLERS + 1, "all calls at the actor")
    pid = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    until(lambda: deployed.gets()[0] == 2, "the restarted actor reads")
    opened.set()
    expected = summary(deployed.library.load(ref))
    assert summary(ray.get(direct)) == expected
    assert ray.get(answers) == [[expected] * CALLS] * CALLERS
    assert ray.get(actor.__ray_call__.remote(lambda _: os.getpid())) != pid
    assert deployed.gets() == [2, 0]


def test_an_error_reaches_all_and_the_next_call_works(deployed: Deployed, callers: list[Any]) -> None:
    """A 403 is StorageDenied itself, not Ray's wrapper, for all 200 callers; nothing remembers it."""
    ref = deployed.create("anna")
    deployed.proxy.fault = lambda request: Refuse(403, "AccessDenied") if is_read(request, ".wav") else None
    answers = ray.get([caller.get.remote(ref, CALLS, True) for caller in callers])
    assert answers == [["StorageDenied"] * CALLS] * CALLERS
    deployed.proxy.fault = None
    answers = ray.get([caller.get.remote(ref, 1, True) for caller in callers])
    assert answers == [[summary(deployed.library.load(ref))]] * CALLERS


async def test_errors_arrive_as_they_were_raised(deployed: Deployed) -> None:
    """Class and message of the library's error, without Ray's traceback in it."""
    client = deployed.args.client(deployed.store)
    with pytest.raises(VoiceNotFound) as error:
        await client.get(VoiceRef("nobody", "0" * 32))
    assert type(error.value) is VoiceNotFound
    assert str(error.value) == error.value.message
    assert error.value.message.startswith("voice 'nobody' does not exist: list ")


async def test_a_defect_keeps_its_remote_traceback(deployed: Deployed) -> None:
    """An exception that is none of ours comes with the place where it was raised, for the log."""
    client = deployed.args.client(deployed.store)
    with pytest.raises(AttributeError) as error:
        await client._ask("get", "no ref")  # type: ignore[arg-type]  # the defect
    assert type(error.value) is AttributeError
    assert "voice_cache.py" in error.value.__notes__[0]


def test_an_error_is_unwrapped_however_often_it_was_wrapped() -> None:
    """Through two processes an error is wrapped twice; what was never wrapped comes back as it is."""
    error = Unavailable("not now")
    once = RayTaskError("f", "traceback", error)
    twice = RayTaskError("g", "traceback", once.as_instanceof_cause())
    assert [unwrap(each) for each in (twice, once, error)] == [error] * 3
    assert not hasattr(error, "__notes__")


async def test_a_replaced_voice(deployed: Deployed) -> None:
    """The old version is read by who was accepted with it, the new one by the others."""
    client = deployed.args.client(deployed.store)
    old, new = deployed.create("anna", 220, 5), deployed.create("anna", 330, 6)
    for ref, hz, seconds in ((old, 220, 5), (new, 330, 6)):
        voice = await client.get(ref)
        assert (voice.ref, len(voice.audio)) == (ref, seconds * 24_000)
        np.testing.assert_allclose(voice.audio, tone(hz, seconds), atol=1e-4)


async def test_stats_without_the_audio(deployed: Deployed) -> None:
    """Seconds of audio and bytes of text; the voice is read once for these and for itself."""
    client = deployed.args.client(deployed.store)
    ref = deployed.create("anna", seconds=5)
    assert await client.stats(ref) == VoiceStats(5.0, len(TEXT))
    assert (await client.get(ref)).stats == VoiceStats(5.0, len(TEXT))
    assert deployed.gets() == [1, 0]


async def test_no_actor_on_the_path_of_a_warm_request(deployed: Deployed) -> None:
    """What a client has is answered by the client: with the actor gone for good, and without making another."""
    client = deployed.args.client(deployed.store)
    ref = deployed.create("anna")
    voice, stats = await client.get(ref), await client.stats(ref)
    ray.kill(deployed.actor())
    assert await client.get(ref) is voice
    assert await client.stats(ref) == stats
    with pytest.raises(ValueError, match="Failed to look up actor"):
        deployed.actor()


async def test_an_actor_that_is_gone_for_good_is_made_anew(deployed: Deployed) -> None:
    """Clients notice, and a cold voice is read through a new one."""
    client = deployed.args.client(deployed.store)
    await client.get(deployed.create("anna"))
    ray.kill(deployed.actor())
    voice = await client.get(deployed.create("ben", 330))
    np.testing.assert_allclose(voice.audio, tone(330, 5), atol=1e-4)


async def test_an_actor_that_stays_dead_is_unavailable(deployed: Deployed) -> None:
    """When Ray goes on giving a dead actor, attempts are bounded, with growing pauses, and end in Unavailable."""
    deployed.args.client(deployed.store)
    dead = deployed.actor()
    ray.kill(dead)
    pauses: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    client = VoiceCacheClient(lambda: dead, ROOM, sleep=sleep)
    with pytest.raises(Unavailable, match="'anna'"):
        await client.get(VoiceRef("anna", "0" * 32))
    assert pauses == [0.1, 0.3, 1.0, 3.0]


async def test_a_clients_voice_is_its_own_and_read_only(deployed: Deployed) -> None:
    """It keeps no memory of Ray's object store, and cannot be changed under those who share it."""
    voice = await deployed.args.client(deployed.store).get(deployed.create("anna"))
    assert (voice.audio.base is None, voice.audio.flags.writeable) == (True, False)


async def test_a_built_in_voice_never_reaches_the_actor(deployed: Deployed) -> None:
    """Asking for one is a defect of the caller."""
    client = deployed.args.client(deployed.store)
    for call in (client.get, client.stats):
        with pytest.raises(ValueError, match="'heart' is built into an engine"):
            await call(VoiceRef("heart", BUILTIN))
    assert deployed.actor_stats() == CacheStats(hits=0, misses=0, loads=0, size=0)


def test_the_actors_name_tells_what_must_not_be_shared() -> None:
    """Code version, store and bound: the same for equal ones, another where one differs."""
    plain = RecordingPreparer(None)
    kinds = (("a", 1, plain), ("b", 1, plain), ("a", 2, plain), ("a", 1, RecordingPreparer("tiny.en")))
    names = {VoiceCacheArgs(*kind).actor_name for kind in kinds}
    assert len(names) == 4
    assert VoiceCacheArgs("a", 1, RecordingPreparer(None)).actor_name in names
    assert all(name.startswith(f"voice_cache-{__version__}-") for name in names)
