"""The end of a job, told to the URL that a client gave: one signed POST, not into our own network.

    body, id, time -> signed here -> (process) every address of the host is public -> POST -> status, the rest unread

Headers and signature are those of Standard Webhooks 1.0.0 (https://www.standardwebhooks.com), so that a receiver
verifies with a library that exists. The process is given the headers and never the secret. What a message says, when it
is due and whether it is tried again is not known here.
"""

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from serve_app import isolated
from serve_app.errors import ConfigError, InvalidUrl, Unavailable, WebhookFailed
from serve_app.fetching import check_form, open_session
from serve_app.isolated import LimitExceeded, Limits

__all__ = ["Sender", "WebhookSender", "secret_of", "signature"]

SECRET_PREFIX = "whsec_"
MIN_SECRET_BYTES = 16
MEMORY_BYTES = 1024**3
SHOWN = 100


class Sender(Protocol):
    """Takes a message to a URL. Blocks."""

    def send(self, url: str, body: bytes, *, message_id: str, timestamp: int) -> None:
        """`message_id` stays the same when a message is sent again; `timestamp` (Unix seconds) is of this attempt.

        Raises WebhookFailed unless the answer is a 2xx."""
        ...


@dataclass(frozen=True, slots=True)
class WebhookSender:
    """`seconds`: for the whole of it, the start of the process included. `allowed_addresses`: networks (CIDR) that may
    be posted to though they are not public."""

    secret: bytes = field(repr=False)
    seconds: float = 10.0
    allowed_addresses: tuple[str, ...] = ()

    def send(self, url: str, body: bytes, *, message_id: str, timestamp: int) -> None:
        """See Sender."""
        shown = _shown(url)
        try:
            check_form(url, "webhook")
        except InvalidUrl:
            raise WebhookFailed(
                f"webhook {shown!r} is not a URL that is posted to: give http:// or https:// with a host, without a "
                "password"
            ) from None  # the cause shows the query
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self.secret, message_id, timestamp, body),
        }
        fields = {"url": url, "headers": headers, "seconds": self.seconds, "allowed": self.allowed_addresses}
        try:
            answer = isolated.run("serve_app.webhooks:post", fields, body, Limits(MEMORY_BYTES, self.seconds))[0]
        except LimitExceeded as error:
            raise WebhookFailed(
                f"webhook {shown!r} gave no answer within the limits ({error}): answer first, work afterwards"
            ) from error
        except Unavailable as error:
            raise WebhookFailed(f"webhook {shown!r} was not sent ({error}): send it again") from error
        if trouble := _trouble(answer):
            raise WebhookFailed(f"webhook {shown!r} {trouble}")


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The webhook-signature header: HMAC-SHA256 of "{id}.{timestamp}.{body}" (Standard Webhooks, "Signature scheme").
    `message_id` has no full stop, or two messages could have one signature."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()


def secret_of(text: str) -> bytes:
    """The key behind `whsec_` and base64, as Standard Webhooks writes it; of any other text, its UTF-8 bytes.

    Raises ConfigError for fewer than 16 bytes, or what is no base64.
    """
    secret = text.encode()
    if text.startswith(SECRET_PREFIX):
        try:
            secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
        except ValueError as error:
            raise ConfigError(
                f"the webhook secret begins with {SECRET_PREFIX} and what follows is not base64: set it as it was made"
            ) from error
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(
            f"the webhook secret has {len(secret)} bytes, and at least {MIN_SECRET_BYTES} are needed: set "
            f"{SECRET_PREFIX} and the base64 of 32 random bytes"
        )
    return secret


def post(fields: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """In the process: {"status"} of the answer to a POST of `body`, or why there is none: {"refused"} or {"failed"}."""
    from AntiSSRF import AntiSSRFError
    from requests import Request, RequestException
    from urllib3.exceptions import HTTPError

    try:
        with open_session(fields["allowed"]) as session:
            request = session.prepare_request(Request("POST", fields["url"], headers=fields["headers"], data=body))
            # Not session.send: even where it follows no redirect it reads all of the redirect's body.
            adapter = session.get_adapter(fields["url"])
            with adapter.send(request, stream=True, timeout=fields["seconds"]) as answer:
                return {"status": answer.status_code}, b""
    except AntiSSRFError as error:
        return {"refused": str(error)}, b""
    except (RequestException, HTTPError, OSError, ValueError) as error:
        return {"failed": type(error).__name__}, b""


def _trouble(answer: Mapping[str, Any]) -> str:
    """What is wrong with an outcome of `post`, and the remedy; nothing for a 2xx."""
    if cause := answer.get("refused"):
        return f"is refused ({cause}): give a host with public addresses"
    if cause := answer.get("failed"):
        return f"did not answer ({cause}): check that it can be reached"
    status = answer["status"]
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"answers {status}, and redirects are not followed: give the URL that it leads to"
    return f"answers {status}: answer 200 when the message has arrived"


def _shown(url: str) -> str:
    """Without password, query and fragment: signatures and keys are there."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(malformed)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))[:SHOWN]
