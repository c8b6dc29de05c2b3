"""A hub with three pinned files, and an empty bucket of a real S3 server, for each test."""

import secrets
from collections.abc import Iterator

import pytest

from serve_app.storage import S3Store
from serve_app.weights.sources import Pinned
from tests.integration.weights.nodes import CHECKPOINT, COMMITS, VOCODER
from tests.support.hub import Hub
from tests.support.seaweedfs import SeaweedFS, run_seaweedfs


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with run_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def store(seaweedfs: SeaweedFS) -> S3Store:
    """An empty bucket."""
    bucket = secrets.token_hex(8)
    seaweedfs.create_bucket(bucket)
    return S3Store(seaweedfs.config(bucket))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server


@pytest.fixture
def pinned(hub: Hub) -> Pinned:
    config = hub.add("owner/vocos", COMMITS[1], "config.yaml", b"class_path: Vocos\n")
    vocoder = hub.add("owner/vocos", COMMITS[1], "pytorch_model.bin", VOCODER)
    return Pinned(hub.add("owner/f5", COMMITS[0], "base/model.safetensors", CHECKPOINT), (config, vocoder))
