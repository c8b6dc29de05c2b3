"""A deployment that cannot work says why and ends."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.running import ROOT, START_S, environment, free_port

CONFIG = yaml.safe_load((ROOT / "deploy.yaml").read_text())


FOREIGN = {"engine": "f5", "num_gpus": 0, "license": "MIT", "languages": ["en"], "environment": "installed"}


def launch(folder: Path, args: dict, **env: str) -> "subprocess.CompletedProcess[str]":
    config = folder / "deploy.yaml"
    config.write_text(yaml.safe_dump(CONFIG | {"applications": [CONFIG["applications"][0] | {"args": args}]}))
    command = [sys.executable, "-m", "serve_app.launcher", str(config), "--port", str(free_port())]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(DATA_DIR=str(folder / "data"), **env),
        capture_output=True,
        text=True,
        timeout=START_S,
    )


@pytest.mark.parametrize(
    ("args", "env", "words"),
    [
        (
            {"models": [FOREIGN | {"source": "/no/such.safetensors"}]},
            {},
            ["models[].source", "/no/such.safetensors"],
        ),
        (
            {},
            {
                "S3_BUCKET": "b",
                "AWS_ACCESS_KEY_ID": "k",
                "AWS_SECRET_ACCESS_KEY": "hidden-secret",
                "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            },
            ["AWS_ENDPOINT_URL"],
        ),
    ],
    ids=["missing weights", "dead endpoint"],
)
def test_the_cause_is_printed_and_the_exit_code_is_1(tmp_path, args, env, words):
    """A model that cannot load, which its replica finds, and a store that cannot be reached, which the builder finds as
    it finds an unknown key: each ends with its own words."""
    ended = launch(tmp_path, args, **env)
    assert ended.returncode == 1
    assert "The deployment failed." in ended.stderr
    assert [word for word in words if word not in ended.stderr] == []
    assert "hidden-secret" not in ended.stderr + ended.stdout
