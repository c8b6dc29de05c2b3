"""S3Store on a wire that misbehaves, and what a start says when a setting is wrong: against a real S3 server."""

import gc
import hashlib
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from botocore.compat import get_current_datetime

from serve_app.errors import (
    ObjectCorrupt,
    ObjectNotFound,
    ServiceError,
    StorageDenied,
    StorageMisconfigured,
    StorageUnreachable,
)
from serve_app.storage import S3Config, S3Store, probe
from tests.support.seaweedfs import SeaweedFS
from tests.support.wire import CutAnswer, Fault, FlipBit, HalfBody, Refuse, WireProxy, WireRequest

BODY = bytes(range(256)) * 40


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[WireProxy]:
    with WireProxy(seaweedfs.endpoint_url) as wire:
        yield wire


@pytest.fixture
def store(s3_config: S3Config, proxy: WireProxy) -> S3Store:
    return S3Store(replace(s3_config, endpoint_url=proxy.url))


@pytest.fixture
def key(store: S3Store, proxy: WireProxy, prefix: str) -> str:
    """An object with BODY, written before any fault; the wire's record starts empty behind it."""
    store.put(prefix + "a.wav", BODY, content_type="audio/wav")
    proxy.requests.clear()
    return prefix + "a.wav"


def inject(proxy: WireProxy, *faults: Fault | None, then: Fault | None = None) -> None:
    """Give each next request the next of `faults`, and `then` to all after them."""
    waiting = list(faults)

    def next_fault(request: WireRequest) -> Fault | None:
        return waiting.pop(0) if waiting else then

    proxy.fault = next_fault


def message_of(error: type[ServiceError], call: Callable[[], object]) -> str:
    """The message of the error, of exactly this class, that `call` raises."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    return caught.value.message


def test_a_flipped_bit_is_corrupt(store: S3Store, proxy: WireProxy, key: str) -> None:
    """Bytes that changed on the way are never handed out."""
    inject(proxy, then=FlipBit())
    with pytest.raises(ObjectCorrupt, match=hashlib.sha256(BODY).hexdigest()):
        store.get(key)


def test_an_object_of_others_is_read_unchecked(
    store: S3Store, seaweedfs: SeaweedFS, s3_config: S3Config, key: str
) -> None:
    """What was written without our sha256, as the worker did that this service replaces, is accepted."""
    seaweedfs.client().put_object(Bucket=s3_config.bucket, Key=key, Body=b"by hand")
    stored = store.get(key)
    assert (stored.body, stored.info.sha256) == (b"by hand", None)


def test_a_cut_body_is_read_again(store: S3Store, proxy: WireProxy, key: str) -> None:
    """Two cut bodies cost two more requests, and the third brings all bytes."""
    inject(proxy, HalfBody(), HalfBody())
    assert store.get(key).body == BODY
    assert proxy.count("GET", key) == 3


def test_a_body_that_is_always_cut_is_unreachable(store: S3Store, proxy: WireProxy, key: str) -> None:
    """Reading is given up after three bodies, with an error and not with half an object."""
    inject(proxy, then=HalfBody())
    with pytest.raises(StorageUnreachable, match="does not answer"):
        store.get(key)
    assert proxy.count("GET", key) == 3


@pytest.mark.parametrize("method", ["get", "head", "put", "list", "delete"])
def test_403_is_denied_and_never_not_found(store: S3Store, proxy: WireProxy, key: str, method: str) -> None:
    """Every method tells a refusal from a missing object, at once: 403 is not retried."""
    inject(proxy, then=Refuse(403, "AccessDenied"))
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: store.get(key),
        "head": lambda: store.head(key),
        "put": lambda: store.put(key, BODY, content_type="audio/wav"),
        "list": lambda: store.list(key),
        "delete": lambda: store.delete(key),
    }
    with pytest.raises(StorageDenied, match="AWS_ACCESS_KEY_ID"):
        calls[method]()
    assert [request.status for request in proxy.requests] == [403]


@pytest.mark.parametrize(
    ("status", "code", "error", "says"),
    [
        (403, "download_cap_exceeded", StorageDenied, "caps"),
        (404, "NoSuchKey", ObjectNotFound, "no object"),
        (404, "NoSuchBucket", StorageMisconfigured, "S3_BUCKET names"),
        (403, "ExpiredToken", StorageMisconfigured, "have expired"),
        (400, "AuthorizationHeaderMalformed", StorageMisconfigured, 'AWS_REGION is "us-east-1"'),
        (501, "NotImplemented", StorageMisconfigured, "check AWS_ENDPOINT_URL"),
    ],
)
def test_errors_are_told_apart_by_code(
    store: S3Store, proxy: WireProxy, key: str, status: int, code: str, error: type[ServiceError], says: str
) -> None:
    """The error code decides the class, not the status alone; none of these is retried."""
    inject(proxy, then=Refuse(status, code))
    assert says in message_of(error, lambda: store.get(key))
    assert len(proxy.requests) == 1


def test_what_does_not_speak_s3_is_misconfigured(store: S3Store, proxy: WireProxy, key: str) -> None:
    """200 without an ETag, as any web server answers, points at the endpoint, and leaves no connection open."""
    inject(proxy, then=Refuse(200, "a web page"))
    message = message_of(StorageMisconfigured, lambda: store.get(key))
    assert "does not speak S3" in message
    assert message.endswith("correct AWS_ENDPOINT_URL")
    gc.collect()  # an answer that was not read to its end would now warn of its open socket


def test_a_store_that_stays_busy_is_unreachable(store: S3Store, proxy: WireProxy, key: str) -> None:
    """503 is tried three times and then reported as such."""
    inject(proxy, then=Refuse(503, "SlowDown"))
    with pytest.raises(StorageUnreachable, match="503 SlowDown"):
        store.get(key)
    assert [request.status for request in proxy.requests] == [503] * 3


def test_a_busy_moment_is_waited_out(store: S3Store, proxy: WireProxy, key: str) -> None:
    """One 503 and one connection cut before its answer leave no trace in the result."""
    inject(proxy, Refuse(503, "SlowDown"), CutAnswer())
    assert store.get(key).body == BODY
    assert [request.status for request in proxy.requests] == [503, None, 200]


def test_a_put_whose_answer_is_lost_is_repeated(store: S3Store, proxy: WireProxy, key: str) -> None:
    """The second of two equal writes is harmless, and its answer counts."""
    inject(proxy, CutAnswer(forward=True))
    store.put(key, b"new", content_type="audio/wav")
    assert store.get(key).body == b"new"
    assert proxy.count("PUT", key) == 2


def test_a_put_carries_no_checksum_headers(
    monkeypatch: pytest.MonkeyPatch, s3_config: S3Config, proxy: WireProxy, prefix: str
) -> None:
    """Headers that Backblaze B2 refuses are absent even if the environment asks; the signature covers the digest."""
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    store = S3Store(replace(s3_config, endpoint_url=proxy.url))
    store.put(prefix + "a", BODY, content_type="audio/wav")
    (request,) = proxy.requests
    assert [name for name in request.headers if "checksum" in name or name == "x-amz-trailer"] == []
    assert request.headers["x-amz-content-sha256"] == hashlib.sha256(BODY).hexdigest()
    assert request.headers["x-amz-meta-sha256"] == hashlib.sha256(BODY).hexdigest()


def refused_start(config: S3Config, error: type[ServiceError]) -> str:
    """The message that ends a start with `config`."""
    return message_of(error, lambda: probe(S3Store(config)))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"access_key_id": "unknown"}, "403 InvalidAccessKeyId: it does not know the key in AWS_ACCESS_KEY_ID"),
        ({"secret_access_key": "wrong"}, "403 SignatureDoesNotMatch: AWS_SECRET_ACCESS_KEY does not belong"),
        ({"bucket": "not-there"}, "404 NoSuchBucket: S3_BUCKET names a bucket that is not there"),
    ],
)
def test_probe_names_the_wrong_setting(s3_config: S3Config, wrong: dict[str, str], says: str) -> None:
    """The store's answer to a wrong key id, secret or bucket is told with the variable that holds it."""
    assert says in refused_start(replace(s3_config, **wrong), StorageMisconfigured)


