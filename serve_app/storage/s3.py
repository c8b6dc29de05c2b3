"""A store in a bucket of any S3-compatible service. Only S3Config decides which, never the ambient AWS_* variables.

method -> check of the key -> boto3 client (one per process) -> bucket
       <- our types, our errors, bytes checked against the sha256 in the object's metadata
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from urllib3.exceptions import HTTPError

from serve_app.errors import ConfigError, ObjectCorrupt, ObjectNotFound, StorageMisconfigured, StorageUnreachable
from serve_app.storage.protocol import ObjectInfo, Page, StoredObject
from serve_app.storage.s3_client import DEFAULT_REGION, S3Config, make_client
from serve_app.storage.s3_errors import BOTO_ERRORS, Attempt, storage_error
from serve_app.storage.signing import check_key
from serve_app.storage.streaming import BLOCK_BYTES, check_start

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["S3Config", "S3Store"]

READ_ATTEMPTS = 3
"""Of a body that is cut. boto3 retries until the headers are there, not beyond."""
CONDITION_ATTEMPTS = 5
"""Of a conditional write that meets another one (409), or an object that is gone before it can be compared."""
MAX_URL_EXPIRY_S = 7 * 24 * 3600
"""S3's limit for presigned URLs (signature version 4)."""
MIB = 1024 * 1024
IN_PARTS = TransferConfig(multipart_threshold=16 * MIB, multipart_chunksize=16 * MIB, use_threads=False)
"""One part after the other in the caller's thread: boto3's own threads would hold up the end of the process."""


class S3Store:
    """An ObjectStore, FileStore and ConditionalStore, safe for threads.

    Pickled as its config, so each process makes its own client.
    """

    def __init__(self, config: S3Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._made: S3Client | None = None

    def __reduce__(self) -> tuple[type["S3Store"], tuple[S3Config]]:
        return S3Store, (self._config,)

    def __repr__(self) -> str:
        return f"S3Store({self._config!r})"

    @property
    def bucket(self) -> str:
        return self._config.bucket

    def in_bucket(self, bucket: str) -> "S3Store":
        """Another bucket at the same endpoint, with the same credentials."""
        return S3Store(replace(self._config, bucket=bucket))

    def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        """See ObjectStore. The request's signature covers the body's sha256, so the store checks it on arrival."""
        with self._asking("write", check_key(key)) as client:
            return self._write(client, key, body, content_type)

    def put_new(self, key: str, body: bytes, *, content_type: str) -> bool:
        """See ConditionalStore. boto3 repeats a write whose reply is lost, and so meets its own object."""
        with self._asking("write", check_key(key)) as client:
            for _ in range(CONDITION_ATTEMPTS):
                try:
                    self._write(client, key, body, content_type, IfNoneMatch="*")
                    return True
                except ClientError as error:
                    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                    if status == 501:
                        raise StorageMisconfigured(
                            f'bucket "{self._config.bucket}" has no conditional writes (it answered 501 to '
                            f'If-None-Match for "{key}"): do without put_new, as conditions_hold tells beforehand'
                        ) from error
                    if status not in (409, 412):
                        raise
                if status == 412:
                    with suppress(ObjectNotFound), self._asking("read", key):  # deleted meanwhile: write again
                        return self._read_whole(client, key)[1] == body
        raise StorageUnreachable(
            f'"{key}" in bucket "{self._config.bucket}" was written or deleted by others at each of '
            f"{CONDITION_ATTEMPTS} attempts to write it where nothing is: try again later"
        )

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

    def read(self, key: str, *, start: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """See FileStore. Of a store that ignores ranges all is read, and what lies before `start` dropped."""
        check_start(key, min(start, 0), 0)  # S3 itself refuses only what is too far
        asked: dict[str, Any] = {"Range": f"bytes={start}-"} if start else {}
        if etag is not None:
            asked["IfMatch"] = f'"{etag}"'
        with self._asking("read", check_key(key)) as client:
            answer = client.get_object(Bucket=self._config.bucket, Key=key, **asked)
            drop = start if answer["ResponseMetadata"]["HTTPStatusCode"] == 200 else 0
            with closing(answer["Body"]) as body:
                for block in body.iter_chunks(BLOCK_BYTES):
                    kept, drop = block[drop:], max(0, drop - len(block))
                    if kept:
                        yield kept

    def put_file(self, key: str, path: Path, *, content_type: str) -> ObjectInfo:
        """See FileStore. From 16 MiB in parts, which a process that is killed may leave in the bucket unfinished."""
        with self._asking("write", check_key(key)) as client, path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            described = {"ContentType": content_type, "Metadata": {"sha256": sha256}}
            client.upload_fileobj(file, self._config.bucket, key, ExtraArgs=described, Config=IN_PARTS)
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

    def _write(self, client: "S3Client", key: str, body: bytes, content_type: str, **condition: Any) -> ObjectInfo:
        sha256 = hashlib.sha256(body).hexdigest()
        answer = client.put_object(
            Bucket=self._config.bucket,
            Key=key,
            Body=body,
            ContentType=content_type,
            Metadata={"sha256": sha256},
            **condition,
        )
        etag = answer["ETag"].strip('"')
        written = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        moment = parsedate_to_datetime(written) if written else datetime.now(UTC)
        return ObjectInfo(key, len(body), etag, moment.astimezone(UTC), content_type, sha256)

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
                    self._made = make_client(self._config)
                except ValueError as error:
                    raise StorageMisconfigured(
                        f"AWS_ENDPOINT_URL is {self._config.endpoint_url!r} and AWS_REGION {self._config.region!r}, "
                        f"which boto3 refuses: {error}; correct them"
                    ) from error
            return self._made


def _info(key: str, answer: Any) -> ObjectInfo:  # GetObjectOutput and HeadObjectOutput share no type
    return ObjectInfo(
        key=key,
        size_bytes=answer["ContentLength"],
        etag=answer["ETag"].strip('"'),
        last_modified=answer["LastModified"].astimezone(UTC),
        content_type=answer.get("ContentType", "application/octet-stream"),
        sha256=answer["Metadata"].get("sha256"),
    )
