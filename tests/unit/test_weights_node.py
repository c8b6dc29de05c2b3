"""Which source each file of a model is taken from, and what is said where none has it."""

import errno
import hashlib
from dataclasses import replace

import pytest

from env_setup.pins import HubFile
from serve_app.errors import ModelLoadFailed, StorageDenied
from serve_app.settings import NodeSettings
from serve_app.storage import MemoryStore
from serve_app.weights import F5Files, F5Sources, NodeWeights
from serve_app.weights.disk import claim
from serve_app.weights.sources import Pinned
from serve_app.weights.transfer import Described
from tests.support.running import until

COMMIT = "c" * 40
BODIES = {"config.yaml": b"config", "pytorch_model.bin": b"vocos" * 50, "m.safetensors": b"f5" * 500}
SMALLEST = b"\x02\0\0\0\0\0\0\0{}"  # a safetensors file without tensors


def pin(name):
    return HubFile("me/m", COMMIT, name, hashlib.sha256(BODIES[name]).hexdigest(), len(BODIES[name]))


PINNED = Pinned(pin("m.safetensors"), (pin("config.yaml"), pin("pytorch_model.bin")))


class FakeHub:
    """Has BODIES, or is down. `asked` lists what was described, `read` what was streamed."""

    def __init__(self, down=False, bodies=BODIES):
        self.down, self.bodies, self.asked, self.read = down, bodies, [], []

    def file(self, file):
        return FakeRemote(self, file)


class FakeRemote:
    def __init__(self, hub, file):
        self.hub, self.file, self.label = hub, file, f"hub/{file.path}"

    def describe(self):
        self.hub.asked.append(self.file.path)
        if self.hub.down:
            raise ModelLoadFailed("the hub does not answer")
        body = self.hub.bodies[self.file.path]
        return Described(len(body), hashlib.sha256(body).hexdigest())

    def read(self, start):
        self.hub.read.append(self.file.path)
        yield self.hub.bodies[self.file.path][start:]


class FakeBucket(MemoryStore):
    """A MemoryStore as the bucket "service"; `refusal` is raised from every read."""

    bucket = "service"

    def __init__(self, refusal=None):
        super().__init__()
        self.refusal, self.others = refusal, {}
        self.heads, self.reads, self.written = [], [], []

    def in_bucket(self, bucket):
        return self.others[bucket]

    def head(self, key):
        self.heads.append(key)
        if self.refusal:
            raise self.refusal
        return super().head(key)

    def put_file(self, key, path, *, content_type):
        self.written.append(key)
        return super().put_file(key, path, content_type=content_type)

    def read(self, key, *, start=0, etag=None):
        self.reads.append(key)
        return super().read(key, start=start, etag=etag)


def weights(tmp_path, hub, store=None, **more):
    node = NodeSettings(weights_dir=tmp_path / "node")
    return NodeWeights(node, store, pinned=PINNED, hub=hub, **{"free": lambda directory: 10**12} | more)


