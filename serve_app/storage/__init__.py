"""Where objects are kept: one protocol, and the stores that keep it."""

from serve_app.storage.directory import DirectoryStore
from serve_app.storage.memory import MemoryStore
from serve_app.storage.opening import s3_store
from serve_app.storage.probe import conditions_hold, probe
from serve_app.storage.protocol import ConditionalStore, FileStore, ObjectInfo, ObjectStore, Page, StoredObject
from serve_app.storage.s3 import S3Store
from serve_app.storage.s3_client import S3Config
from serve_app.storage.signing import UrlSigner

__all__ = [
    "ConditionalStore",
    "DirectoryStore",
    "FileStore",
    "MemoryStore",
    "ObjectInfo",
    "ObjectStore",
    "Page",
    "S3Config",
    "S3Store",
    "StoredObject",
    "UrlSigner",
    "conditions_hold",
    "probe",
    "s3_store",
]
