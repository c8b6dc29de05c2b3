"""A function in a process of its own: what it gives, and what becomes of one that takes too much, crashes or fails."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from serve_app import isolated
from serve_app.errors import InvalidAudio
from serve_app.isolated import LimitExceeded, Limits

ROOM = Limits(memory_bytes=1024**3, seconds=30)
HERE = "tests.unit.test_isolated"


def echo(fields: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    print("what a library prints is not the answer")
    return {"given": fields, "environment": sorted(os.environ), "pid": os.getpid()}, data[::-1]


def hoard(fields: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    return {"bytes": len(bytearray(2 * 1024**3))}, b""


def crash(fields: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    os.abort()


def spin(fields: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    while True:
        pass


def refuse(fields: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    raise InvalidAudio("audio is not audio: send audio")


def fail(fields: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    raise KeyError("a defect")


def test_fields_and_bytes_pass_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Line ends in the bytes too; the child is another process, without our keys."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    fields, data = isolated.run(f"{HERE}:echo", {"text": "größer\n"}, b"\n{}\n\0end", ROOM)
    assert (fields["given"], data) == ({"text": "größer\n"}, b"dne\0\n}{\n")
    assert "AWS_SECRET_ACCESS_KEY" not in fields["environment"]
    assert fields["pid"] != os.getpid()


@pytest.mark.parametrize(
    ("function", "limits", "words"),
    [
        ("hoard", ROOM, "took more than 1074 MB"),
        ("crash", ROOM, "ended by SIGABRT"),
        ("spin", Limits(1024**3, 0.5), "took more than 0.5 s"),
    ],
)
def test_what_takes_too_much_or_crashes_harms_nobody(function: str, limits: Limits, words: str) -> None:
    """LimitExceeded says which limit it was."""
    with pytest.raises(LimitExceeded, match=words):
        isolated.run(f"{HERE}:{function}", {}, b"", limits)


def test_a_refusal_is_raised_here() -> None:
    """As the error of ours that the function raised."""
    with pytest.raises(InvalidAudio, match=r"^audio is not audio: send audio$"):
        isolated.run(f"{HERE}:refuse", {}, b"", ROOM)


def test_a_defect_is_told_with_its_last_words() -> None:
    """A RuntimeError with the child's traceback."""
    with pytest.raises(RuntimeError, match=r"(?s)test_isolated:fail failed: .*KeyError: 'a defect'"):
        isolated.run(f"{HERE}:fail", {}, b"", ROOM)


def test_no_other_error_is_made_of_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A child that a file has taken over names no class of its choice, and answers no pickle."""
    impostor = tmp_path / "python"
    impostor.write_text(f'#!{sys.executable}\nprint(\'{{"refused": {{"class": "SystemExit", "message": "m"}}}}\')\n')
    impostor.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(impostor))
    with pytest.raises(RuntimeError, match="the child raised SystemExit: m"):
        isolated.run(f"{HERE}:echo", {}, b"", ROOM)
