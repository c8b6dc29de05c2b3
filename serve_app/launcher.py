"""What `make run` runs: Ray on loopback, `serve run` on top of it, and a word when the service can speak.

`serve run` alone stays up when a deployment fails; this prints the cause and exits with 1.

    ray.init (here) -> `serve run deploy.yaml` (child) -> poll Serve's status -> /readyz -> print how to speak
"""

import argparse
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from serve_app.settings import LOOPBACK_NAMES

__all__ = ["RAY_SETTINGS", "local_url", "main"]

# Where Ray's and Serve's own defaults are wrong for a service on one machine, slow or failing as it may be.
RAY_SETTINGS = {
    "RAY_worker_niceness": "0",  # of 15: behind everything else on the machine; see `deployments.priority`
    "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1000",  # of 3: as many kills in an update would end a deployment for good
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "20",  # of 5: after three of them a first start of `serve run` has failed
}

POLL_S = 1.0
SAY_EVERY = 30  # polls
HOW_TO_SPEAK = """
Ready: {url} (dashboard: {dashboard})
Write a WAV:

  curl {url}/v1/audio/speech -H 'Content-Type: application/json' \\
    -d '{{"input": "Hello, the service speaks.", "response_format": "wav"}}' -o hello.wav
"""


def main() -> int:
    """Serve until interrupted; 0 after SIGINT or SIGTERM, 1 when the deployment failed."""
    parser = argparse.ArgumentParser(prog="python -m serve_app.launcher", description=__doc__)
    parser.add_argument("config", type=Path, help="Serve config file, deploy.yaml")
    parser.add_argument("--host", help="HTTP address in place of the config's")
    parser.add_argument("--port", type=int, help="HTTP port in place of the config's")
    parser.add_argument("--allow-anonymous", action="store_true", help="bind another address without API keys")
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())
    http = config.setdefault("http_options", {})
    http["port"] = options.port or http.get("port", 8000)
    http["host"] = options.host or http.get("host", "127.0.0.1")
    url = local_url(http["host"], http["port"])
    if http["host"] not in LOOPBACK_NAMES and not options.allow_anonymous:
        print(
            f"http_options.host is {http['host']!r}: the service has no API keys, so it would speak for anybody who "
            "reaches it; use 127.0.0.1, or start with --allow-anonymous",
            file=sys.stderr,
        )
        return 1
    if _is_taken(http["host"], http["port"]):
        print(f"port {http['port']} is in use: stop what listens there, or `make run PORT=...`", file=sys.stderr)
        return 1
    with _ray() as (address, dashboard), _config_file(config) as path, _serve_run(path, address) as child:
        try:
            if failure := _wait_until_ready(child, url):
                print(f"\nThe deployment failed.\n{failure}", file=sys.stderr, flush=True)
                return 1
            print(HOW_TO_SPEAK.format(url=url, dashboard=f"http://{dashboard}"), flush=True)
            return child.wait()
        except KeyboardInterrupt:
            print("stopping", flush=True)
            return 0


def local_url(host: str, port: int) -> str:
    """How this machine calls the service: an address that means all of them is no name of it."""
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


@contextmanager
def _ray() -> Iterator[tuple[str, str]]:
    """A Ray of our own on loopback, with a token that only this user can read; its address and its dashboard's."""
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # bind loopback, not all addresses
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # equal lines of two replicas are two events
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    _private_token(Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token")))
    import ray  # reads the variables above when it is imported

    context: Any = ray.init(address="local", log_to_driver=False, logging_level=logging.WARNING)
    address = context.address_info
    for number in (signal.SIGINT, signal.SIGTERM):  # after ray.init, which takes SIGTERM for itself
        signal.signal(number, _interrupt)
    try:
        yield address["gcs_address"], address["webui_url"]
    finally:
        ray.shutdown()


def _private_token(path: Path) -> None:
    """Ray would make the token itself, but readable to every user of the machine."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    path.chmod(0o600)


@contextmanager
def _config_file(config: dict[str, object]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deploy.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        yield path


@contextmanager
def _serve_run(config: Path, address: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [str(Path(sys.executable).with_name("serve")), "run", str(config)]
    child = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": address}, start_new_session=True)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)  # `serve run` shuts Serve down on it
        child.wait()


def _wait_until_ready(child: "subprocess.Popen[bytes]", url: str) -> str | None:
    """None once the service can speak; why it cannot, once that is certain."""
    waited, failures = 0, _Failures()
    while True:
        ready, answer = _ask(f"{url}/readyz")
        if ready:
            return None
        if waited and waited % SAY_EVERY == 0:
            print(f"not ready yet: {answer}", flush=True)
        if (code := child.poll()) is not None:
            return f"`serve run` ended with {code}; its messages stand above."
        if failure := failures.found():
            return failure
        time.sleep(POLL_S)
        waited += 1


class _Failures:
    """What keeps the service from its first start for good: a deployment that Serve gave up, or one of which two
    replicas did not start. (Once it runs Serve tries longer, for nodes come and go.)"""

    def __init__(self) -> None:
        self._starts_left: dict[str, int] = {}

    def found(self) -> str | None:
        from ray import serve
        from ray.serve.schema import ApplicationStatus

        from serve_app.deployments.explain import explain

        for name, app in serve.status().applications.items():
            messages = {part: status.message for part, status in app.deployments.items()}
            if app.status == ApplicationStatus.DEPLOY_FAILED or any(map(self._is_second, messages, messages.values())):
                causes = [f"{part}: {explain(message)}" for part, message in messages.items() if message]
                return "\n".join([f"{name}: {app.message}", *causes])
        return None

    def _is_second(self, part: str, message: str) -> bool:
        """Whether a start of this deployment has failed since the first failure that was seen."""
        from serve_app.deployments.explain import starts_left

        left = starts_left(message)
        return left is not None and left < self._starts_left.setdefault(part, left)


def _ask(url: str) -> tuple[bool, str]:
    """Whether it answers 200, and what it says."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200, response.read().decode()
    except urllib.error.HTTPError as error:
        return False, error.read().decode()
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        return False, str(error)


def _is_taken(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
