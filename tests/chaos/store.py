"""SeaweedFS that can be killed and started again on its ports with its data, behind a relay that can be cut.

service -> relay (`url`) -> weed mini (`direct`) -> directory
"""

import json
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.chaos.processes import Process, Sessions
from tests.chaos.relay import Relay
from tests.support.running import free_port

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["BUCKET", "CONDITIONAL", "KillableStore", "running_store"]

BUCKET = "speech"
CONDITIONAL = True
"""SeaweedFS passes `storage.conditions_hold`, so here the service has to decide each end by a conditional put."""

REGION = "us-east-1"
SERVERS = ("master", "volume", "filer", "s3", "admin")
READY_WITHIN_S = 60.0
PROBE = ".chaos/ready"


class KillableStore:
    """One server. `relay` is what the service uses; `client` goes past it."""

    def __init__(self, directory: Path, sessions: Sessions) -> None:
        self._directory = directory
        self._sessions = sessions
        self._ports = {name: (free_port(), free_port()) for name in SERVERS}
        self._key, self._secret = secrets.token_hex(8), secrets.token_hex(16)
        self._process: Process | None = None
        self.relay = Relay(self._ports["s3"][0])
        directory.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "admin",
            "credentials": [{"accessKey": self._key, "secretKey": self._secret}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def log(self) -> Path:
        return self._directory / "weed.log"

    @property
    def environment(self) -> dict[str, str]:
        """What the service reads to find it, by way of the relay."""
        return {
            "S3_BUCKET": BUCKET,
            "AWS_ACCESS_KEY_ID": self._key,
            "AWS_SECRET_ACCESS_KEY": self._secret,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.relay.port}",
        }

    def client(self) -> "S3Client":
        """A plain boto3 client, which shares no code with the store under test."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self._ports['s3'][0]}",
            region_name=REGION,
            aws_access_key_id=self._key,
            aws_secret_access_key=self._secret,
            config=Config(retries={"total_max_attempts": 3}, connect_timeout=2, read_timeout=10),
        )

    def start(self) -> None:
        """Start it and return when an object could be written. Raises RuntimeError with the end of its log."""
        weed = Path(sys.executable).with_name("weed")
        command = [
            str(weed), "-logtostderr=true", "mini", f"-dir={self._directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
            "-s3.autoCreateBucket=false", f"-s3.config={self._directory / 's3.json'}",
        ]  # fmt: skip
        for name, (port, grpc_port) in self._ports.items():
            command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc_port}"]
        process = self._sessions.start(command, {"PATH": "/usr/bin:/bin", "HOME": str(self._directory)}, self.log)
        self._process = process
        for _ in range(round(READY_WITHIN_S / 0.1)):
            if process.poll() is not None:
                break
            if self._writes():
                return
            threading.Event().wait(0.1)
        raise RuntimeError(f"SeaweedFS did not start; the end of its log:\n{self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        """kill -9, with all that it has open."""
        if self._process is not None:
            self._sessions.end(self._process)
        self._process = None
        for port in (port for pair in self._ports.values() for port in pair):
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    def _writes(self) -> bool:
        with suppress(BotoCoreError, ClientError):
            client = self.client()
            if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key=PROBE, Body=b"ready")
            client.delete_object(Bucket=BUCKET, Key=PROBE)
            return True
        return False


@contextmanager
def running_store(directory: Path, sessions: Sessions) -> Iterator[KillableStore]:
    """A started store, gone with the block."""
    store = KillableStore(directory, sessions)
    with store.relay:
        try:
            store.start()
            yield store
        finally:
            store.kill()
