"""Files that deploy.yaml names, on this node or in a bucket: taken as they are, or refused."""

import hashlib

import pytest

from serve_app.errors import ModelLoadFailed
from serve_app.weights import F5Files, F5Sources
from tests.support.weights import BODIES, SMALLEST, FakeBucket, FakeHub, names, node_weights, vocoder_at


def test_local_files_are_taken_as_they_are(tmp_path):
    """Nobody is asked, nothing is written, nothing goes into the bucket."""
    (tmp_path / "m.safetensors").write_bytes(SMALLEST)
    (tmp_path / "vocab.txt").write_bytes(b"a\nb\n")
    vocoder = vocoder_at(tmp_path / "voc")
    hub, store = FakeHub(), FakeBucket()
    node = node_weights(tmp_path, hub, store)
    files = F5Files(tmp_path / "m.safetensors", vocoder, tmp_path / "vocab.txt")
    assert node.fetch(F5Sources(str(files.checkpoint), str(vocoder), str(files.vocab))) == files
    node.wait_stored()
    assert (hub.asked, store.list("").items, (tmp_path / "node").exists()) == ([], [], False)


def test_an_object_is_a_source_without_being_copied(tmp_path):
    """From any bucket, under its sha256; the service's bucket stays as it is."""
    store = FakeBucket()
    other = store.others["mine"] = FakeBucket()
    other.put("a/m.safetensors", SMALLEST, content_type="x/y")
    vocoder = vocoder_at(tmp_path / "voc")
    node = node_weights(tmp_path, FakeHub(down=True), store)
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
    first = node_weights(tmp_path, FakeHub(), store).fetch(F5Sources(source, vocoder))
    assert node_weights(tmp_path, FakeHub(), None).fetch(F5Sources(source, vocoder)) == first
    with pytest.raises(ModelLoadFailed, match=r"s3://service/a/m\.safetensors cannot be read.*set S3_BUCKET, AWS_"):
        node_weights(tmp_path, FakeHub(), None).fetch(F5Sources("s3://service/a/m.safetensors", vocoder))


def test_a_replaced_object_gets_a_place_of_its_own(tmp_path):
    """A replica that runs keeps the file that it has open."""
    store, vocoder = FakeBucket(), str(vocoder_at(tmp_path / "voc"))
    places = []
    for body in (SMALLEST, b"\x03\0\0\0\0\0\0\0{ }"):
        store.put("m.safetensors", body, content_type="x/y")
        places.append(node_weights(tmp_path, FakeHub(), store).fetch(F5Sources("s3://service/m.safetensors", vocoder)))
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
        node_weights(tmp_path, FakeHub(), store).fetch(
            F5Sources("s3://service/m.safetensors", str(vocoder_at(tmp_path / "voc")))
        )
    assert not (tmp_path / "node").exists()


def test_a_vocoder_in_a_bucket_is_one_folder(tmp_path):
    """config.yaml and model.safetensors lie together, although each is an object of its own."""
    store = FakeBucket()
    for name in ("config.yaml", "model.safetensors"):
        store.put(f"voc/{name}", SMALLEST, content_type="x/y")
    (tmp_path / "m.safetensors").write_bytes(SMALLEST)
    files = node_weights(tmp_path, FakeHub(), store).fetch(
        F5Sources(str(tmp_path / "m.safetensors"), "s3://service/voc")
    )
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
        node_weights(tmp_path, FakeHub()).fetch(F5Sources(f"{tmp_path}/{source}", str(vocoder_at(tmp_path / "voc"))))


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
        node_weights(tmp_path, FakeHub()).fetch(F5Sources(None, str(folder)))
    good = vocoder_at(tmp_path / "good", "pytorch_model.bin", BODIES["pytorch_model.bin"])
    assert node_weights(tmp_path, FakeHub()).fetch(F5Sources(None, str(good))).vocoder == good


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
    assert node_weights(tmp_path, FakeHub()).fetch(F5Sources(*named, str(vocab))).sha256 == digests
