"""A store in a bucket of any S3-compatible service. Only S3Config decides which, never the ambient AWS_* variables.

method -> check of the key -> boto3 client (one per process) -> bucket
       <- our types, our errors, bytes checked against the sha256 in the object's metadata
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import HTTPClientError, IncompleteReadError
from urllib3.exceptions import HTTPError

from serve_app.errors import ConfigError, ObjectCorrupt, StorageMisconfigured
from serve_app.storage.protocol import ObjectInfo, Page, StoredObject
from serve_app.storage.s3_errors import BOTO_ERRORS, Attempt, storage_error
from serve_app.storage.signing import check_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["S3Config", "S3Store"]

DEFAULT_REGION = "us-east-1"
READ_ATTEMPTS = 3
"""Of a body that is cut. boto3 retries until the headers are there, not beyond."""
MAX_URL_EXPIRY_S = 7 * 24 * 3600
"""S3's limit for presigned URLs (signature version 4)."""


@dataclass(frozen=True)
class S3Config:
    """Which bucket, and as whom. An empty string counts as unset.

    `endpoint_url` None: AWS itself. `access_key_id` None: boto3's own chain, such as the machine's role.
    """

    bucket: str
    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("endpoint_url", "region", "access_key_id", "secret_access_key"):
            object.__setattr__(self, name, getattr(self, name) or None)
        if not self.bucket:
            raise ConfigError("S3_BUCKET is empty: name the bucket")


class S3Store:
    """An ObjectStore. Safe for threads; pickled as its config, so that each process makes a client of its own."""

    def __init__(self, config: S3Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._made: S3Client | None = None

    def __reduce__(self) -> tuple[type["S3Store"], tuple[S3Config]]:
        return S3Store, (self._config,)

    def __repr__(self) -> str:
        return f"S3Store({self._config!r})"

    def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        """See ObjectStore. The request's signature covers the body's sha256, so the store checks it on arrival."""
        sha256 = hashlib.sha256(body).hexdigest()
        with self._asking("write", check_key(key)) as client:
            answer = client.put_object(
                Bucket=self._config.bucket, Key=key, Body=body, ContentType=content_type, Metadata={"sha256": sha256}
            )
            etag = answer["ETag"].strip('"')
        written = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        moment = parsedate_to_datetime(written) if written else datetime.now(UTC)
        return ObjectInfo(key, len(body), etag, moment.astimezone(UTC), content_type, sha256)

    def get(self, key: str) -> StoredObject:
        """See ObjectStore. An object without our sha256 is not checked: others wrote it."""
        with self._asking("read", check_key(key)) as client:
            info, body = self._read_whole(client, key)
        digest = hashlib.sha256(body).hexdigest()
        if info.sha256 not in (None, digest):
            raise ObjectCorrupt(
                f'object "{key}" in bucket "{self._config.bucket}" has the sha256 {digest}, but was written with '
                f"{info.sha256}: read it again, and write it anew if it stays so"
            )
        return StoredObject(info, body)

    def head(self, key: str) -> ObjectInfo:
        """See ObjectStore."""
        with self._asking("read", check_key(key)) as client:
            return _info(key, client.head_object(Bucket=self._config.bucket, Key=key))

    def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """See ObjectStore."""
        with self._asking("list", prefix) as client:
            answer = client.list_objects_v2(Bucket=self._config.bucket, Prefix=prefix, StartAfter=after, MaxKeys=limit)
            items = [
                ObjectInfo(each["Key"], each["Size"], each["ETag"].strip('"'), each["LastModified"].astimezone(UTC))
                for each in answer.get("Contents", [])
            ]
            return Page(items, items[-1].key if items and answer["IsTruncated"] else None)

    def delete(self, key: str) -> None:
        """See ObjectStore."""
        with self._asking("delete", check_key(key)) as client:
            client.delete_object(Bucket=self._config.bucket, Key=key)

    def url(self, key: str, *, expires_s: int, filename: str) -> str:
        """A presigned URL. Raises ConfigError for more than seven days, S3's limit."""
        if expires_s > MAX_URL_EXPIRY_S:
            raise ConfigError(
                f"limits.url_expiry_s is {expires_s}, but S3 refuses presigned URLs of more than {MAX_URL_EXPIRY_S} "
                "seconds (7 days): lower it"
            )
        with self._asking("read", check_key(key)) as client:
            return client.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self._config.bucket,
                    "Key": key,
                    "ResponseContentDisposition": f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
                },
                ExpiresIn=expires_s,
            )

    def _read_whole(self, client: "S3Client", key: str) -> tuple[ObjectInfo, bytes]:
        for attempt in range(1, READ_ATTEMPTS + 1):
            answer = client.get_object(Bucket=self._config.bucket, Key=key)
            try:
                body = answer["Body"].read()  # before all else: an unread body holds on to its connection
                return _info(key, answer), body
            except (HTTPClientError, IncompleteReadError, HTTPError):
                if attempt == READ_ATTEMPTS:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    @contextmanager
    def _asking(self, verb: str, key: str) -> Iterator["S3Client"]:
        """The client, for one operation whose errors become ours."""
        try:
            yield self._client()
        except BOTO_ERRORS as error:
            where = Attempt(
                verb, key, self._config.bucket, self._config.endpoint_url, self._config.region or DEFAULT_REGION
            )
            raise storage_error(error, where) from error

    def _client(self) -> "S3Client":
        with self._lock:  # clients are thread-safe, making them is not
            if self._made is None:
                try:
                    self._made = _make_client(self._config)
                except ValueError as error:
                    raise StorageMisconfigured(
                        f"AWS_ENDPOINT_URL is {self._config.endpoint_url!r} and AWS_REGION {self._config.region!r}, "
                        f"which boto3 refuses: {error}; correct them"
                    ) from error
            return self._made


