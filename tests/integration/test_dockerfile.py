"""The Dockerfile, where no image can be built: linted, and each target's commands run in order in a scratch directory.

What differs from a container (tests/support/dockerfile.py): the base image is a copy of the tests' own Python, outside
any venv; absolute paths lie under the scratch directory; `useradd` is not run, so everything runs as who runs the
tests; the port is a free one. All else is byte for byte what stands in the Dockerfile.
"""

import json
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from serve_app.audio import decode
from serve_app.launcher import RAY_SETTINGS
from tests.support.deadline import DEADLINE_S
from tests.support.dockerfile import Ignore, ScratchImage, instructions, of_target
from tests.support.running import ROOT, STOP_S, environment, free_port, running, until
from tests.support.stand_in_wheel import write_wheel

pytestmark = pytest.mark.long

DOCKERFILE = (ROOT / "Dockerfile").read_text()
TARGETS = ("cpu", "gpu")
MAKES_THE_USER = next(i.value for i in of_target(DOCKERFILE, "cpu") if i.value.startswith("useradd "))
MakeImage = Callable[..., ScratchImage]


@pytest.fixture
def make_image() -> Iterator[MakeImage]:
    """Builds a target; `port` in place of 8000. Removed at the end: the packages of gpu are 6 GB."""
    root = Path(tempfile.mkdtemp(prefix="image-"))

    def make(target: str, port: int = 8000, **build_args: str) -> ScratchImage:
        image = ScratchImage(
            root=root,
            context=ROOT,
            environment=environment(),
            build_args=build_args,
            not_run=frozenset({MAKES_THE_USER}),  # needs root, and would change this machine's users
            substitutes={"8000": str(port)},
        )
        image.build(of_target(DOCKERFILE, target))
        return image

    yield make
    shutil.rmtree(root)


def hadolint(path: Path) -> "subprocess.CompletedProcess[str]":
    linter = Path(sysconfig.get_path("scripts")) / "hadolint"
    return subprocess.run([linter, "--no-color", path], capture_output=True, text=True, check=False)


def test_the_linter_finds_nothing():
    """hadolint, with every rule on."""
    linted = hadolint(ROOT / "Dockerfile")
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


def test_the_linter_would_find_something(tmp_path: Path):
    """The check above can fail."""
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nCMD python -m serve_app.launcher\n")
    linted = hadolint(bad)
    assert linted.returncode == 1
    assert ("DL3006" in linted.stdout, "DL3025" in linted.stdout) == (True, True)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_ends_as_a_user_that_is_not_root(target: str):
    """By number, which Kubernetes can check; the number is the one of the user that is made."""
    user = [i.value for i in of_target(DOCKERFILE, target) if i.keyword == "USER"]
    uid = re.search(r"--uid (\d+)", MAKES_THE_USER).group(1)
    assert user == [f"{uid}:{uid}"]
    assert int(uid) > 0


@pytest.mark.parametrize("target", TARGETS)
def test_a_change_of_code_installs_nothing_again(target: str):
    """The service's code and configuration are the last layers."""
    kinds = [(i.keyword, i.value) for i in of_target(DOCKERFILE, target)]
    last_run = max(index for index, (keyword, _) in enumerate(kinds) if keyword == "RUN")
    assert [kinds.index(("COPY", value)) > last_run for value in ("serve_app serve_app", "deploy.yaml LICENSE ./")] == [
        True,
        True,
    ]


def test_uv_is_the_makefiles():
    """One version of the installer, wherever the locks are installed."""
    pinned = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1)
    assert f"ARG UV_VERSION={pinned}\n" in DOCKERFILE


@pytest.mark.parametrize("target", TARGETS)
def test_ray_is_set_as_with_make_run(target: str):
    """What the launcher sets of Ray and Serve is set in the image too, which starts Serve without it."""
    set_here = [i.value for i in of_target(DOCKERFILE, target) if i.keyword == "ENV"]
    missing = [f"{k}={v}" for k, v in RAY_SETTINGS.items() if not any(f"{k}={v}" in value for value in set_here)]
    assert missing == []


