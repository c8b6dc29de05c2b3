"""The Serve shell of a model, with a fake engine and a store in memory; no Ray runs."""

import os

import pytest

from serve_app.deployments import synthesizer
from serve_app.deployments.synthesizer import Synthesizer
from serve_app.domain import BUILTIN, Unit, VoiceRef
from serve_app.engine.fake import FakeEngine
from serve_app.errors import ModelLoadFailed, StorageDenied
from serve_app.runtimes import Runtimes
from serve_app.settings import PreviewSettings
from serve_app.storage import MemoryStore


class NoVoices:
    """Stands in for the arguments of the voice cache."""

    def client(self, store):
        return None


class Shell(Synthesizer):
    """Closed by the test: Serve awaits `__del__`, Python does not."""

    def __del__(self):
        pass


class Cold(FakeEngine):
    def warm_up(self) -> None:
        raise ModelLoadFailed("the vocoder is silent")


@pytest.fixture
def start(monkeypatch):
    """Starts a shell around an engine; ends their threads."""
    monkeypatch.setattr(os, "environ", dict(os.environ))  # the shell keeps installers out of its process
    threads = []

    class Thread(synthesizer.ThreadPoolExecutor):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            threads.append(self)

    monkeypatch.setattr(synthesizer, "ThreadPoolExecutor", Thread)

    def starting(engine, store):
        monkeypatch.setattr(synthesizer, "load_engine", lambda model, weights: engine)
        return Shell(PreviewSettings(name="m"), store, NoVoices(), "INFO")

    yield starting
    for thread in threads:
        thread.shutdown()


async def test_a_warm_replica_publishes_what_makes_its_units(start):
    """What is published is what its units then say."""
    store, engine = MemoryStore(), FakeEngine(version="3")
    shell = start(engine, store)
    assert engine.warm
    spoken = await shell.synthesize(Unit(0, "Hello.", VoiceRef("v", BUILTIN), 1.0, 7, 10, "r1"))
    assert Runtimes(store).made_by("m") == spoken.made_by == "fake 3 float32 none cpu"


def test_a_replica_that_does_not_get_warm_publishes_nothing(start):
    """Nobody is told of a model that cannot speak."""
    store = MemoryStore()
    with pytest.raises(ModelLoadFailed, match="silent"):
        start(Cold(), store)
    assert store.list("").items == []


def test_a_store_that_cannot_be_written_is_a_failed_start(start, monkeypatch):
    """A replica of which nobody can know what it is does not serve."""
    store = MemoryStore()

    def put(key, body, *, content_type):
        raise StorageDenied(f"{key} may not be written")

    monkeypatch.setattr(store, "put", put)
    with pytest.raises(StorageDenied, match=r"runtimes/m\.v1\.json"):
        start(FakeEngine(), store)
