"""The two stores that measurements run on: a directory, and a real S3 server on this machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serve_app.storage import DirectoryStore, ObjectStore, S3Store, UrlSigner
from tests.support.seaweedfs import run_seaweedfs

__all__ = ["STORES", "BenchStore", "new_store"]

STORES = ("directory", "S3")
BUCKET = "bench"


@dataclass(frozen=True)
class BenchStore:
    """`variables` name it to a service; `store` is this process's own way to it."""

    variables: Mapping[str, str]
    store: ObjectStore


@contextmanager
def new_store(name: str, folder: Path) -> Iterator[BenchStore]:
    """An empty store below `folder`, one of STORES."""
    if name == "directory":
        data = folder / "data"
        yield BenchStore({"DATA_DIR": str(data)}, DirectoryStore(data, UrlSigner(b"bench")))
        return
    with run_seaweedfs(folder / "s3") as s3:
        s3.create_bucket(BUCKET)
        variables = {
            "S3_BUCKET": BUCKET,
            "AWS_ENDPOINT_URL": s3.endpoint_url,
            "AWS_REGION": s3.config(BUCKET).region or "",
            "AWS_ACCESS_KEY_ID": s3.access_key_id,
            "AWS_SECRET_ACCESS_KEY": s3.secret_access_key,
        }
        yield BenchStore(variables, S3Store(s3.config(BUCKET)))
