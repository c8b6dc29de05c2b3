"""What a hub, a pin or a disk can have wrong: each has its message, and nothing is left."""

import hashlib
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.errors import ModelLoadFailed
from serve_app.settings import NodeSettings
from serve_app.weights import F5Sources, NodeWeights
from serve_app.weights.sources import Pinned
from tests.integration.weights.nodes import (
    CHECKPOINT,
    COMMITS,
    contents,
    expected,
    node_weights,
)
from tests.support.hub import Hub


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize(("token", "sent"), [("hf_secret", "Bearer hf_secret"), (None, None)])
def test_the_token_stays_with_the_hub(
    hub: Hub, pinned: Pinned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, sent: str | None,
    linked: bool,
) -> None:  # fmt: skip
    """Every request to the hub carries it, none to the CDN does, and a password in ~/.netrc is never sent."""
    (tmp_path / "netrc").write_text("machine localhost login me password mine")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    hub.linked = linked
    endpoint = hub.url.replace("127.0.0.1", "localhost")
    node = NodeSettings(weights_dir=tmp_path / "node", hub_endpoint=endpoint, hub_token=token)
    NodeWeights(node, None, pinned=pinned).fetch(F5Sources())
    assert {(each.server, each.headers.get("authorization")) for each in hub.requests} == {("hub", sent), ("cdn", None)}


REFUSALS = {
    "repository": ((401, "RepoNotFound", "Repository not found"), r"no repository owner/f5, or set HF_TOKEN if"),
    "revision": ((404, "RevisionNotFound", "Invalid rev id"), rf"owner/f5 has no commit {COMMITS[0]}"),
    "file": ((404, "EntryNotFound", "Entry not found"), r"has no file base/model\.safetensors at commit"),
    "gated": ((403, "GatedRepo", "Access is restricted"), r"gated; accept its licence .* and set HF_TOKEN"),
    "forbidden": ((403, "", "Forbidden"), r"answered 403 Forbidden: HF_TOKEN, or this machine's address"),
    "no hub": ((404, "", ""), r"answered 404 .*without the error code of a model hub: check HF_ENDPOINT"),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_each_refusal_of_the_hub_has_its_message(hub: Hub, pinned: Pinned, tmp_path: Path, reason: str) -> None:
    """It names what is wrong and where else the file can come from, before anything is written."""
    refusal, message = REFUSALS[reason]
    hub.refusals[f"/owner/f5/resolve/{COMMITS[0]}/base/model.safetensors"] = refusal
    with pytest.raises(ModelLoadFailed, match=message + r".*put the file at models/owner/f5/a+/base/model"):
        node_weights(tmp_path / "node", hub.url, pinned).fetch(F5Sources())
    assert hub.gets() == []
    assert not (tmp_path / "node").exists()


def test_a_token_that_is_refused_is_named(hub: Hub, pinned: Pinned, tmp_path: Path) -> None:
    """A wrong HF_TOKEN is not reported as a repository that is missing."""
    refusal = (401, "", "Invalid credentials in Authorization header")
    hub.refusals[f"/owner/f5/resolve/{COMMITS[0]}/base/model.safetensors"] = refusal
    node = NodeSettings(weights_dir=tmp_path, hub_endpoint=hub.url, hub_token="hf_old")
    with pytest.raises(ModelLoadFailed, match="HF_TOKEN is not a token of it"):
        NodeWeights(node, None, pinned=pinned).fetch(F5Sources())


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("http://127.0.0.1:9", "does not answer .*refused.*: check the network and HF_ENDPOINT"),
        ("huggingface.co", "HF_ENDPOINT is 'huggingface.co', which is no URL"),
        ("ftp://hub", "HF_ENDPOINT is 'ftp://hub', which is no URL"),
    ],
)
def test_an_endpoint_that_is_none_is_named(pinned: Pinned, tmp_path: Path, endpoint: str, message: str) -> None:
    """No route and no URL are told apart."""
    with pytest.raises(ModelLoadFailed, match=message):
        node_weights(tmp_path / "node", endpoint, pinned).fetch(F5Sources())
    assert not (tmp_path / "node").exists()