def test_nothing_private_enters_the_build():
    """Environments, data, secrets and history stay out of the context; what the Dockerfile copies is in it."""
    ignore = Ignore((ROOT / ".dockerignore").read_text())
    outside = (".env", ".git/config", ".venv/bin/python", "data/voices/a.wav", "tests/unit/test_app.py", "Makefile")
    assert [path for path in (*outside, "serve_app/__pycache__/app.cpython-311.pyc") if not ignore.excludes(path)] == []
    assert [
        path for path in ("serve_app/app.py", "env_setup/locks/f5.lock", "deploy.yaml") if ignore.excludes(path)
    ] == []


def test_what_is_not_understood_is_not_skipped(tmp_path: Path):
    """A new kind of instruction fails this test's runner, in place of being left out of the run."""
    assert [i.keyword for i in instructions("FROM a AS b\nONBUILD RUN x\n")] == ["FROM", "ONBUILD"]
    image = ScratchImage(root=tmp_path, context=ROOT, environment=environment())
    with pytest.raises(ValueError, match="ONBUILD is not understood"):
        image.build(of_target("FROM a AS b\nONBUILD RUN x\n", "b"))


def test_the_cpu_image_speaks(make_image: MakeImage):
    """Built, started by CMD, healthy by HEALTHCHECK, reachable from outside, ended by STOPSIGNAL with exit code 0."""
    port = free_port()
    image = make_image("cpu", port)
    assert image.run(["python", "-c", "import torch"]).returncode == 1
    assert image.run(image.health_command).returncode == 1
    started = ["env", f"--chdir={image.workdir}", *image.command]
    with running(started, port, image.environment) as service:
        until(lambda: image.run(image.health_command).returncode == 0, "healthy")
        body = {"input": "Hello, the service speaks.", "response_format": "wav"}
        spoken = httpx.post(f"{service.url}/v1/audio/speech", json=body, timeout=DEADLINE_S)
        assert (spoken.status_code, spoken.headers["x-model"]) == (200, "preview"), spoken.text
        assert len(decode(spoken.content)) > 24_000
        # 127.0.0.2 is answered by what listens on all addresses, and by nothing that listens on 127.0.0.1.
        outside = httpx.get(f"http://127.0.0.2:{port}/readyz", headers={"Host": "localhost"})
        assert outside.status_code == 200
        family = psutil.Process(service.process.pid).children(recursive=True)
        service.process.send_signal(signal.Signals[image.stop_signal])
        assert service.process.wait(STOP_S) == 0
        until(lambda: not any(process.is_running() for process in family), "what it started has ended")
    assert (image.root / "data" / ".url-signing-key").stat().st_size == 32


def test_the_gpu_image_holds_torch_and_the_wheel(make_image: MakeImage, tmp_path: Path):
    """Both in the system Python, over the base that is unchanged, so that f5 needs no runtime_env; no weights."""
    image = make_image("gpu", FLASH_ATTN_WHEEL=str(write_wheel(tmp_path)))
    versions = (
        "import importlib.metadata as m, json, sys, flash_attn, torch;"
        "print(json.dumps([sys.prefix == sys.base_prefix, torch.version.cuda,"
        " *(m.version(name) for name in ('torch', 'flash_attn', 'numpy'))]))"
    )
    ended = image.run(["python", "-c", versions])
    assert ended.returncode == 0, ended.stderr
    lock = (ROOT / "env_setup/locks/base.lock").read_text()
    numpy = re.search(r"^numpy==(\S+)", lock, re.MULTILINE).group(1)
    assert json.loads(ended.stdout) == [True, "12.4", "2.6.0", "2.8.2", numpy]
    assert list((image.root / "weights").iterdir()) == []
