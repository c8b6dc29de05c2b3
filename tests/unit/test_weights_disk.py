"""The node's disk: whole files, room, and one process at a time."""

import errno
import fcntl
import json
import os
import struct
import threading

import pytest

from serve_app.errors import ModelLoadFailed
from serve_app.weights.disk import claim, human, is_whole, preflight, remove_empty
from tests.support.deadline import DEADLINE_S


def safetensors(size_bytes):
    header = json.dumps({"__metadata__": {}, "a": {"dtype": "U8", "shape": [4], "data_offsets": [0, size_bytes]}})
    return struct.pack("<Q", len(header)) + header.encode() + bytes(size_bytes)


def test_a_file_is_whole_by_its_size(tmp_path):
    """One byte less or more is another file; what is not there is not whole."""
    (tmp_path / "a.bin").write_bytes(b"1234")
    assert [is_whole(tmp_path / "a.bin", size) for size in (3, 4, 5)] == [False, True, False]
    assert not is_whole(tmp_path / "nothing", None)
    assert not is_whole(tmp_path, None)


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (safetensors(40), True),
        (safetensors(40)[:-1], False),
        (safetensors(40) + b"x", False),
        (safetensors(40)[:30], False),
        (b"", False),
        (b"<html>please sign in</html>", False),
        (struct.pack("<Q", 2) + b"[]", False),
        (struct.pack("<Q", 7) + b'{"a":1}', False),
    ],
)
def test_a_safetensors_file_tells_its_own_size(tmp_path, content, whole):
    """Where no size is pinned, a file that is cut short is still not taken."""
    (tmp_path / "m.safetensors").write_bytes(content)
    assert is_whole(tmp_path / "m.safetensors", None) == whole


def test_other_files_are_whole_when_they_have_any_byte(tmp_path):
    """Nothing more is known of a vocabulary."""
    (tmp_path / "vocab.txt").write_bytes(b"")
    assert not is_whole(tmp_path / "vocab.txt", None)
    (tmp_path / "vocab.txt").write_bytes(b"a")
    assert is_whole(tmp_path / "vocab.txt", None)


def test_too_little_room_is_named_before_anything_is_made(tmp_path):
    """Directory, need and free space in units that people read; what just fits passes."""
    margin = 64 * 1024 * 1024
    preflight(tmp_path / "a" / "b", lambda: 1_000, lambda directory: 1_000 + margin)
    with pytest.raises(ModelLoadFailed, match="make room"):
        preflight(tmp_path / "a" / "b", lambda: 1_000, lambda directory: 999 + margin)
    with pytest.raises(ModelLoadFailed, match=r"'.*/a/b'.* need 1\.40 GB .*67\.11 MB.* 67\.11 MB are free"):
        preflight(tmp_path / "a" / "b", lambda: 1_402_801_752, lambda directory: margin)
    assert list(tmp_path.iterdir()) == []


def test_room_is_asked_of_the_disk_that_is_there(tmp_path):
    """The directory itself may not exist yet."""
    asked = []
    preflight(tmp_path / "a" / "b", lambda: 0, lambda directory: asked.append(directory) or 10**12)
    assert asked == [tmp_path]


def test_a_file_in_place_of_the_directory_is_named(tmp_path):
    """WEIGHTS_DIR that is a file, or lies below one."""
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ModelLoadFailed, match=r"WEIGHTS_DIR is .*/file is a file: set it to a directory"):
            preflight(directory, lambda: 0)


def test_a_directory_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    """The message says who may not, and three remedies."""
    monkeypatch.setattr("serve_app.weights.disk.os.access", lambda path, mode: False)
    with pytest.raises(ModelLoadFailed, match=r"read-only, or not writable for user id \d+.*serve_app\.weights"):
        preflight(tmp_path, lambda: 0)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(461, "461 bytes"), (54_365_991, "54.37 MB"), (1_348_435_761, "1.35 GB"), (999_600_000, "1000 MB")],
)
def test_sizes_are_said_as_people_say_them(size_bytes, text):
    """Three or four digits and a unit of a thousand."""
    assert human(size_bytes) == text


def test_one_at_a_time_holds_a_directory(tmp_path):
    """A second claim waits for the first to end, also in the same process, and the lock leaves no file."""
    order = []
    inside = threading.Event()

    def second():
        inside.set()
        with claim(tmp_path / "a") as held:
            order.append(("second", held.exclusive))

    with claim(tmp_path / "a") as held:
        thread = threading.Thread(target=second)
        thread.start()
        assert inside.wait(DEADLINE_S)
        with claim(tmp_path / "a", wait=False) as busy:
            assert not busy.exclusive
        order.append(("first", held.exclusive))
    thread.join(DEADLINE_S)
    assert order == [("first", True), ("second", True)]
    assert list((tmp_path / "a").iterdir()) == []


def test_a_directory_that_its_holder_removed_is_made_anew(tmp_path, monkeypatch):
    """Whoever waited for it does not hold a directory that nobody else can find."""
    real, calls = fcntl.flock, []

    def flock(handle, how):
        if not calls:
            (tmp_path / "a").rmdir()  # what a holder that failed does before it lets go
        calls.append(how)
        real(handle, how)

    monkeypatch.setattr("serve_app.weights.disk.fcntl.flock", flock)
    with claim(tmp_path / "a") as held:
        assert held.exclusive
        assert (tmp_path / "a").is_dir()
        assert held.keep == tmp_path
    assert len(calls) == 2


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EBADF])
def test_a_filesystem_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog, number):
    """The block runs, knowing that it is not alone."""

    def flock(handle, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("serve_app.weights.disk.fcntl.flock", flock)
    caplog.set_level("INFO", "serve_app")
    with claim(tmp_path) as held:
        assert not held.exclusive
    assert caplog.messages == ["weights_lock_unsupported"]


def test_only_empty_directories_are_removed(tmp_path):
    """From the inside out, up to the one to keep, and never one that holds anything."""
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    remove_empty(tmp_path / "a" / "b" / "c", tmp_path)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
    (tmp_path / "d" / "e").mkdir(parents=True)
    remove_empty(tmp_path / "d" / "e", tmp_path / "d")
    assert list((tmp_path / "d").iterdir()) == []
