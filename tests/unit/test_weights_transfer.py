"""Bringing one file to its place: whole and verified, or not at all."""

import errno
import hashlib

import pytest

from serve_app.errors import ModelLoadFailed, StorageDenied
from serve_app.weights.disk import DiskFailed
from serve_app.weights.transfer import CannotResume, Described, Interrupted, Transfer, leftovers, sweep

BODY = bytes(range(256)) * 8
EXPECTED = Described(len(BODY), hashlib.sha256(BODY).hexdigest())


class Scripted:
    """Plays one script per read: a number of bytes to give, then what to raise (None: end)."""

    label = "hub/file"

    def __init__(self, *scripts, body=BODY):
        self.scripts, self.body, self.starts = [*scripts], body, []

    def describe(self):
        raise NotImplementedError

    def read(self, start):
        self.starts.append(start)
        count, error = self.scripts.pop(0) if self.scripts else (len(self.body), None)
        for at in range(start, min(start + count, len(self.body)), 256):
            yield self.body[at : at + 256]
        if error:
            raise error


@pytest.fixture
def target(tmp_path):
    return tmp_path / "model.safetensors"


def part_of(target, content, pid=7):
    path = target.with_name(f".{target.name}.{pid}-0123456789abcdef.part")
    path.write_bytes(content)
    return path


def fetch(remote, target, expected=EXPECTED, exclusive=True, progress=None, pauses=None):
    transfer = Transfer(progress, pause=(pauses if pauses is not None else []).append)
    transfer.fetch(remote, target, expected, exclusive=exclusive)


def test_a_file_comes_whole_and_alone(target):
    """Its bytes, at its name, and nothing beside it; progress counts up to its size."""
    seen = []
    fetch(Scripted(), target, progress=lambda *step: seen.append(step))
    assert target.read_bytes() == BODY
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert seen == [(target.name, done, len(BODY)) for done in range(256, len(BODY) + 1, 256)]


def test_it_has_its_name_only_when_it_is_whole(target):
    """While bytes come there is no file of that name, only a part that no other process would write to."""
    seen = []
    fetch(Scripted(), target, progress=lambda *step: seen.append((target.exists(), len(leftovers(target.parent)))))
    assert set(seen) == {(False, 1)}


def test_an_interrupted_stream_goes_on_where_it_broke_off(target):
    """Twice as long is waited before each attempt that brings nothing; a new byte resets that."""
    pauses = []
    lost = Interrupted("lost")
    remote = Scripted((512, lost), (0, lost), (0, lost), (256, lost))
    fetch(remote, target, pauses=pauses)
    assert target.read_bytes() == BODY
    assert remote.starts == [0, 512, 512, 512, 768]
    assert pauses == [1.0, 2.0, 4.0, 1.0]


def test_a_stream_that_ends_early_is_interrupted(target):
    """The end of a body is not the end of the file, and a server that sends nothing is not asked for ever."""
    remote, pauses = Scripted((512, None)), []
    fetch(remote, target, pauses=pauses)
    assert (target.read_bytes(), remote.starts, pauses) == (BODY, [0, 512], [1.0])
    with pytest.raises(ModelLoadFailed, match=r"broke off 6 times .* \(it ended after 0 of 2048 bytes\)"):
        fetch(Scripted(*[(0, None)] * 6), target)


def test_six_attempts_without_a_byte_are_the_end(target):
    """The message says where it broke off; no part is left."""
    with pytest.raises(ModelLoadFailed, match=r"hub/file broke off 6 times running at 0 of 2048 bytes \(lost\)"):
        fetch(Scripted(*[(0, Interrupted("lost"))] * 6), target)
    assert list(target.parent.iterdir()) == []


def test_a_remote_without_ranges_is_read_from_the_beginning(target):
    """What had come is dropped, and the file comes right."""
    remote = Scripted((512, Interrupted("lost")), (0, CannotResume()))
    fetch(remote, target)
    assert (target.read_bytes(), remote.starts) == (BODY, [0, 512, 0])