def test_probe_names_a_wrong_clock(monkeypatch: pytest.MonkeyPatch, s3_config: S3Config) -> None:
    """Requests signed an hour ahead point at this machine's clock, with both times."""
    right = get_current_datetime
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *args: right(*args) + timedelta(hours=1))
    message = refused_start(s3_config, StorageMisconfigured)
    said = re.search(r"403 RequestTimeTooSkewed: this machine's clock says (.+) UTC, the store's (.+ GMT);", message)
    assert said is not None
    here = datetime.strptime(said[1], "%Y-%m-%d %H:%M:%S")
    there = datetime.strptime(said[2], "%a, %d %b %Y %H:%M:%S GMT")
    assert abs(here - there) < timedelta(minutes=5)


def test_probe_names_a_missing_permission(seaweedfs: SeaweedFS, s3_config: S3Config) -> None:
    """A key that may read and list only is told which permission writing needs."""
    message = refused_start(seaweedfs.readonly_config(s3_config.bucket), StorageDenied)
    assert "refused to write" in message
    assert "s3:PutObject" in message


@pytest.mark.parametrize(
    ("method", "on_object", "verb", "permission"),
    [
        ("HEAD", True, "read", "s3:GetObject"),
        ("GET", True, "read", "s3:GetObject"),
        ("GET", False, "list", "s3:ListBucket"),
        ("DELETE", True, "delete", "s3:DeleteObject"),
    ],
)
def test_probe_names_each_permission(
    store: S3Store, proxy: WireProxy, method: str, on_object: bool, verb: str, permission: str
) -> None:
    """Whichever operation is refused is the one in the message; an object that could be deleted is not left."""

    def refuse(request: WireRequest) -> Fault | None:
        asked = request.method == method and (".probe/" in request.path) == on_object
        return Refuse(403, "AccessDenied") if asked else None

    proxy.fault = refuse
    message = message_of(StorageDenied, lambda: probe(store))
    assert f"refused to {verb} " in message
    assert permission in message
    assert proxy.count("DELETE", ".probe/") == 1


def test_probe_names_an_endpoint_where_nothing_listens(s3_config: S3Config) -> None:
    """A refused connection points at AWS_ENDPOINT_URL, with its value."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        message = refused_start(replace(s3_config, endpoint_url=url), StorageUnreachable)
    assert url in message
    assert "check AWS_ENDPOINT_URL" in message