def names(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def vocoder_at(folder, name="model.safetensors", body=b"x"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_bytes(b"config")
    (folder / name).write_bytes(body)
    return folder


def test_local_files_are_taken_as_they_are(tmp_path):
    """Nobody is asked, nothing is written, nothing goes into the bucket."""
    (tmp_path / "m.safetensors").write_bytes(SMALLEST)
    (tmp_path / "vocab.txt").write_bytes(b"a\nb\n")
    vocoder = vocoder_at(tmp_path / "voc")
    hub, store = FakeHub(), FakeBucket()
    node = weights(tmp_path, hub, store)
    files = F5Files(tmp_path / "m.safetensors", vocoder, tmp_path / "vocab.txt")
    assert node.fetch(F5Sources(str(files.checkpoint), str(vocoder), str(files.vocab))) == files
    node.wait_stored()
    assert (hub.asked, store.list("").items, (tmp_path / "node").exists()) == ([], [], False)


def test_a_disk_that_has_the_files_asks_nobody(tmp_path):
    """The second start reads neither the hub nor the bucket's objects."""
    weights(tmp_path, FakeHub()).fetch(F5Sources())
    hub = FakeHub(down=True)
    files = weights(tmp_path, hub).fetch(F5Sources())
    assert files.checkpoint.read_bytes() == BODIES["m.safetensors"]
    assert hub.asked == []


def test_the_bucket_is_asked_before_the_hub(tmp_path):
    """Each file from the first that has it; the bucket gets the ones that it lacked."""
    hub, store = FakeHub(), FakeBucket()
    key = f"models/{PINNED.checkpoint.key}"
    store.put(key, BODIES["m.safetensors"], content_type="x/y")
    node = weights(tmp_path, hub, store)
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
    weights(tmp_path, FakeHub()).fetch(F5Sources())
    caplog.clear()
    store = FakeBucket()
    node = weights(tmp_path, FakeHub(down=True), store)
    node.fetch(F5Sources())
    node.wait_stored()
    assert store.get(f"models/{PINNED.checkpoint.key}").body == BODIES["m.safetensors"]
    assert caplog.messages == ["weights_present", *["weights_stored"] * 3]


def test_one_process_at_a_time_fills_the_bucket(tmp_path, caplog):
    """Others wait for it, and then find that nothing is left to do."""
    caplog.set_level("INFO", "serve_app")
    store = FakeBucket()
    nodes = [weights(tmp_path, FakeHub(), store) for _ in range(2)]
    weights(tmp_path, FakeHub()).fetch(F5Sources())
    with claim(tmp_path / "node"):
        for node in nodes:
            node.fetch(F5Sources())
        until(lambda: caplog.messages.count("weights_waiting") == 2, "both wait", within_s=20)
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
        weights(tmp_path, hub, store).fetch(F5Sources())
    assert (hub.asked, (tmp_path / "node").exists()) == ([], False)


def test_a_bucket_that_refuses_is_said_and_passed_over(tmp_path, caplog):
    """A node that can do without it starts; what it says is in the log."""
    caplog.set_level("INFO", "serve_app")
    node = weights(tmp_path, FakeHub(), FakeBucket(StorageDenied("no right")))
    node.fetch(F5Sources())
    node.wait_stored()
    failed = [record.fields["error"] for record in caplog.records if record.message == "weights_bucket_failed"]
    assert failed == ["no right"] * 3
    assert caplog.messages.count("weights_fetched") == caplog.messages.count("weights_not_stored") == 3


def test_with_both_down_the_error_names_both(tmp_path):
    """And no directory is made."""
    with pytest.raises(ModelLoadFailed, match=r"hub does not answer.*bucket was asked: no right"):
        weights(tmp_path, FakeHub(down=True), FakeBucket(StorageDenied("no right"))).fetch(F5Sources())
    assert not (tmp_path / "node").exists()


def test_another_size_in_the_bucket_is_passed_over_and_replaced(tmp_path):
    """The pin says what it must be; the next node must not find the wrong one again."""
    hub, store = FakeHub(), FakeBucket()
    key = f"models/{PINNED.checkpoint.key}"
    store.put(key, b"another", content_type="x/y")
    node = weights(tmp_path, hub, store)
    node.fetch(F5Sources())
    node.wait_stored()
    assert (store.reads, store.get(key).body) == ([], BODIES["m.safetensors"])


def test_a_file_cut_short_on_the_disk_is_fetched_anew(tmp_path):
    """Its size tells; only that file is fetched."""
    files = weights(tmp_path, FakeHub()).fetch(F5Sources())
    files.checkpoint.write_bytes(BODIES["m.safetensors"][:-1])
    hub = FakeHub()
    weights(tmp_path, hub).fetch(F5Sources())
    assert (hub.read, files.checkpoint.read_bytes()) == (["m.safetensors"], BODIES["m.safetensors"])


def test_too_little_room_stops_before_the_first_byte(tmp_path):
    """All missing files count together; what a killed process has left counts as written."""
    need = sum(map(len, BODIES.values())) + 64 * 1024 * 1024
    hub = FakeHub()
    with pytest.raises(ModelLoadFailed, match="make room"):
        weights(tmp_path, hub, free=lambda directory: need - 1).fetch(F5Sources())
    assert (hub.read, (tmp_path / "node").exists()) == ([], False)
    folder = (tmp_path / "node" / PINNED.checkpoint.key).parent
    folder.mkdir(parents=True)
    (folder / ".m.safetensors.7-0123456789abcdef.part").write_bytes(BODIES["m.safetensors"][:500])
    weights(tmp_path, hub, free=lambda directory: need - 500).fetch(F5Sources())
    assert names(folder) == sorted(BODIES)


def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path):
    """Also where nothing is missing any more."""
    files = weights(tmp_path, FakeHub()).fetch(F5Sources())
    (files.vocoder / ".old.bin.7-0123456789abcdef.part").touch()
    weights(tmp_path, FakeHub(down=True)).fetch(F5Sources())
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


def test_an_object_is_a_source_without_being_copied(tmp_path):
    """From any bucket, under its sha256; the service's bucket stays as it is."""
    store = FakeBucket()
    other = store.others["mine"] = FakeBucket()
    other.put("a/m.safetensors", SMALLEST, content_type="x/y")
    vocoder = vocoder_at(tmp_path / "voc")
    node = weights(tmp_path, FakeHub(down=True), store)
    files = node.fetch(F5Sources("s3://mine/a/m.safetensors", str(vocoder)))
    digest = hashlib.sha256(SMALLEST).hexdigest()
    assert files.checkpoint == tmp_path / "node" / "s3" / "mine" / digest / "m.safetensors"
    assert files.checkpoint.read_bytes() == SMALLEST
    node.wait_stored()
    assert store.list("").items == []


def test_an_object_that_is_named_with_its_sha256_is_asked_for_once(tmp_path):
    """The next start needs no bucket; without the sha256 only the bucket can say which object is meant."""
    store, vocoder = FakeBucket(), str(vocoder_at(tmp_path / "voc"))
    store.put("a/m.safetensors", SMALLEST, content_type="x/y")
    source = f"s3://service/a/m.safetensors#sha256={hashlib.sha256(SMALLEST).hexdigest()}"
    first = weights(tmp_path, FakeHub(), store).fetch(F5Sources(source, vocoder))
    assert weights(tmp_path, FakeHub(), None).fetch(F5Sources(source, vocoder)) == first
    with pytest.raises(ModelLoadFailed, match=r"s3://service/a/m\.safetensors cannot be read.*set S3_BUCKET, AWS_"):
        weights(tmp_path, FakeHub(), None).fetch(F5Sources("s3://service/a/m.safetensors", vocoder))


def test_a_replaced_object_gets_a_place_of_its_own(tmp_path):
    """A replica that runs keeps the file that it has open."""
    store, vocoder = FakeBucket(), str(vocoder_at(tmp_path / "voc"))
    places = []
    for body in (SMALLEST, b"\x03\0\0\0\0\0\0\0{ }"):
        store.put("m.safetensors", body, content_type="x/y")
        places.append(weights(tmp_path, FakeHub(), store).fetch(F5Sources("s3://service/m.safetensors", vocoder)))
        assert places[-1].checkpoint.read_bytes() == body
    assert places[0].checkpoint.read_bytes() == SMALLEST


def test_an_object_replaced_while_it_is_fetched_is_refused(tmp_path):
    """It would lie at the place of the one that was described."""

    class Replaced(FakeBucket):
        def head(self, key):
            info = super().head(key)
            self.put(key, b"\x03\0\0\0\0\0\0\0{ }", content_type="x/y")
            return info

    store = Replaced()
    store.put("m.safetensors", SMALLEST, content_type="x/y")
    with pytest.raises(ModelLoadFailed, match="has changed since it was described"):
        weights(tmp_path, FakeHub(), store).fetch(
            F5Sources("s3://service/m.safetensors", str(vocoder_at(tmp_path / "voc")))
        )
    assert not (tmp_path / "node").exists()


def test_a_vocoder_in_a_bucket_is_one_folder(tmp_path):
    """config.yaml and model.safetensors lie together, although each is an object of its own."""
    store = FakeBucket()
    for name in ("config.yaml", "model.safetensors"):
        store.put(f"voc/{name}", SMALLEST, content_type="x/y")
    (tmp_path / "m.safetensors").write_bytes(SMALLEST)
    files = weights(tmp_path, FakeHub(), store).fetch(F5Sources(str(tmp_path / "m.safetensors"), "s3://service/voc"))
    assert names(files.vocoder) == ["config.yaml", "model.safetensors"]


@pytest.mark.parametrize(
    ("body", "source", "message"),
    [
        (None, "m.safetensors", r"source is '.*/m\.safetensors', and there is no such file on this node"),
        (b"", "m.safetensors", "is empty, cut short or not in its format"),
        (SMALLEST[:-1], "m.safetensors", "is empty, cut short or not in its format"),
        (
            SMALLEST,
            f"m.safetensors#sha256={'0' * 64}",
            f"has the sha256 {hashlib.sha256(SMALLEST).hexdigest()}, not 00",
        ),
    ],
)
def test_a_local_file_that_is_wrong_is_named(tmp_path, body, source, message):
    """With the key of deploy.yaml and what is wrong with it; it is never written to."""
    if body is not None:
        (tmp_path / "m.safetensors").write_bytes(body)
    with pytest.raises(ModelLoadFailed, match=message):
        weights(tmp_path, FakeHub()).fetch(F5Sources(f"{tmp_path}/{source}", str(vocoder_at(tmp_path / "voc"))))


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("pytorch_model.bin", b"pickle", r"pytorch_model\.bin has the sha256 .*, but only .* is opened"),
        ("other.bin", b"x", r"not a directory on this node with config\.yaml and model\.safetensors"),
    ],
)
def test_a_local_vocoder_is_checked_before_anything_opens_it(tmp_path, name, body, message):
    """Only the pinned pytorch_model.bin is accepted, and its sha256 is read here."""
    folder = vocoder_at(tmp_path / "voc", name, body)
    with pytest.raises(ModelLoadFailed, match=message):
        weights(tmp_path, FakeHub()).fetch(F5Sources(None, str(folder)))
    good = vocoder_at(tmp_path / "good", "pytorch_model.bin", BODIES["pytorch_model.bin"])
    assert weights(tmp_path, FakeHub()).fetch(F5Sources(None, str(good))).vocoder == good