def test_the_part_of_a_killed_process_is_gone_on_with(target):
    """The largest of those it finds; the others go."""
    part_of(target, BODY[:256], pid=1)
    part_of(target, BODY[:1024], pid=2)
    remote = Scripted()
    fetch(remote, target)
    assert (target.read_bytes(), remote.starts) == (BODY, [1024])
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_part_that_comes_out_wrong_is_dropped_once(target):
    """After a power cut a part may hold zeros: the sha256 tells, and the file is read from its beginning."""
    part_of(target, bytes(1024))
    remote = Scripted()
    fetch(remote, target)
    assert (target.read_bytes(), remote.starts) == (BODY, [1024, 0])


def test_without_a_sha256_no_part_is_trusted(target):
    """Nothing could tell that it is of this file."""
    part_of(target, bytes(1024))
    remote = Scripted()
    fetch(remote, target, expected=Described(len(BODY), None))
    assert (target.read_bytes(), remote.starts) == (BODY, [0])
    assert leftovers(target.parent) == []


def test_without_the_directory_the_parts_of_others_stay(target):
    """Where no lock tells that their writers are dead, they are not touched."""
    other = part_of(target, BODY[:1024])
    remote = Scripted()
    fetch(remote, target, exclusive=False)
    assert (target.read_bytes(), remote.starts, other.read_bytes()) == (BODY, [0], BODY[:1024])


@pytest.mark.parametrize("kept", [b"", bytes(1024)], ids=["fresh", "resumed"])
def test_another_sha256_is_refused(target, kept):
    """The message names the remote and both hashes; the place keeps what it had, and no part."""
    target.write_bytes(b"the old one")
    if kept:
        part_of(target, kept)
    wrong = BODY[::-1]
    with pytest.raises(ModelLoadFailed) as caught:
        fetch(Scripted(body=wrong), target)
    for named in ("hub/file", EXPECTED.sha256, hashlib.sha256(wrong).hexdigest()):
        assert named in caught.value.message
    assert target.read_bytes() == b"the old one"
    assert leftovers(target.parent) == []


def test_a_longer_file_is_refused(target):
    """It is ended at once, not written to its end."""
    with pytest.raises(ModelLoadFailed, match="longer than the 2048 bytes"):
        fetch(Scripted(body=BODY * 2), target)
    assert list(target.parent.iterdir()) == []


def test_an_empty_file_needs_no_byte(target):
    """Nothing is asked for what has no bytes."""
    remote = Scripted()
    fetch(remote, target, expected=Described(0, hashlib.sha256(b"").hexdigest()))
    assert (target.read_bytes(), remote.starts) == (b"", [])


def test_an_error_of_the_remote_is_passed_on(target):
    """As it is, with no part left."""
    with pytest.raises(StorageDenied, match="no right"):
        fetch(Scripted((512, StorageDenied("no right"))), target)
    assert list(target.parent.iterdir()) == []


def test_a_kill_keeps_the_part(target):
    """Ctrl-C is one: what has come is there for the next start."""
    with pytest.raises(KeyboardInterrupt):
        fetch(Scripted((512, KeyboardInterrupt())), target)
    assert [path.read_bytes() for path in leftovers(target.parent)] == [BODY[:512]]


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, r"the disk of .* is full .*model\.safetensors"), (errno.EIO, r"could not be written \(Input")],
)
def test_a_disk_that_fails_is_named(target, monkeypatch, number, message):
    """Full or broken, at the last moment too: its own message, and no part."""
    import os

    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("serve_app.weights.transfer.os.fsync", fail)
    with pytest.raises(DiskFailed, match=message):
        fetch(Scripted(), target)
    assert list(target.parent.iterdir()) == []


def test_a_sweep_removes_what_nobody_will_go_on_with(target, tmp_path):
    """Parts go, save the largest of each file that is wanted; files that are no parts stay."""
    part_of(target, b"1", pid=1)
    kept = part_of(target, b"22", pid=2)
    part_of(tmp_path / "other.bin", b"333")
    (tmp_path / ".hidden.part").touch()
    sweep(tmp_path, ["model.safetensors"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kept.name, ".hidden.part"])
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".hidden.part"]
    assert leftovers(tmp_path / "nowhere") == []