def _make_client(config: S3Config) -> "S3Client":
    return boto3.session.Session(botocore_session=_session(config)).client(
        "s3",
        endpoint_url=config.endpoint_url,
        region_name=config.region or DEFAULT_REGION,
        aws_access_key_id=config.access_key_id,
        aws_secret_access_key=config.secret_access_key,
        config=Config(
            signature_version="s3v4",
            # "auto" would presign for AWS's global host instead of the region's own.
            s3={
                "addressing_style": "path" if config.endpoint_url else "virtual",
                "us_east_1_regional_endpoint": "regional",
            },
            # "when_supported" adds CRC32 headers that Backblaze B2 and others refuse (boto/boto3#4392); the sha256
            # in our metadata takes their place.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=50,
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 3},
        ),
    )


def _session(config: S3Config) -> botocore.session.Session:
    """A session that reads no AWS_* variable and no config file; AWS_CA_BUNDLE counts, as it does for all of boto3.

    Where `config` has no keys, an ordinary session finds the credentials: a role, a profile, a container's token.
    """
    isolated = {
        name: (None, None, default, conversion)
        for name, (_, _, default, conversion) in botocore.session.Session.SESSION_VARIABLES.items()
        if name != "ca_bundle"
    }
    isolated["config_file"] = isolated["credentials_file"] = (None, None, os.devnull, None)
    isolated["ignore_configured_endpoint_urls"] = (None, None, True, None)
    session = botocore.session.Session(session_vars=isolated)
    if config.access_key_id is None:
        ordinary = botocore.session.Session()
        session.register_component("credential_provider", ordinary.get_component("credential_provider"))
    return session


def _info(key: str, answer: Any) -> ObjectInfo:  # GetObjectOutput and HeadObjectOutput share no type
    return ObjectInfo(
        key=key,
        size_bytes=answer["ContentLength"],
        etag=answer["ETag"].strip('"'),
        last_modified=answer["LastModified"].astimezone(UTC),
        content_type=answer.get("ContentType", "application/octet-stream"),
        sha256=answer["Metadata"].get("sha256"),
    )
