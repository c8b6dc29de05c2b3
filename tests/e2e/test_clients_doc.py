"""Every block of docs/clients.md works as it stands: one replica of the preview model on a directory."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.audio import decode
from serve_app.domain import SAMPLE_RATE_HZ
from tests.support.running import ROOT, RunningService, environment
from tests.support.transcribe import transcribe, word_error_rate

BLOCK = re.compile(r"```(python|bash)\n(.*?)```", re.DOTALL)
SECTIONS = re.split(r"^## ", (ROOT / "docs/clients.md").read_text(), flags=re.MULTILINE)[1:]
BLOCKS = {section.splitlines()[0]: found for section in SECTIONS if (found := BLOCK.search(section))}
ADDRESS = "127.0.0.1:8000"
TEXT = "Glue the sheet to the dark blue background."
FILE = re.compile(r"[\"' ](\w+\.(?:wav|mp3|opus))\b")
PATIENCE_S = 240


def ran(service: RunningService, title: str, folder: Path) -> bytes:
    """The file that the block under `title` writes, run in `folder`."""
    kind, code = BLOCKS[title].groups()
    code = code.replace(ADDRESS, service.url.removeprefix("http://"))
    command = [sys.executable, "-c", code] if kind == "python" else ["bash", "-ec", code]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    (name,) = set(FILE.findall(code))
    assert [each.name for each in folder.iterdir()] == [name]
    return (folder / name).read_bytes()


@pytest.mark.parametrize("title", BLOCKS)
def test_the_block_speaks(service: RunningService, tmp_path: Path, title: str):
    """It ends without an error, and what it has written is speech."""
    assert len(decode(ran(service, title, tmp_path))) > SAMPLE_RATE_HZ


def test_a_block_says_the_text(service: RunningService, tmp_path: Path):
    """Whole, in the form in which something may be lost: pieces in events."""
    file = ran(service, "OpenAI: server-sent events", tmp_path)
    assert word_error_rate([TEXT], [transcribe(file)]) == 0
