"""What the tests of weights share: a node, what it holds in the end, and a process that fetches."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from serve_app.settings import NodeSettings
from serve_app.storage import S3Store
from serve_app.weights import NodeWeights
from serve_app.weights.hub import Hub as Client
from serve_app.weights.sources import Pinned
from tests.support.hub import Hub

ROOT = Path(__file__).parents[3]
COMMITS = ("a" * 40, "b" * 40)
CHECKPOINT = bytes(range(253)) * 4_000  # 1 MB
VOCODER = bytes(range(241)) * 1_000
FETCH = """
import json, sys
from pathlib import Path
from env_setup.pins import HubFile
from serve_app import logs
from serve_app.settings import NodeSettings
from serve_app.weights import F5Sources, NodeWeights
from serve_app.weights.sources import Pinned

root, hub, pins = sys.argv[1], sys.argv[2], [HubFile(**pin) for pin in json.loads(sys.argv[3])]
logs.configure()
print("ready", flush=True)
sys.stdin.readline()
node = NodeSettings(weights_dir=Path(root), hub_endpoint=hub)
print(NodeWeights(node, None, pinned=Pinned(pins[0], (pins[1], pins[2]))).fetch(F5Sources()).checkpoint)
"""


def node_weights(root: Path, hub: str, pinned: Pinned, store: S3Store | None = None) -> NodeWeights:
    node = NodeSettings(weights_dir=root, hub_endpoint=hub)
    return NodeWeights(node, store, pinned=pinned, hub=Client(hub, None, backoff_s=0), pause=lambda seconds: None)


def contents(root: Path) -> dict[str, bytes]:
    """Every file below `root`, hidden ones too."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def expected(pinned: Pinned, hub: Hub) -> dict[str, bytes]:
    """What a node has in the end: the hub's files by their keys, and nothing else."""
    pins = (pinned.checkpoint, *pinned.vocoder)
    return {pin.key: hub.files[f"/{pin.repository}/resolve/{pin.revision}/{pin.path}"] for pin in pins}


def start(root: Path, hub: Hub, pinned: Pinned) -> "subprocess.Popen[str]":
    """A process that fetches once it is told to, by a line on its stdin."""
    pins = json.dumps([asdict(pin) for pin in (pinned.checkpoint, *pinned.vocoder)])
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, str(root), hub.url, pins],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
