"""A Ray, an S3 server and a voice cache for the tests of this folder that ask for them."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray reads it at import: bind loopback only
import ray

from serve_app.deployments.voice_cache import VoiceCacheArgs
from serve_app.preparation import RecordingPreparer
from serve_app.storage import S3Store
from serve_app.voices import VoiceLibrary
from tests.support.caching import BUCKET, CALLERS, ROOM, Deployed, caller_on, node_ids
from tests.support.preparing import PlainPreparer
from tests.support.seaweedfs import SeaweedFS, run_seaweedfs
from tests.support.wire import WireProxy


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # short: Ray's sockets lie in it
        ray.init(address="local", include_dashboard=False, num_cpus=4, _temp_dir=folder, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with run_seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture
def deployed(cluster: None, s3: SeaweedFS) -> Iterator[Deployed]:
    with WireProxy(s3.endpoint_url) as proxy:
        config = s3.config(BUCKET)
        library = VoiceLibrary(S3Store(config), PlainPreparer())
        args = VoiceCacheArgs(secrets.token_hex(8), ROOM, RecordingPreparer(None))
        deployed = Deployed(proxy, S3Store(replace(config, endpoint_url=proxy.url)), library, args)
        yield deployed
        with suppress(ValueError):  # the test has killed it
            ray.kill(deployed.actor())


@pytest.fixture(scope="module")
def processes(cluster: Any) -> list[Any]:
    """One after the other on each node there is."""
    return [caller_on(node) for node, _ in zip(cycle(node_ids()), range(CALLERS), strict=False)]


@pytest.fixture
def callers(processes: list[Any], deployed: Deployed) -> list[Any]:
    ray.get([process.connect.remote(deployed.args, deployed.store) for process in processes])
    return processes
