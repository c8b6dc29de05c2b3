"""`python -m env_setup` as a person types it, on whatever Python is there."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from env_setup.reach import unanswered, unfound

ROOT = Path(__file__).parents[2]
BARE = Path(sys.base_prefix) / "bin" / "python3"


def run(python: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    kept = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **environ}
    return subprocess.run(
        [python, "-m", "env_setup", *arguments], cwd=ROOT, env=kept, capture_output=True, text=True, check=False
    )


def test_a_bare_python_in_a_fresh_clone_can_check(tmp_path):
    """Nothing is installed there but the standard library; nothing is written."""
    places = {"WEIGHTS_DIR": str(tmp_path / "weights"), "DATA_DIR": str(tmp_path / "data")}
    people, machines = run(BARE, "check", **places), run(BARE, "check", "--json", **places)
    assert (people.returncode, people.stderr, people.stdout.splitlines()[-1]) == (0, "", "GO")
    answer = json.loads(machines.stdout)
    assert (answer["go"], machines.returncode) == (True, 0)
    assert {"name", "found", "needed", "verdict"} == set(answer["findings"][0])
    assert list(tmp_path.iterdir()) == []


def test_no_go_is_an_exit_status(tmp_path):
    """And the reason is the last line."""
    ended = run(Path(sys.executable), "check", "--form", "ray", DATA_DIR=str(tmp_path))
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1].startswith("NO-GO: form ray: ")


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        (["install", "--environment", "README.md"], {}, "README.md', which is not a directory"),
        (["install", "--environment", "docs"], {}, "which holds something else than a venv"),
        (["install", "--environment", "new-one", "--locks", "docs"], {}, "which does not hold base.lock"),
        (["install"], {"AWS_ACCESS_KEY_ID": "half"}, "AWS_SECRET_ACCESS_KEY is not set"),
        (["install"], {"FLASH_ATTN_WHEEL": "/no/x.whl"}, "which is not a wheel of flash_attn"),
        (["prefetch"], {"WEIGHTS_DIR": "/proc/version/weights"}, "/proc/version is not a directory"),
    ],
)
def test_what_was_set_wrongly_is_refused_without_a_traceback(arguments, environ, says):
    """Exit status 1, one message, and nothing made."""
    ended = run(Path(sys.executable), *arguments, **environ)
    assert ended.returncode == 1
    assert says in " ".join(ended.stdout.split())
    assert "Traceback" not in ended.stdout + ended.stderr
    assert not (ROOT / "new-one").exists()


def test_an_address_that_does_not_answer_is_told_from_one_that_does():
    """A refused connection and a name that does not exist; reached is whatever speaks HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            status = int(self.path.strip("/"))
            self.send_response(status)
            if status == 307:
                self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert [unanswered(f"{url}/{status}") for status in (200, 307, 403, 500)] == [None] * 4
        assert [unfound(f"{url}/{status}") for status in (200, 404, 500)] == [None, "answers 404", "answers 500"]
        server.shutdown()
    assert "refused" in unanswered(url)
    assert unfound(url).startswith("cannot be reached (")
    assert "cannot be resolved" in unanswered("http://does-not-exist.invalid")
