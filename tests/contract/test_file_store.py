"""What every FileStore must do, asked of memory, of a directory and of a real S3 server."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve_app.errors import Conflict, InvalidRequest, ObjectNotFound, StorageDenied, StorageUnreachable
from serve_app.storage import DirectoryStore, MemoryStore, S3Config, S3Store
from serve_app.storage.streaming import BLOCK_BYTES
from tests.support.seaweedfs import SeaweedFS
from tests.support.wire import HalfBody, Refuse, WireProxy

KIND = "application/octet-stream"
BODY = bytes(range(256)) * 10_000  # 2.56 MB: more than two blocks
IN_PARTS = bytes(range(251)) * 70_000  # 17.6 MB: two parts at S3

Store = MemoryStore | DirectoryStore | S3Store


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(BODY)
    return path


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[WireProxy]:
    with WireProxy(seaweedfs.endpoint_url) as wire:
        yield wire


@pytest.mark.parametrize("body", [b"", b"RIFF", BODY, IN_PARTS], ids=["empty", "small", "blocks", "parts"])
def test_a_file_is_kept_as_put_would_keep_it(store: Store, prefix: str, tmp_path: Path, body: bytes) -> None:
    """Size, sha256, content type and etag are described at once and later, and get gives the bytes."""
    (tmp_path / "file").write_bytes(body)
    put = store.put_file(prefix + "a", tmp_path / "file", content_type=KIND)
    head = store.head(prefix + "a")
    assert (put.size_bytes, put.sha256, put.content_type) == (len(body), hashlib.sha256(body).hexdigest(), KIND)
    assert (head.size_bytes, head.sha256, head.content_type, head.etag) == (
        put.size_bytes, put.sha256, put.content_type, put.etag
    )  # fmt: skip
    assert store.get(prefix + "a").body == body
    assert b"".join(store.read(prefix + "a")) == body


def test_reading_streams_from_any_offset(store: Store, prefix: str, large: Path) -> None:
    """The bytes from the offset to the end and no others, however blocks fall."""
    store.put_file(prefix + "a", large, content_type=KIND)
    for start in (0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, len(BODY) - 1):
        assert b"".join(store.read(prefix + "a", start=start)) == BODY[start:]


@pytest.mark.parametrize("start", [len(BODY), len(BODY) + 1, -1])
def test_an_offset_where_no_byte_is_is_refused(store: Store, prefix: str, large: Path, start: int) -> None:
    """Neither silence nor the whole: whoever goes on with a file must know that its part is too long."""
    store.put_file(prefix + "a", large, content_type=KIND)
    with pytest.raises(InvalidRequest, match=prefix):
        b"".join(store.read(prefix + "a", start=start))


def test_reading_what_has_changed_is_refused(store: Store, prefix: str, large: Path) -> None:
    """With the etag of what was described, a replaced object is not read, from no offset."""
    described = store.put_file(prefix + "a", large, content_type=KIND)
    assert b"".join(store.read(prefix + "a", start=5, etag=described.etag)) == BODY[5:]
    store.put(prefix + "a", BODY[::-1], content_type=KIND)
    for start in (0, 5):
        with pytest.raises(Conflict, match="changed since"):
            b"".join(store.read(prefix + "a", start=start, etag=described.etag))


def test_what_is_not_there_is_not_found(store: Store, prefix: str, tmp_path: Path) -> None:
    """Reading names the key; a local file that is missing is an OSError, and nothing is written for it."""
    with pytest.raises(ObjectNotFound, match=prefix):
        b"".join(store.read(prefix + "nothing"))
    with pytest.raises(FileNotFoundError):
        store.put_file(prefix + "a", tmp_path / "nothing", content_type=KIND)
    assert store.list(prefix).items == []


def test_a_key_that_is_none_is_refused(store: Store, large: Path) -> None:
    """Both methods check keys as the other six do."""
    with pytest.raises(InvalidRequest, match="is not a key"):
        b"".join(store.read("../a"))
    with pytest.raises(InvalidRequest, match="is not a key"):
        store.put_file("../a", large, content_type=KIND)


def test_replacing_a_file_replaces_all_of_it(store: Store, prefix: str, large: Path, tmp_path: Path) -> None:
    """A shorter one leaves nothing of the longer one."""
    store.put_file(prefix + "a", large, content_type=KIND)
    (tmp_path / "short").write_bytes(b"short")
    store.put_file(prefix + "a", tmp_path / "short", content_type="text/plain")
    stored = store.get(prefix + "a")
    assert (stored.body, stored.info.content_type) == (b"short", "text/plain")


def test_a_stream_that_breaks_off_is_an_error(s3_config: S3Config, proxy: WireProxy, prefix: str, large: Path) -> None:
    """Half a body never ends as if it were whole."""
    store = S3Store(replace(s3_config, endpoint_url=proxy.url))
    store.put_file(prefix + "a", large, content_type=KIND)
    proxy.fault = lambda request: HalfBody() if request.method == "GET" else None
    read: list[bytes] = []
    with pytest.raises(StorageUnreachable):
        read.extend(store.read(prefix + "a"))
    assert BODY.startswith(b"".join(read))


def test_a_store_that_ignores_ranges_is_read_past_the_start(
    s3_config: S3Config, monkeypatch: pytest.MonkeyPatch, prefix: str, large: Path
) -> None:
    """What lies before the offset is dropped, as if the store had honoured it."""
    store = S3Store(s3_config)
    store.put_file(prefix + "a", large, content_type=KIND)
    client: Any = store._client()
    get = client.get_object
    monkeypatch.setattr(client, "get_object", lambda Range, **asked: get(**asked))  # noqa: N803  (boto3's name)
    assert b"".join(store.read(prefix + "a", start=BLOCK_BYTES + 7)) == BODY[BLOCK_BYTES + 7 :]


def test_a_refused_write_or_read_says_so(
    seaweedfs: SeaweedFS, s3_config: S3Config, proxy: WireProxy, prefix: str, large: Path
) -> None:
    """A 403 is StorageDenied, in parts or whole, and names the permission."""
    readonly = S3Store(seaweedfs.readonly_config(s3_config.bucket))
    with pytest.raises(StorageDenied, match="s3:PutObject"):
        readonly.put_file(prefix + "a", large, content_type=KIND)
    large.write_bytes(IN_PARTS)
    with pytest.raises(StorageDenied, match="s3:PutObject"):
        readonly.put_file(prefix + "a", large, content_type=KIND)
    proxy.fault = lambda request: Refuse(403, "AccessDenied")
    with pytest.raises(StorageDenied, match="s3:GetObject"):
        b"".join(S3Store(replace(s3_config, endpoint_url=proxy.url)).read(prefix + "a"))


def test_parts_carry_no_header_that_other_stores_refuse(
    s3_config: S3Config, proxy: WireProxy, prefix: str, tmp_path: Path
) -> None:
    """Of 17.6 MB two parts are written, without the CRC32 headers that Backblaze B2 answers with an error."""
    (tmp_path / "file").write_bytes(IN_PARTS)
    S3Store(replace(s3_config, endpoint_url=proxy.url)).put_file(prefix + "a", tmp_path / "file", content_type=KIND)
    assert sum("partNumber" in request.query for request in proxy.requests) == 2
    named = {name for request in proxy.requests for name in request.headers}
    assert [name for name in named if "checksum" in name or "crc32" in name] == []


def test_parts_that_fail_leave_no_object(s3_config: S3Config, proxy: WireProxy, prefix: str, tmp_path: Path) -> None:
    """Where the second part is refused, the upload is given up: no object, and no parts kept in the bucket."""
    (tmp_path / "file").write_bytes(IN_PARTS)
    proxy.fault = lambda request: Refuse(403, "AccessDenied") if "partNumber=2" in request.query else None
    store = S3Store(replace(s3_config, endpoint_url=proxy.url))
    with pytest.raises(StorageDenied):
        store.put_file(prefix + "a", tmp_path / "file", content_type=KIND)
    proxy.fault = None
    with pytest.raises(ObjectNotFound):
        store.head(prefix + "a")
    assert proxy.count("DELETE", prefix + "a") == 1
