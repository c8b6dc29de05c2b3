"""Real services on real ports. Modules that need no other share one; all others start their own, one after the other:
the machine has two cores."""

import sys
from collections.abc import Iterator

import httpx
import pytest
import yaml

from tests.support.deadline import DEADLINE_S
from tests.support.running import ROOT, RunningService, environment, free_port, running


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """deploy.yaml with one replica of the preview model, on a directory; it fetches from loopback, too."""
    folder, port = tmp_path_factory.mktemp("service"), free_port()
    config = yaml.safe_load((ROOT / "deploy.yaml").read_text())
    one = {"engine": "preview", "autoscaling": {"min_replicas": 1, "max_replicas": 1}}
    config["applications"][0]["args"] |= {"models": [one], "url_addresses": ["127.0.0.0/8"]}
    (folder / "deploy.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "serve_app.launcher", str(folder / "deploy.yaml"), "--port", str(port)]
    with running(command, port, environment(DATA_DIR=str(folder / "data"))) as service:
        yield service


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """Patient enough for a minute of audio."""
    with httpx.Client(timeout=DEADLINE_S) as client:
        yield client
