"""What replicas publish of themselves, and how soon others see it."""

import json

import pytest

from serve_app import keys
from serve_app.errors import ObjectCorrupt, StorageUnreachable
from serve_app.patience import PATIENCE_S
from serve_app.runtimes import Runtimes
from serve_app.storage import MemoryStore


class Store(MemoryStore):
    """Counts reads, and answers nothing while it is `away`."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.away = False

    def get(self, key):
        self.reads += 1
        if self.away:
            raise StorageUnreachable("no answer")
        return super().get(key)

    def put(self, key, body, *, content_type):
        if self.away:
            raise StorageUnreachable("no answer")
        return super().put(key, body, content_type=content_type)


@pytest.fixture
def store() -> Store:
    return Store()


def test_what_is_published_is_seen_elsewhere(store):
    """Another process reads it from the store; a model of which nothing was said has None."""
    Runtimes(store).publish("f5", "f5 0123456789abcdef bfloat16 flash_attn cuda")
    assert Runtimes(store).made_by("f5") == "f5 0123456789abcdef bfloat16 flash_attn cuda"
    assert Runtimes(store).made_by("preview") is None


def test_the_record_is_as_documented(store):
    """One JSON object a model, under a key that carries its schema's version."""
    Runtimes(store).publish("f5", "f5 x float32 sdpa cpu")
    stored = store.get("runtimes/f5.v1.json")
    assert json.loads(stored.body) == {"schema_version": 1, "model": "f5", "made_by": "f5 x float32 sdpa cpu"}
    assert (stored.info.content_type, keys.runtime("f5")) == ("application/json", "runtimes/f5.v1.json")


@pytest.mark.parametrize(("before", "after"), [(None, "m 1"), ("m 1", "m 2")])
def test_a_read_is_good_for_five_seconds(store, before, after):
    """By the injected clock; that nothing was published is remembered no longer than anything else."""
    now = 100.0
    runtimes = Runtimes(store, clock=lambda: now)
    if before is not None:
        Runtimes(store).publish("m", before)
    assert runtimes.made_by("m") == before
    Runtimes(store).publish("m", after)
    now = 104.9
    assert (runtimes.made_by("m"), store.reads) == (before, 1)
    now = 105.0
    assert (runtimes.made_by("m"), store.reads) == (after, 2)


def test_models_are_remembered_apart(store):
    """One model's read says nothing of another."""
    for model in ("a", "b"):
        Runtimes(store).publish(model, f"{model} 1")
    runtimes = Runtimes(store, clock=lambda: 0.0)
    assert [runtimes.made_by(model) for model in ("a", "b", "a", "b")] == ["a 1", "b 1", "a 1", "b 1"]
    assert store.reads == 2


def test_what_one_publishes_one_sees_at_once(store):
    """Whatever was read before."""
    runtimes = Runtimes(store, clock=lambda: 0.0)
    assert runtimes.made_by("m") is None
    runtimes.publish("m", "m 1")
    assert runtimes.made_by("m") == "m 1"


def test_a_store_that_does_not_answer_is_an_error(store):
    """It is not taken for a model without replicas, and is asked again at once."""
    runtimes = Runtimes(store, clock=lambda: 0.0, sleep=lambda _: None)
    store.away = True
    with pytest.raises(StorageUnreachable):
        runtimes.made_by("m")
    with pytest.raises(StorageUnreachable):
        runtimes.publish("m", "m 1")
    store.away = False
    assert runtimes.made_by("m") is None


@pytest.mark.parametrize("away", [0, 3, 10])
def test_a_replica_waits_for_its_store_before_it_gives_up_its_start(store, away):
    """Five minutes, with pauses that grow: a model that is loaded and warm is not loaded again for that."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        store.away = len(pauses) < away

    store.away = away > 0
    Runtimes(store, sleep=pause).publish("m", "m 1")
    assert (Runtimes(store).made_by("m"), tuple(pauses)) == ("m 1", PATIENCE_S[:away])


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff"])
def test_a_record_that_is_none_is_corrupt(store, body):
    """The message names the key and what mends it."""
    store.put("runtimes/m.v1.json", body, content_type="application/json")
    with pytest.raises(ObjectCorrupt, match=r"^runtimes/m\.v1\.json is not .* start a replica anew"):
        Runtimes(store).made_by("m")
