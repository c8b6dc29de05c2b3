"""Which source each file of the pinned model is taken from, and what is said where none has it."""

import errno
from dataclasses import replace

import pytest

from serve_app.errors import ModelLoadFailed, StorageDenied
from serve_app.settings import NodeSettings
from serve_app.weights import F5Sources, NodeWeights
from serve_app.weights.disk import claim
from serve_app.weights.transfer import Described
from tests.support.running import until
from tests.support.weights import BODIES, PINNED, FakeBucket, FakeHub, FakeRemote, names, node_weights


def test_a_disk_that_has_the_files_asks_nobody(tmp_path):
    """The second start reads neither the hub nor the bucket's objects."""
    node_weights(tmp_path, FakeHub()).fetch(F5Sources())
    hub = FakeHub(down=True)
    files = node_weights(tmp_path, hub).fetch(F5Sources())
    assert files.checkpoint.read_bytes() == BODIES["m.safetensors"]
    assert hub.asked == []


def test_the_bucket_is_asked_before_the_hub(tmp_path):
    """Each file from the first that has it; the bucket gets the ones that it lacked."""
    hub, store = FakeHub(), FakeBucket()
    key = f"models/{PINNED.checkpoint.key}"
    store.put(key, BODIES["m.safetensors"], content_type="x/y")
    node = node_weights(tmp_path, hub, store)
    node.fetch(F5Sources())
    node.wait_stored()
    assert (store.reads, sorted(hub.read)) == ([key], ["config.yaml", "pytorch_model.bin"])
    assert store.heads.count(key) == 1  # what has just come from there need not be looked for
    assert {info.key for info in store.list("models/").items} == {
        f"models/{file.key}" for file in (PINNED.checkpoint, *PINNED.vocoder)
    }
    assert store.get(key).info.content_type == "x/y"  # what was there was not written anew


def test_files_on_the_disk_fill_a_bucket_that_lacks_them(tmp_path, caplog):
    """A bucket that is set up later gets them from the first node that starts."""
    caplog.set_level("INFO", "serve_app")
    node_weights(tmp_path, FakeHub()).fetch(F5Sources())
    caplog.clear()
    store = FakeBucket()
    node = node_weights(tmp_path, FakeHub(down=True), store)
    node.fetch(F5Sources())
    node.wait_stored()
    assert store.get(f"models/{PINNED.checkpoint.key}").body == BODIES["m.safetensors"]
    assert caplog.messages == ["weights_present", *["weights_stored"] * 3]


def test_one_process_at_a_time_fills_the_bucket(tmp_path, caplog):
    """Others wait for it, and then find that nothing is left to do."""
    caplog.set_level("INFO", "serve_app")
    store = FakeBucket()
    nodes = [node_weights(tmp_path, FakeHub(), store) for _ in range(2)]
    node_weights(tmp_path, FakeHub()).fetch(F5Sources())
    with claim(tmp_path / "node"):
        for node in nodes:
            node.fetch(F5Sources())
        until(lambda: caplog.messages.count("weights_waiting") == 2, "both wait")
        assert store.written == []
    for node in nodes:
        node.wait_stored()
    assert sorted(store.written) == sorted({info.key for info in store.list("models/").items})
    assert len(store.written) == 3


