"""The builder's own decisions."""

import stat

import pytest

from serve_app import app
from serve_app.errors import ConfigError, StorageMisconfigured
from serve_app.settings import StoreSettings
from serve_app.storage import DirectoryStore, S3Store, probe


@pytest.fixture
def one_node(monkeypatch):
    monkeypatch.setattr(app, "_live_nodes", lambda: 1)


def settings(tmp_path, **environ: str) -> StoreSettings:
    return StoreSettings.from_environment({"DATA_DIR": str(tmp_path / "data")} | environ)


def test_without_a_bucket_everything_is_kept_in_a_directory(tmp_path, one_node):
    """The directory is made, can be written, and its URLs are signed."""
    store, signer = app.open_store(settings(tmp_path))
    probe(store)
    assert isinstance(store, DirectoryStore)
    assert store.url("audio/x", expires_s=60, filename="x.wav").startswith("/files/audio/x?")
    assert signer is not None


def test_the_signing_key_outlives_a_restart_and_is_private(tmp_path, one_node):
    """URLs given out before a restart stay good; nobody else can read the key."""
    first, again = (app.open_store(settings(tmp_path))[1] for _ in range(2))
    assert first == again
    assert stat.S_IMODE((tmp_path / "data" / ".url-signing-key").stat().st_mode) == 0o600


def test_with_a_bucket_s3_signs_its_own_urls(tmp_path):
    """S3_BUCKET selects S3; the ingress then signs nothing."""
    store, signer = app.open_store(settings(tmp_path, S3_BUCKET="voices"))
    assert isinstance(store, S3Store)
    assert signer is None


def test_a_directory_on_a_cluster_of_nodes_is_refused(tmp_path, monkeypatch):
    """The other nodes would not see it; the message says to set S3_BUCKET."""
    monkeypatch.setattr(app, "_live_nodes", lambda: 2)
    with pytest.raises(ConfigError, match=r"2 nodes.*set S3_BUCKET"):
        app.open_store(settings(tmp_path))


def test_a_directory_that_cannot_be_made_is_said_by_its_variable(tmp_path, one_node):
    """DATA_DIR below a file cannot be a directory."""
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StorageMisconfigured, match="DATA_DIR"):
        app.open_store(settings(tmp_path))