def test_digests_that_are_known_come_with_the_files(tmp_path):
    """Those of the pins, at the first start and at the next, so that nobody reads a gigabyte to learn them again."""
    pins = (PINNED.checkpoint, *PINNED.vocoder)
    expected = {tmp_path / "node" / file.key: file.sha256 for file in pins}
    assert None not in expected.values()
    assert weights(tmp_path, FakeHub()).fetch(F5Sources()).sha256 == expected
    assert weights(tmp_path, FakeHub(down=True)).fetch(F5Sources()).sha256 == expected


def test_a_local_files_digest_is_known_where_it_was_checked(tmp_path):
    """A file that is named with its sha256 was read for it already; one that is named without was not."""
    checkpoint, vocab = tmp_path / "m.safetensors", tmp_path / "vocab.txt"
    checkpoint.write_bytes(SMALLEST)
    vocab.write_bytes(b"a\nb\n")
    vocoder = vocoder_at(tmp_path / "voc")
    digests = {
        path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (checkpoint, vocoder / "model.safetensors")
    }
    named = [f"{path}#sha256={digest}" for path, digest in zip((checkpoint, vocoder), digests.values(), strict=True)]
    assert weights(tmp_path, FakeHub()).fetch(F5Sources(*named, str(vocab))).sha256 == digests
