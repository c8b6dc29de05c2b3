"""The heavy packages reach the f5 replicas alone: once, first, and in both forms; what cannot work says so.

The service runs in the lean environment, as `make run` starts it, with a tiny f5 model on a CPU and a stand-in wheel.
"""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import yaml

from env_setup.wheels import sha256_of
from serve_app.launcher import RAY_SETTINGS
from tests.support.deadline import DEADLINE_S
from tests.support.http_servers import serving_files
from tests.support.running import ROOT, RunningService, environment, free_port, running, until
from tests.support.sentences import SENTENCES
from tests.support.stand_in_wheel import write_wheel
from tests.support.tiny_f5 import tiny_settings, write_tiny_f5

pytestmark = pytest.mark.long

LEAN = ROOT / ".venv" / "bin" / "python"
TWO = {"min_replicas": 2, "max_replicas": 2}
Deploy = Callable[..., dict[str, tuple[str, str]]]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short, for Ray puts sockets below it; removed whole, for Ray leaves its environments behind."""
    path = Path(tempfile.mkdtemp(prefix="rt-"))
    write_tiny_f5(path / "f5")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def wheel(folder: Path) -> str:
    path = write_wheel(folder)
    return f"{path}#sha256={sha256_of(path)}"


@pytest.fixture(scope="module")
def prepared(folder: Path, wheel: str) -> Path:
    """As `make run` prepares it on a machine with a GPU."""
    made = folder / "venv-f5"
    command = [LEAN, "-m", "env_setup", "install", "--environment", made, "--no-weights"]
    env = environment(FLASH_ATTN_WHEEL=wheel, DATA_DIR=str(folder / "data"))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return made / "bin" / "python"


@contextmanager
def serving(folder: Path, f5: dict, **env: str) -> Iterator[RunningService]:
    config = yaml.safe_load((ROOT / "deploy.yaml").read_text())
    config["applications"][0]["args"] |= {"models": [{"engine": "preview"}, f5], "default_model": "preview"}
    path, port = folder / "deploy.yaml", free_port()
    path.write_text(yaml.safe_dump(config))
    command = [str(LEAN), "-m", "serve_app.launcher", str(path), "--port", str(port)]
    with running(command, port, environment(RAY_TMPDIR=str(folder), DATA_DIR=str(folder / "data"), **env)) as service:
        yield service


def events(service: RunningService, model: str) -> list[dict]:
    lines = (re.search(r"{.*}", line) for line in service.printed.splitlines() if f'"model": "{model}"' in line)
    return [json.loads(found.group()) for found in lines if found]


def spoken(service: RunningService, model: str) -> bytes:
    body = {"input": SENTENCES[0], "model": model, "response_format": "pcm", "seed": 1}
    answer = httpx.post(f"{service.url}/v1/audio/speech", json=body, timeout=DEADLINE_S)
    assert (answer.status_code, answer.headers.get("x-model")) == (200, model), answer.text
    return answer.content


def ray_installed(folder: Path) -> list[str]:
    """What Ray installed in its last session, by the log of its agent."""
    logs = (folder / "ray" / "session_latest" / "logs").glob("runtime_env_setup*.log")
    lines = "".join(path.read_text() for path in logs)
    return re.findall(r"Installing python requirements to (\S+)", lines)


def maps(service: RunningService, deployment: str) -> list[str]:
    """Which files the processes of a deployment have in memory."""
    return [Path(f"/proc/{replica['pid']}/maps").read_text() for replica in service.replicas(deployment)]


def check_both_speak_and_only_f5_is_heavy(service: RunningService, folder: Path, home: str) -> None:
    assert len(spoken(service, "preview")) > 24_000
    assert spoken(service, "f5") == spoken(service, "f5")
    until(lambda: len(service.replicas("f5")) == 2, "both replicas run")
    assert all("libtorch" in loaded and home in loaded for loaded in maps(service, "f5"))
    for part in ("Ingress", "Jobs", "preview"):
        assert all("libtorch" not in loaded and home not in loaded for loaded in maps(service, part))
    happened = [event["event"] for event in events(service, "f5")]
    started = [event for event in events(service, "f5") if event["event"] == "replica_starting"]
    assert [event["flash_attn"] for event in started] == ["2.8.2"] * 2
    assert happened.index("replica_starting") < happened.index("model_loaded") < happened.index("replica_ready")
    models = {model["id"]: model for model in httpx.get(f"{service.url}/v1/models").json()["data"]}
    assert (models["f5"]["state"], models["f5"]["replicas"]) == ("ready", 2)


def test_ray_installs_closure_and_wheel_once_for_two_replicas(folder: Path, wheel: str):
    """Form `ray`: one installation on the node, before either replica's constructor; nobody else has any of it."""
    log = folder / "imported"
    f5 = tiny_settings(folder / "f5", environment="ray", autoscaling=TWO)
    with serving(folder, f5, FLASH_ATTN_WHEEL=wheel, STAND_IN_LOG=str(log)) as service:
        check_both_speak_and_only_f5_is_heavy(service, folder, "runtime_resources/uv")
        assert len(ray_installed(folder)) == 1
        assert not log.exists()  # SDPA was chosen: not even upstream's code has imported flash_attn
        f5_python = next(event["python"] for event in events(service, "f5") if event["event"] == "replica_starting")
        imported = [
            subprocess.run([python, "-c", "import flash_attn"], env={"STAND_IN_LOG": str(log)}, check=False)
            for python in (f5_python, LEAN)
        ]
        assert [done.returncode for done in imported] == [0, 1]
        assert len(log.read_text().splitlines()) == 1
        health = httpx.get(f"{service.url}/health").json()["models"]["f5"]
        assert health["replica"]["attention"] == "sdpa"
        reason = "flash_attn needs a CUDA device and the device is cpu"
        assert health["replica"]["attention_reason"] == reason
        labels = until(lambda: metric(folder, "speech_replica_runtime", 'model="f5"'), "metric is exported")
        assert 'attention="sdpa"' in labels
        assert f'attention_reason="{reason}"' in labels
        frames = until(lambda: metric(folder, "speech_batch_frames_total", 'model="f5"'), "frames are exported")
        assert float(frames.rpartition(" ")[2]) > 500  # the reference of one unit has as many


