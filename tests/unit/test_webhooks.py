"""Webhooks without a network: signatures, secrets, what a child process is told, and what becomes of its answer."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from serve_app import isolated
from serve_app.errors import ConfigError, Unavailable, WebhookFailed
from serve_app.isolated import LimitExceeded, Limits
from serve_app.webhooks import WebhookSender, secret_of, signature

SECRET = b"a secret of more than 16 bytes"
URL = "https://example.com/hook?token=hidden#also"


class Child:
    """Stands in for the process: keeps what it was given and answers as told."""

    def __init__(self, outcome: dict[str, Any] | Exception) -> None:
        self.outcome = outcome
        self.given: list[tuple[str, Mapping[str, Any], bytes, Limits]] = []

    def run(self, function: str, fields: Mapping[str, Any], data: bytes, limits: Limits) -> tuple[Any, bytes]:
        self.given.append((function, fields, data, limits))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome, b""


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any] | Exception], Child]:
    def answering(outcome: dict[str, Any] | Exception) -> Child:
        made = Child(outcome)
        monkeypatch.setattr(isolated, "run", made.run)
        return made

    return answering


def test_a_signature_is_that_of_the_reference_libraries():
    """The vector that Standard Webhooks tests its own libraries with (libraries/python/tests/test_webhooks.py)."""
    key = secret_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signature_covers_id_time_and_body_as_they_are():
    """Bytes that are no text are signed too."""
    digest = hmac.new(SECRET, b"job-1.1700000000.\xff\x00\n", hashlib.sha256).digest()
    assert signature(SECRET, "job-1", 1700000000, b"\xff\x00\n") == "v1," + base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("whsec_" + base64.b64encode(bytes(range(16))).decode(), bytes(range(16))),
        ("whsec_" + base64.b64encode(b"\xfb\xff" * 16).decode(), b"\xfb\xff" * 16),
        ("0123456789abcdef", b"0123456789abcdef"),
        ("ключ ключ", "ключ ключ".encode()),
    ],
)
def test_a_secret_is_base64_behind_its_prefix_or_plain_text(text: str, secret: bytes):
    """16 bytes are enough, and bytes are counted, not characters."""
    assert secret_of(text) == secret


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has 0 bytes"),
        ("0123456789abcde", "has 15 bytes"),
        ("whsec_" + base64.b64encode(bytes(15)).decode(), "has 15 bytes"),
        ("whsec_", "has 0 bytes"),
        ("whsec_not base64, however long it is", "is not base64"),
        ("whsec_" + base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode(), "is not base64"),
        ("whsec_ключключключключ", "is not base64"),
    ],
)
def test_a_short_or_garbled_secret_is_refused(text: str, words: str):
    """ConfigError says what is wrong and does not show the secret."""
    with pytest.raises(ConfigError, match=words) as error:
        secret_of(text)
    assert not text.removeprefix("whsec_") or text.removeprefix("whsec_") not in error.value.message


def test_the_secret_is_not_shown():
    """Neither as bytes nor as the text that they came from."""
    assert repr(WebhookSender(SECRET)) == "WebhookSender(seconds=10.0, allowed_addresses=())"


def test_the_child_is_given_the_headers_and_not_the_secret(child: Callable[[Any], Child]):
    """The body goes as bytes, beside the signature of it."""
    made = child({"status": 200})
    WebhookSender(SECRET, 7, ("10.0.0.0/8",)).send(URL, b'{"id": 1}', message_id="job-1", timestamp=1700000000)
    headers = {
        "content-type": "application/json",
        "webhook-id": "job-1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": signature(SECRET, "job-1", 1700000000, b'{"id": 1}'),
    }
    [(function, fields, data, limits)] = made.given
    assert (function, data, limits.seconds) == ("serve_app.webhooks:post", b'{"id": 1}', 7)
    assert fields == {"url": URL, "headers": headers, "seconds": 7, "allowed": ("10.0.0.0/8",)}
    told = json.dumps(fields)
    assert [form for form in (SECRET.decode(), SECRET.hex(), base64.b64encode(SECRET).decode()) if form in told] == []


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_every_2xx_is_success(child: Callable[[Any], Child], status: int):
    """As Standard Webhooks has it."""
    child({"status": status})
    assert WebhookSender(SECRET).send(URL, b"{}", message_id="1", timestamp=1) is None


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ({"status": 199}, "answers 199: answer 200"),
        ({"status": 300}, "answers 300, and redirects are not followed: give the URL"),
        ({"status": 399}, "answers 399, and redirects are not followed: give the URL"),
        ({"status": 400}, "answers 400: answer 200"),
        ({"status": 503}, "answers 503: answer 200"),
        ({"refused": "denied"}, r"is refused \(denied\): give a host"),
        ({"failed": "SSLError"}, r"did not answer \(SSLError\): check"),
        (LimitExceeded("took more than 10 s"), r"within the limits \(took more than 10 s\): answer first"),
        (Unavailable("killed"), r"was not sent \(killed\): send it again"),
    ],
)
def test_anything_else_is_a_failure(child: Callable[[Any], Child], outcome: dict[str, Any] | Exception, words: str):
    """The message names the URL without its query, what was wrong and what to do."""
    child(outcome)
    with pytest.raises(WebhookFailed, match=words) as error:
        WebhookSender(SECRET).send(URL, b"{}", message_id="1", timestamp=1)
    assert error.value.message.startswith("webhook 'https://example.com/hook' ")
    assert "hidden" not in error.value.message
    assert "also" not in error.value.message


def test_a_defect_is_not_called_a_failed_webhook(child: Callable[[Any], Child]):
    """What the child did not expect is raised as it is."""
    child(RuntimeError("serve_app.webhooks:post failed: KeyError"))
    with pytest.raises(RuntimeError, match="KeyError"):
        WebhookSender(SECRET).send(URL, b"{}", message_id="1", timestamp=1)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ftp://example.com/hook?token=hidden", "'ftp://example.com/hook'"),
        ("https://user:hidden@example.com/hook", "'https://example.com/hook'"),
        ("http://[::1/hidden", r"'\(malformed\)'"),
        ("https:///hook?hidden", "'https:///hook'"),
        ("https://example.com/a b?hidden", "'https://example.com/a b'"),
        ("https://example.com/" + "a" * 100 + "hidden" * 400, "'https://example.com/a{80}'"),
    ],
)
def test_a_malformed_url_starts_no_child(child: Callable[[Any], Child], url: str, shown: str):
    """The message, and the traceback that a log may print, are without password and query."""
    made = child({"status": 200})
    with pytest.raises(WebhookFailed, match=f"^webhook {shown} is not a URL that is posted to") as error:
        WebhookSender(SECRET).send(url, b"{}", message_id="1", timestamp=1)
    assert made.given == []
    assert "hidden" not in error.value.message
    assert (error.value.__cause__, error.value.__suppress_context__) == (None, True)
