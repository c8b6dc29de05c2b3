"""Structured logs."""

import json
import logging
import sys

from serve_app import logs


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_event_is_one_line_of_json_with_its_fields(capsys):
    """Name, level, time and fields; fields that are None are left out."""
    logs.configure()
    logs.event("unit_done", request_id="r1", job_id=None, audio_s=1.5)
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["request_id"], line["audio_s"]) == ("unit_done", "INFO", "r1", 1.5)
    assert "job_id" not in line


def test_bound_fields_stand_in_every_event_of_the_block(capsys):
    """bind() nests, and ends with its block."""
    logs.configure()
    with logs.bind(request_id="r1"), logs.bind(job_id="j1"):
        logs.event("inside")
    logs.event("outside")
    inside, outside = lines(capsys)
    assert (inside["request_id"], inside["job_id"]) == ("r1", "j1")
    assert "request_id" not in outside


def test_shapes_are_logged_at_debug_only_and_never_contents(capsys):
    """DEBUG shows keys, types and lengths."""
    logs.configure("INFO")
    logs.shape("payload", {"text": "secret"})
    assert lines(capsys) == []
    logs.configure("DEBUG")
    logs.shape("payload", {"text": "secret", "items": [1, 2], "speed": 1.0})
    (line,) = lines(capsys)
    assert line["shape"] == {"text": "str[6]", "items": ["2 items", "int"], "speed": "float"}


def test_a_failure_carries_its_traceback_on_the_same_line(capsys):
    """One line even for an exception, so that grep finds it whole."""
    logs.configure()
    try:
        raise ValueError("broken")
    except ValueError as error:
        logs.failure("request_failed", error, request_id="r1")
    (line,) = lines(capsys)
    assert (line["level"], line["request_id"]) == ("ERROR", "r1")
    assert "ValueError: broken" in line["exception"]


def test_configuring_twice_logs_once(capsys):
    """A replica that is reconfigured does not double its lines."""
    logs.configure()
    logs.configure()
    logs.event("once")
    assert len(lines(capsys)) == 1
    assert logging.getLogger("serve_app").handlers[0].stream is sys.stderr