def metric(folder: Path, name: str, having: str) -> str:
    """The first line of the metric on this node's Prometheus pages with these words; "" while there is none."""
    (found,) = json.loads((folder / "ray" / "prom_metrics_service_discovery.json").read_text())
    pages = []
    for target in found["targets"]:
        with suppress(httpx.ConnectError):  # Ray names targets that do not listen yet
            pages.append(httpx.get(f"http://{target}/metrics").text)
    lines = (line for page in pages for line in page.splitlines() if line.startswith(f"ray_{name}{{"))
    return next((line for line in lines if having in line), "")


def test_a_prepared_environment_needs_no_installation(folder: Path, wheel: str, prepared: Path):
    """Form `prepared`: its interpreter runs the replicas of f5, and Ray installs nothing."""
    f5 = tiny_settings(folder / "f5", environment="auto", autoscaling=TWO)
    with serving(folder, f5, FLASH_ATTN_WHEEL=wheel, F5_PYTHON=str(prepared)) as service:
        check_both_speak_and_only_f5_is_heavy(service, folder, str(prepared.parents[1]))
        assert ray_installed(folder) == []
        chosen = next(event for event in events(service, "f5") if event["event"] == "environment_chosen")
        assert (chosen["form"], chosen["reason"]) == ("prepared", f"{prepared} was prepared for f5")


@pytest.fixture(scope="module")
def deploy(folder: Path) -> Iterator[tuple[Deploy, str]]:
    """Deploys preview and an f5 model into a Ray that stays; the address that it serves on."""
    port = free_port()
    env = environment(RAY_TMPDIR=str(folder), DATA_DIR=str(folder / "data"), RAY_AUTH_MODE="token")
    env |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "PYTHONPATH": str(ROOT)}
    env |= RAY_SETTINGS | {
        "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "2"
    }  # of a start that fails; make run waits for as many
    command = [str(LEAN), "-m", "tests.support.deploying", str(port)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )

    def deploy(f5: dict, **environ: str) -> dict[str, tuple[str, str]]:
        args = {"models": [{"engine": "preview"}, f5], "default_model": "preview"}
        print(json.dumps({"args": args, "environ": environ}), file=process.stdin, flush=True)
        return json.loads(next(line for line in process.stdout if line.startswith("{")))

    yield deploy, f"http://127.0.0.1:{port}"
    process.stdin.close()
    assert process.wait(DEADLINE_S) == 0
    process.stdout.close()


