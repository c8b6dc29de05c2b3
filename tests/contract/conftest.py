"""What the contract suites share: one real S3 server for the session, and each kind of store."""

import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from serve_app.storage import DirectoryStore, MemoryStore, ObjectStore, S3Config, S3Store, UrlSigner
from tests.support.seaweedfs import SeaweedFS, run_seaweedfs

BUCKET = "contract"


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with run_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture(scope="session")
def s3_config(seaweedfs: SeaweedFS) -> S3Config:
    """The one bucket that all tests share: each keeps to keys under its own `prefix`."""
    return seaweedfs.config(BUCKET)


@pytest.fixture
def prefix() -> str:
    """A folder that no other test uses."""
    return f"{secrets.token_hex(8)}/"


@pytest.fixture
def signer() -> UrlSigner:
    """Signs and checks at one fixed moment."""
    return UrlSigner(b"a key of a test, of thirty-two b", now=partial(float, 1_000_000_000))


@pytest.fixture
def memory_store(signer: UrlSigner) -> MemoryStore:
    return MemoryStore(signer)


@pytest.fixture
def directory_store(signer: UrlSigner, tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store", signer)


@pytest.fixture
def s3_store(s3_config: S3Config) -> S3Store:
    return S3Store(s3_config)


@pytest.fixture(params=["memory", "directory", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """Every implementation in turn; the ones that are not asked for are not made."""
    made: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return made


@pytest.fixture(params=["memory", "directory"])
def local_store(request: pytest.FixtureRequest) -> ObjectStore:
    """The implementations whose every promise is ours to keep."""
    made: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return made
