"""From a node without weights to one that has them: hub, then bucket, then disk."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.errors import ModelLoadFailed
from serve_app.storage import S3Store
from serve_app.weights import F5Files, F5Sources
from serve_app.weights.sources import Pinned
from tests.integration.weights.nodes import (
    CHECKPOINT,
    ROOT,
    contents,
    expected,
    node_weights,
)
from tests.support.deadline import DEADLINE_S
from tests.support.hub import Hub
from tests.support.seaweedfs import SeaweedFS
from tests.support.wire import FlipBit, WireProxy


def test_three_starts_take_from_the_hub_then_the_bucket_then_the_disk(
    hub: Hub, pinned: Pinned, store: S3Store, seaweedfs: SeaweedFS, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first node fills the bucket, the second has no hub, and at its next start not even a bucket."""
    caplog.set_level("INFO", "serve_app")
    first = node_weights(tmp_path / "first", hub.url, pinned, store)
    assert first.fetch(F5Sources()) == F5Files(
        tmp_path / "first" / pinned.checkpoint.key, (tmp_path / "first" / pinned.vocoder[0].key).parent
    )
    first.wait_stored()
    whole = expected(pinned, hub)
    assert contents(tmp_path / "first") == whole
    assert len(hub.gets()) == 3
    assert {info.key: store.get(info.key).body for info in store.list("").items} == {
        f"models/{key}": body for key, body in whole.items()
    }
    digest = hashlib.sha256(CHECKPOINT).hexdigest()
    assert store.head(f"models/{pinned.checkpoint.key}").sha256 == digest

    hub.stop()
    caplog.clear()
    second = node_weights(tmp_path / "second", hub.url, pinned, store)
    second.fetch(F5Sources())
    second.wait_stored()
    assert contents(tmp_path / "second") == whole
    fetched = [record.fields for record in caplog.records if record.message == "weights_fetched"]
    assert {fields["source"].split("/models/")[0] for fields in fetched} == {f"s3://{store.bucket}"}
    assert "weights_stored" not in caplog.messages

    caplog.clear()
    dead = S3Store(replace(seaweedfs.config(store.bucket), endpoint_url="http://127.0.0.1:9"))
    third = node_weights(tmp_path / "second", hub.url, pinned, dead)
    third.fetch(F5Sources())
    third.wait_stored()
    assert contents(tmp_path / "second") == whole
    assert caplog.messages == ["weights_present", *["weights_not_stored"] * 3]