def test_wrong_bytes_are_not_kept(hub: Hub, pinned: Pinned, tmp_path: Path) -> None:
    """A file with another sha256 than the pinned one: the message names both, and nothing of it is left."""
    wrong = CHECKPOINT[:-1] + b"!"
    hub.wrong[f"/owner/f5/resolve/{COMMITS[0]}/base/model.safetensors"] = wrong
    digest = hashlib.sha256(wrong).hexdigest()
    with pytest.raises(ModelLoadFailed, match=rf"sha256 {digest}, but .* must have {pinned.checkpoint.sha256}"):
        node_weights(tmp_path / "node", hub.url, pinned).fetch(F5Sources())
    assert set(contents(tmp_path / "node")) == {pin.key for pin in pinned.vocoder}  # the small ones come first
    assert not (tmp_path / "node" / "owner" / "f5").exists()


@pytest.mark.parametrize(("field", "value"), [("sha256", "0" * 64), ("size_bytes", 7)])
def test_a_wrong_pin_is_found_before_the_first_byte(
    hub: Hub, pinned: Pinned, tmp_path: Path, field: str, value: str | int
) -> None:
    """Where the hub says another size or sha256, nothing is fetched."""
    wrong = replace(pinned, checkpoint=replace(pinned.checkpoint, **{field: value}))
    with pytest.raises(ModelLoadFailed, match=rf"model\.safetensors must have {value}"):
        node_weights(tmp_path / "node", hub.url, wrong).fetch(F5Sources())
    assert hub.gets() == []
    assert not (tmp_path / "node").exists()


def test_small_files_come_without_a_redirect(hub: Hub, pinned: Pinned, tmp_path: Path) -> None:
    """A hub that answers at once, with a size and no sha256, is read too; the pin's sha256 is checked all the same."""
    hub.large = False
    node_weights(tmp_path / "node", hub.url, pinned).fetch(F5Sources())
    assert contents(tmp_path / "node") == expected(pinned, hub)
    assert {each.server for each in hub.requests} == {"hub"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("known", [True, False], ids=["preflight", "while writing"])
def test_a_full_disk_is_named_and_left_as_it_was(hub: Hub, pinned: Pinned, tmp_path: Path, known: bool) -> None:
    """Stopped before the first byte; or, where another writer was quicker, with the part removed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        node = NodeSettings(weights_dir=disk / "weights", hub_endpoint=hub.url)
        free = {} if known else {"free": lambda directory: 10**12}
        message = r"need 1\.25 MB.*5\d\d kB are free" if known else r"the disk of .* is full .*model\.safetensors"
        with pytest.raises(ModelLoadFailed, match=message):
            NodeWeights(node, None, pinned=pinned, **free).fetch(F5Sources())
        assert (len(hub.gets()) == 0) == known
        assert set(contents(disk)) == (set() if known else {f"weights/{pin.key}" for pin in pinned.vocoder})
        assert (disk / "weights").exists() != known
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a read-only disk")
def test_a_read_only_disk_is_named_unless_it_has_the_files(hub: Hub, pinned: Pinned, tmp_path: Path) -> None:
    """With the files on it, such as in an image, it serves; without, the message names WEIGHTS_DIR."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        files = node_weights(disk / "full", hub.url, pinned).fetch(F5Sources())
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        hub.stop()
        assert node_weights(disk / "full", hub.url, pinned).fetch(F5Sources()) == files
        with Hub() as other:
            other.files = hub.files
            with pytest.raises(ModelLoadFailed, match=r"WEIGHTS_DIR is .*empty', but .*disk is read-only"):
                node_weights(disk / "empty", other.url, pinned).fetch(F5Sources())
            assert other.gets() == []
    finally:
        subprocess.run(["umount", disk], check=True)