def test_a_disk_that_fails_is_not_the_buckets_fault(tmp_path, monkeypatch):
    """The hub would not help: it is not asked, and the message is the disk's."""
    hub, store = FakeHub(), FakeBucket()
    for file in (PINNED.checkpoint, *PINNED.vocoder):
        store.put(f"models/{file.key}", BODIES[file.path], content_type="x/y")

    def fail(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("serve_app.weights.transfer.os.fsync", fail)
    with pytest.raises(ModelLoadFailed, match=r"the disk of .* is full"):
        node_weights(tmp_path, hub, store).fetch(F5Sources())
    assert (hub.asked, (tmp_path / "node").exists()) == ([], False)


def test_a_bucket_that_refuses_is_said_and_passed_over(tmp_path, caplog):
    """A node that can do without it starts; what it says is in the log."""
    caplog.set_level("INFO", "serve_app")
    node = node_weights(tmp_path, FakeHub(), FakeBucket(StorageDenied("no right")))
    node.fetch(F5Sources())
    node.wait_stored()
    failed = [record.fields["error"] for record in caplog.records if record.message == "weights_bucket_failed"]
    assert failed == ["no right"] * 3
    assert caplog.messages.count("weights_fetched") == caplog.messages.count("weights_not_stored") == 3


def test_with_both_down_the_error_names_both(tmp_path):
    """And no directory is made."""
    with pytest.raises(ModelLoadFailed, match=r"hub does not answer.*bucket was asked: no right"):
        node_weights(tmp_path, FakeHub(down=True), FakeBucket(StorageDenied("no right"))).fetch(F5Sources())
    assert not (tmp_path / "node").exists()


def test_another_size_in_the_bucket_is_passed_over_and_replaced(tmp_path):
    """The pin says what it must be; the next node must not find the wrong one again."""
    hub, store = FakeHub(), FakeBucket()
    key = f"models/{PINNED.checkpoint.key}"
    store.put(key, b"another", content_type="x/y")
    node = node_weights(tmp_path, hub, store)
    node.fetch(F5Sources())
    node.wait_stored()
    assert (store.reads, store.get(key).body) == ([], BODIES["m.safetensors"])


def test_a_file_cut_short_on_the_disk_is_fetched_anew(tmp_path):
    """Its size tells; only that file is fetched."""
    files = node_weights(tmp_path, FakeHub()).fetch(F5Sources())
    files.checkpoint.write_bytes(BODIES["m.safetensors"][:-1])
    hub = FakeHub()
    node_weights(tmp_path, hub).fetch(F5Sources())
    assert (hub.read, files.checkpoint.read_bytes()) == (["m.safetensors"], BODIES["m.safetensors"])


def test_too_little_room_stops_before_the_first_byte(tmp_path):
    """All missing files count together; what a killed process has left counts as written."""
    need = sum(map(len, BODIES.values())) + 64 * 1024 * 1024
    hub = FakeHub()
    with pytest.raises(ModelLoadFailed, match="make room"):
        node_weights(tmp_path, hub, free=lambda directory: need - 1).fetch(F5Sources())
    assert (hub.read, (tmp_path / "node").exists()) == ([], False)
    folder = (tmp_path / "node" / PINNED.checkpoint.key).parent
    folder.mkdir(parents=True)
    (folder / ".m.safetensors.7-0123456789abcdef.part").write_bytes(BODIES["m.safetensors"][:500])
    node_weights(tmp_path, hub, free=lambda directory: need - 500).fetch(F5Sources())
    assert names(folder) == sorted(BODIES)


def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path):
    """Also where nothing is missing any more."""
    files = node_weights(tmp_path, FakeHub()).fetch(F5Sources())
    (files.vocoder / ".old.bin.7-0123456789abcdef.part").touch()
    node_weights(tmp_path, FakeHub(down=True)).fetch(F5Sources())
    assert names(files.vocoder) == sorted(BODIES)


def test_a_file_that_fails_leaves_no_directory(tmp_path):
    """Nor does the directory of weights itself stay, if this start made it."""
    wrong = replace(PINNED, vocoder=tuple(replace(file, sha256=None) for file in PINNED.vocoder))
    lying = FakeHub(bodies=dict.fromkeys(BODIES, b"short"))
    lying.file = lambda file: Lying(lying, file)
    node = NodeSettings(weights_dir=tmp_path / "above" / "node")
    with pytest.raises(ModelLoadFailed, match="broke off"):
        NodeWeights(node, None, pinned=wrong, hub=lying, free=lambda _: 10**12, pause=lambda _: None).fetch(F5Sources())
    assert list(tmp_path.iterdir()) == []


class Lying(FakeRemote):
    """Describes the file as it should be, and sends another."""

    def describe(self):
        return Described(len(BODIES[self.file.path]), None)


def test_digests_that_are_known_come_with_the_files(tmp_path):
    """Those of the pins, at the first start and at the next, so that nobody reads a gigabyte to learn them again."""
    pins = (PINNED.checkpoint, *PINNED.vocoder)
    expected = {tmp_path / "node" / file.key: file.sha256 for file in pins}
    assert None not in expected.values()
    assert node_weights(tmp_path, FakeHub()).fetch(F5Sources()).sha256 == expected
    assert node_weights(tmp_path, FakeHub(down=True)).fetch(F5Sources()).sha256 == expected
