"""Audio that a job names is there, whoever removes it meanwhile and whoever is killed in the middle of it."""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from serve_app.jobs import Results
from serve_app.jobs.audio import STALE_S, JobAudio
from serve_app.storage import MemoryStore
from tests.support.interleaving import Crash, contents, interleavings
from tests.support.jobs import Clock, job_request, job_store, speak_now

WAV = b"RIFF one"
SHA256 = hashlib.sha256(WAV).hexdigest()
SPEECH = replace(job_request().speech, model_version="test")
FIRST, SECOND, THIRD = (job_request(number, speech=SPEECH, seeded=True) for number in (0xA, 0x1B, 0x2C))
clock = Clock()


class Dies:
    """A process that is killed before its `at`-th write."""

    def __init__(self, store: MemoryStore, at: int) -> None:
        self._store, self._left = store, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name) if name not in ("put", "delete") else partial(self._write, name)

    def _write(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self._left == 0:
            raise Crash(name)
        self._left -= 1
        return getattr(self._store, name)(*args, **kwargs)


def spoken() -> MemoryStore:
    """The first job has the audio, and its time is over."""
    store = MemoryStore(now=clock.date)
    job_store(store).submit(FIRST)
    speak_now(store, clock, FIRST.ref, WAV)
    return store


def spoken_twice() -> MemoryStore:
    """Two jobs have it, and the time of both is over."""
    store = spoken()
    job_store(store).submit(THIRD)
    assert speak_now(store, clock, THIRD.ref, WAV).cached
    return store


def remove(store: MemoryStore, at: int = 99, ref=FIRST.ref) -> None:
    with contextlib.suppress(Crash):
        JobAudio(Dies(store, at), clock.wall).remove(ref, SHA256)


def find(store: MemoryStore) -> str | None:
    found = Results(store, clock.wall).find(SECOND)
    return found and found.audio.key


def write(store: MemoryStore) -> str:
    return Results(store, clock.wall).store_audio(SECOND, WAV, SHA256, "audio/wav", 1.0).key


def answers(prepare: Callable[[], MemoryStore], *acts: Callable[[MemoryStore], Any], switches=None) -> set[Any]:
    """What the last actor was told in some order; in every one the audio that it was told of is there, and named."""
    told = set()
    for order in interleavings(prepare, *acts, switches=switches):
        key = order.results[-1]
        assert key is None or isinstance(key, str), key
        told.add(key and key.partition("-")[1])
        if key is not None:
            assert order.store.get(key).body == WAV, order.steps
            assert order.store.head(f"references/{key.removeprefix('audio/')}/{SECOND.job_id}"), order.steps
    return told


@pytest.mark.parametrize("at", [*range(5), 99])
@pytest.mark.parametrize("act", [find, write])
def test_who_names_audio_has_it_in_every_order_whoever_is_killed(act, at):
    """At each write of whoever removes it. What is found or written stays, the latter under another name at need."""
    told = answers(spoken, lambda store: remove(store, at), act)
    assert told <= {None, ""} if act is find else told <= {"", "-"}
    if at == 99:
        assert told == ({None, ""} if act is find else {"", "-"})


@pytest.mark.parametrize("act", [find, write])
def test_two_that_remove_at_once_cannot_mislead_a_third(act):
    """The end of one's removal says nothing of the other's; two jobs go, or one by two replicas."""
    for prepare, other in ((spoken, FIRST.ref), (spoken_twice, THIRD.ref)):
        answers(prepare, remove, lambda store, other=other: remove(store, ref=other), act, switches=2)


@pytest.mark.parametrize("at", range(6))
def test_a_removal_that_was_left_is_cleared(at):
    """Until then equal audio has another name; afterwards nothing of it is left, and the audio of the other stays."""
    clock.now = 0.0
    store = spoken()
    remove(store, at)
    audio = JobAudio(store, clock.wall)
    left = [key for key in contents(store) if key.startswith("removals/")]
    assert audio.remove(FIRST.ref, SHA256) is (left == [])
    key = write(store)
    assert ("-" in key) is (left != [])
    clock.now = STALE_S + 1.0
    assert audio.remove(FIRST.ref, SHA256)
    assert store.list("removals/").items == []
    assert store.get(key).body == WAV
    clock.now = 0.0