def test_a_bucket_that_does_not_answer_leaves_the_hub(
    hub: Hub, pinned: Pinned, store: S3Store, seaweedfs: SeaweedFS, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, and the start goes on; with the hub down too, the error names both."""
    caplog.set_level("INFO", "serve_app")
    denied = S3Store(replace(seaweedfs.config(store.bucket), secret_access_key="wrong"))
    weights = node_weights(tmp_path / "node", hub.url, pinned, denied)
    weights.fetch(F5Sources())
    weights.wait_stored()
    assert contents(tmp_path / "node") == expected(pinned, hub)
    assert caplog.messages.count("weights_bucket_failed") == 3
    hub.stop()
    with pytest.raises(ModelLoadFailed, match=r"HF_ENDPOINT.*models/owner.*bucket was asked.*AWS_ACCESS_KEY_ID"):
        node_weights(tmp_path / "other", hub.url, pinned, denied).fetch(F5Sources())
    assert not (tmp_path / "other").exists()


def test_a_damaged_object_is_not_taken_and_is_replaced(
    hub: Hub, pinned: Pinned, store: S3Store, tmp_path: Path
) -> None:
    """Bytes that do not have the pinned sha256 are passed over for the hub's, which then take their place."""
    key = f"models/{pinned.checkpoint.key}"
    store.put(key, CHECKPOINT[:-1] + b"!", content_type="application/octet-stream")
    weights = node_weights(tmp_path / "node", hub.url, pinned, store)
    weights.fetch(F5Sources())
    weights.wait_stored()
    assert contents(tmp_path / "node") == expected(pinned, hub)
    assert store.get(key).body == CHECKPOINT


def test_an_object_that_is_flipped_on_the_way_is_not_taken(
    hub: Hub, pinned: Pinned, store: S3Store, seaweedfs: SeaweedFS, tmp_path: Path
) -> None:
    """The bucket says the right sha256, what arrives has another: the hub's file is taken."""
    store.put(f"models/{pinned.checkpoint.key}", CHECKPOINT, content_type="application/octet-stream")
    with WireProxy(seaweedfs.endpoint_url) as wire:
        wire.fault = lambda request: FlipBit() if request.method == "GET" else None
        flipped = S3Store(replace(seaweedfs.config(store.bucket), endpoint_url=wire.url))
        weights = node_weights(tmp_path / "node", hub.url, pinned, flipped)
        weights.fetch(F5Sources())
        weights.wait_stored()
        assert wire.count("GET", "model.safetensors") == 1
    assert contents(tmp_path / "node") == expected(pinned, hub)
    assert len(hub.gets("model.safetensors")) == 1


def test_any_file_of_the_hub_can_be_a_model(hub: Hub, pinned: Pinned, store: S3Store, tmp_path: Path) -> None:
    """A checkpoint and a vocoder folder elsewhere on the hub, pinned by commit alone, go into the bucket too."""
    body = b"\x02\0\0\0\0\0\0\0{}"  # the smallest safetensors file
    other = [
        hub.add("me/mine", "c" * 40, path, body if path.endswith(".safetensors") else b"text")
        for path in ("a/b.safetensors", "voc/config.yaml", "voc/model.safetensors", "vocab.txt")
    ]
    repo = f"hf://me/mine@{'c' * 40}"
    sources = F5Sources(f"{repo}/a/b.safetensors", f"{repo}/voc", f"{repo}/vocab.txt")
    weights = node_weights(tmp_path / "node", hub.url, pinned, store)
    base = tmp_path / "node" / "me" / "mine" / ("c" * 40)
    assert weights.fetch(sources) == F5Files(base / "a/b.safetensors", base / "voc", base / "vocab.txt")
    weights.wait_stored()
    assert set(contents(tmp_path / "node")) == {pin.key for pin in other}
    assert {info.key for info in store.list("models/").items} == {f"models/{pin.key}" for pin in other}


def test_what_is_no_safetensors_file_is_not_kept(hub: Hub, pinned: Pinned, tmp_path: Path) -> None:
    """Pinned by commit alone, a page of HTML has a size like any file, but not the header."""
    hub.add("me/mine", "c" * 40, "m.safetensors", b"<html>sign in</html>")
    with pytest.raises(ModelLoadFailed, match=r"m\.safetensors is not a safetensors file"):
        node_weights(tmp_path / "node", hub.url, pinned).fetch(F5Sources(f"hf://me/mine@{'c' * 40}/m.safetensors"))
    assert not (tmp_path / "node" / "me").exists()


def test_objects_of_another_bucket_are_sources(
    hub: Hub, pinned: Pinned, store: S3Store, seaweedfs: SeaweedFS, tmp_path: Path
) -> None:
    """Read with the service's credentials, never copied to its own bucket; with a sha256 the disk is enough."""
    body = b"\x02\0\0\0\0\0\0\0{}"
    seaweedfs.create_bucket("models-of-mine")
    other = store.in_bucket("models-of-mine")
    for key in ("f5/m.safetensors", "voc/config.yaml", "voc/model.safetensors"):
        other.put(key, body, content_type="application/octet-stream")
    sources = F5Sources("s3://models-of-mine/f5/m.safetensors", "s3://models-of-mine/voc")
    weights = node_weights(tmp_path / "node", hub.url, pinned, store)
    digest = hashlib.sha256(body).hexdigest()
    files = weights.fetch(sources)
    assert files.checkpoint == tmp_path / "node" / "s3" / "models-of-mine" / digest / "m.safetensors"
    assert sorted(path.name for path in files.vocoder.iterdir()) == ["config.yaml", "model.safetensors"]
    weights.wait_stored()
    assert store.list("").items == []
    offline = F5Sources(f"{sources.checkpoint}#sha256={digest}", str(files.vocoder))
    assert node_weights(tmp_path / "node", hub.url, pinned).fetch(offline).checkpoint == files.checkpoint
    with pytest.raises(ModelLoadFailed, match=r"source is s3://models-of-mine/no\.safetensors: no object"):
        weights.fetch(F5Sources("s3://models-of-mine/no.safetensors", str(files.vocoder)))
    with pytest.raises(ModelLoadFailed, match=rf"has the sha256 {digest}, but m\.safetensors must have 0+"):
        weights.fetch(F5Sources(f"{sources.checkpoint}#sha256={'0' * 64}", str(files.vocoder)))


def test_the_command_fetches_and_says_where(hub: Hub, seaweedfs: SeaweedFS, store: S3Store, tmp_path: Path) -> None:
    """`python -m serve_app.weights` with a deploy.yaml: paths on stdout, progress on stderr, the bucket filled."""
    hub.add("me/mine", "c" * 40, "m.safetensors", b"\x02\0\0\0\0\0\0\0{}")
    (tmp_path / "voc").mkdir()
    for name in ("config.yaml", "model.safetensors"):
        (tmp_path / "voc" / name).write_bytes(b"x")
    source = f"hf://me/mine@{'c' * 40}/m.safetensors"
    model = {"engine": "f5", "source": source, "vocoder": str(tmp_path / "voc"), "license": "mine", "languages": ["de"]}
    config = {"applications": [{"import_path": "serve_app.app:build", "args": {"models": [model]}}]}
    (tmp_path / "deploy.yaml").write_text(json.dumps(config))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "HF_"))}
    environ |= {
        "WEIGHTS_DIR": str(tmp_path / "node"), "HF_ENDPOINT": hub.url, "S3_BUCKET": store.bucket,
        "AWS_ENDPOINT_URL": seaweedfs.endpoint_url, "AWS_REGION": "us-east-1", "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": seaweedfs.access_key_id, "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_access_key,
    }  # fmt: skip
    command = [sys.executable, "-m", "serve_app.weights"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, text=True, capture_output=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    key = f"me/mine/{'c' * 40}/m.safetensors"
    assert done.stdout == f"{tmp_path / 'node' / key}\n{tmp_path / 'voc'}\n"
    assert "m.safetensors: 100 % of 10 bytes" in done.stderr
    assert "CC-BY-NC" not in done.stderr
    assert [info.key for info in store.list("").items] == [f"models/{key}"]
    hub.stop()
    environ["WEIGHTS_DIR"] = str(tmp_path / "other")
    del environ["S3_BUCKET"], environ["AWS_ENDPOINT_URL"]
    failed = subprocess.run(command, cwd=tmp_path, env=environ, text=True, capture_output=True, timeout=DEADLINE_S)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(f"the model hub {hub.url}, asked for {hub.url}/me/mine/resolve/")
    assert not (tmp_path / "other").exists()
