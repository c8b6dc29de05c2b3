"""Real processes that start at once, are killed, or lose the connection."""

import signal
from pathlib import Path

import pytest

from serve_app.errors import ModelLoadFailed
from serve_app.weights import F5Sources
from serve_app.weights.sources import Pinned
from serve_app.weights.transfer import leftovers
from tests.integration.weights.nodes import CHECKPOINT, contents, expected, go, node_weights, start
from tests.support.deadline import DEADLINE_S
from tests.support.hub import Hub
from tests.support.running import until


def test_six_processes_fetch_each_file_once(hub: Hub, pinned: Pinned, tmp_path: Path) -> None:
    """Six replicas start at once on an empty node: the hub sends each file exactly once."""
    processes = [start(tmp_path / "node", hub, pinned) for _ in range(6)]
    for process in processes:
        go(process)
    answers = [process.communicate(timeout=DEADLINE_S) for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, answers
    assert {out for out, _ in answers} == {f"{tmp_path / 'node' / pinned.checkpoint.key}\n"}
    assert sorted(request.path for request in hub.gets()) == sorted(hub.files)
    assert hub.sent_bytes == sum(map(len, hub.files.values()))
    assert contents(tmp_path / "node") == expected(pinned, hub)


def test_a_killed_download_is_gone_on_with(hub: Hub, pinned: Pinned, tmp_path: Path) -> None:
    """SIGKILL in mid-download leaves a part; of two that wait, one asks for the rest, and nothing else is left."""
    hub.hold_at = 524_288
    first, *others = (start(tmp_path / "node", hub, pinned) for _ in range(3))
    go(first)
    assert hub.held.wait(DEADLINE_S)
    folder = (tmp_path / "node" / pinned.checkpoint.key).parent
    until(lambda: any(part.stat().st_size > 0 for part in leftovers(folder)), "a part on the disk")
    for process in others:
        go(process)
        assert process.stderr is not None
        assert any("weights_waiting" in line for line in iter(process.stderr.readline, ""))
    first.send_signal(signal.SIGKILL)
    first.wait(DEADLINE_S)
    hub.hold_at = None
    hub.released.set()
    answers = [process.communicate(timeout=DEADLINE_S) for process in others]
    assert [process.returncode for process in others] == [0, 0], answers
    first.communicate()
    whole, rest = hub.gets("model.safetensors")
    assert "range" not in whole.headers
    assert int(rest.headers["range"].removeprefix("bytes=").removesuffix("-")) > 0
    assert contents(tmp_path / "node") == expected(pinned, hub)


def test_a_part_that_is_not_of_this_file_is_begun_anew(hub: Hub, pinned: Pinned, tmp_path: Path) -> None:
    """Where going on comes out wrong, the file is fetched from its beginning, once."""
    folder = (tmp_path / pinned.checkpoint.key).parent
    folder.mkdir(parents=True)
    (folder / ".model.safetensors.7-0123456789abcdef.part").write_bytes(b"zeros after a power cut")
    node_weights(tmp_path, hub.url, pinned).fetch(F5Sources())
    assert ["range" in request.headers for request in hub.gets("model.safetensors")] == [True, False]
    assert contents(tmp_path) == expected(pinned, hub)


@pytest.mark.parametrize("size", [len(CHECKPOINT), len(CHECKPOINT) + 1])
def test_a_part_as_long_as_the_file_is_checked(hub: Hub, pinned: Pinned, tmp_path: Path, size: int) -> None:
    """One that is whole needs no request; one that is too long is no part of it."""
    folder = (tmp_path / pinned.checkpoint.key).parent
    folder.mkdir(parents=True)
    (folder / ".model.safetensors.7-0123456789abcdef.part").write_bytes((CHECKPOINT + b"!")[:size])
    node_weights(tmp_path, hub.url, pinned).fetch(F5Sources())
    assert len(hub.gets("model.safetensors")) == size - len(CHECKPOINT)
    assert contents(tmp_path) == expected(pinned, hub)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_gone_on_with(hub: Hub, pinned: Pinned, tmp_path: Path, ranges: bool) -> None:
    """The rest is asked for; a server that gives no rest is read from the beginning."""
    hub.cut_at, hub.ranges = 524_288, ranges
    node_weights(tmp_path, hub.url, pinned).fetch(F5Sources())
    assert contents(tmp_path) == expected(pinned, hub)
    asked = [request.headers.get("range") for request in hub.gets("model.safetensors")]
    assert (asked[0], len(asked)) == (None, 2 if ranges else 3)


def test_a_connection_that_never_holds_ends_the_start(hub: Hub, pinned: Pinned, tmp_path: Path) -> None:
    """After six attempts without a new byte the message says where it broke off, and nothing is left."""
    hub.cut_at, hub.cuts = 524_288, 1_000
    with pytest.raises(ModelLoadFailed, match=r"model\.safetensors broke off 6 times running at 524288 of 1012000"):
        node_weights(tmp_path / "node", hub.url, pinned).fetch(F5Sources())
    assert leftovers((tmp_path / "node" / pinned.checkpoint.key).parent) == []
    assert not (tmp_path / "node" / pinned.checkpoint.key).parent.exists()