@pytest.fixture(scope="module")
def web(folder: Path, wheel: str) -> Iterator[str]:
    """The wheel on a web server."""
    with serving_files(folder) as url:
        yield f"{url}/{Path(wheel.partition('#')[0]).name}"


CASES = {
    "another Python": ("cp310", "it is for cp310 and the Python is cp311", "set FLASH_ATTN_WHEEL to a wheel"),
    "wrong hash of a file": ("file", f"FLASH_ATTN_WHEEL says {'0' * 64}", "fetch the file again, or correct"),
    "wrong hash of a URL": ("web", "Hash mismatch for `flash-attn @ http://127.0.0.1", f"sha256:{'0' * 64}"),
    "nobody answers": ("nobody", "FLASH_ATTN_WHEEL) cannot be reached", "set FLASH_ATTN_WHEEL to a wheel that fits"),
    "no such file": ("404", "FLASH_ATTN_WHEEL) answers 404", "set FLASH_ATTN_WHEEL to a wheel that fits"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wheel_that_cannot_be_installed_fails_f5_alone(deploy, folder: Path, wheel: str, web: str, case: str):
    """DEPLOY_FAILED with what is wrong and what to change, while preview goes on speaking."""
    kind, *words = CASES[case]
    path = Path(wheel.partition("#")[0])
    value = {
        "cp310": str(write_wheel(folder, python_tag="cp310")),
        "file": f"{path}#sha256={'0' * 64}",
        "web": f"{web}#sha256={'0' * 64}",
        "nobody": f"http://127.0.0.1:{free_port()}/{path.name}",
        "404": f"{web.rpartition('/')[0]}/no/{path.name}",
    }[kind]
    run, url = deploy
    gpus = 1 if kind == "cp310" else 0  # a refusal by name needs no node, and no GPU that this machine lacks
    told = run(tiny_settings(folder / "f5", environment="ray", num_gpus=gpus), FLASH_ATTN_WHEEL=value)
    status, message = told["f5"]
    assert status == "DEPLOY_FAILED"
    said = " ".join(message.split())  # the installer breaks its lines
    assert [word for word in words if word not in said] == [], message
    assert {name: told[name][0] for name in ("preview", "Ingress", "Jobs")} == dict.fromkeys(
        ("preview", "Ingress", "Jobs"), "HEALTHY"
    )
    body = {"input": SENTENCES[0], "model": "preview", "response_format": "pcm"}
    assert httpx.post(f"{url}/v1/audio/speech", json=body, timeout=DEADLINE_S).status_code == 200
    listed = {model["id"]: model for model in httpx.get(f"{url}/v1/models").json()["data"]}
    assert (listed["preview"]["state"], listed["f5"]["state"]) == ("ready", "failed")
    assert "FLASH_ATTN_WHEEL" in listed["f5"]["message"]


@pytest.mark.parametrize(
    ("python", "words"),
    [
        ("{folder}/no/bin/python", ["/no/bin/python", "env_setup install"]),
        (str(LEAN), ["torch"]),
    ],
    ids=["missing", "without torch"],
)
def test_a_prepared_environment_that_does_not_match_is_never_submitted(deploy, folder: Path, python: str, words: list):
    """Ray would hang in STARTING; the builder says what is wrong instead, and what runs goes on."""
    run, _ = deploy
    told = run(tiny_settings(folder / "f5", environment="prepared"), F5_PYTHON=python.format(folder=folder))
    assert list(told) == ["build"]
    kind, message = told["build"]
    assert kind == "ConfigError"
    assert [word for word in words if word not in message] == []
