"""Signed URLs for stores whose objects the ingress serves itself.

    key, expiry, filename -> HMAC-SHA256 -> path with query -> client -> `verify`

Also says what a key may be, since a path that a URL or a filesystem would rewrite names another object. Knows
nothing of HTTP servers or of stores.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from serve_app.errors import ConfigError, InvalidRequest, UrlRefused

__all__ = ["UrlSigner", "check_key", "is_key"]

MAX_KEY_BYTES = 1024
"""S3's limit."""


def check_key(key: str) -> str:
    """`key`, if every store can keep it. Raises InvalidRequest."""
    if not is_key(key):
        raise InvalidRequest(
            f"{key!r} is not a key: write a relative path of at most {MAX_KEY_BYTES} bytes without empty parts, "
            '".", "..", NUL or backslash'
        )
    return key


def is_key(key: str) -> bool:
    """Whether `key` is a relative POSIX path, 1 to 1,024 bytes of UTF-8, that no store and no URL rewrites."""
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:  # a lone surrogate, such as Python makes of a file name that is not UTF-8
        return False
    parts = key.split("/")
    rewritten = {"", ".", ".."}.intersection(parts) or {"\0", "\\"}.intersection(key)  # SeaweedFS reads \ as /
    return not rewritten and size_bytes <= MAX_KEY_BYTES


@dataclass(frozen=True)
class UrlSigner:
    """Makes and checks URL paths under `prefix`. Whoever has `key` can make them, so it is never shown.

    `now` is the wall clock in seconds since 1970. Raises ConfigError for an empty key.
    """

    key: bytes = field(repr=False)
    prefix: str = "/files/"
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if not self.key:
            raise ConfigError("the key that signs file URLs is empty: give it at least 32 random bytes")

    def sign(self, key: str, expires_s: int, filename: str) -> str:
        """A path with query that reads object `key` for `expires_s` seconds from now, saved as `filename`.

        Raises InvalidRequest for what is no key.
        """
        expires = str(int(self.now()) + expires_s)
        query = {"expires": expires, "filename": filename, "signature": self._signature(key, expires, filename)}
        return f"{self.prefix}{quote(check_key(key))}?{urlencode(query)}"

    def verify(self, key: str, expires: str, filename: str, signature: str) -> None:
        """Check the decoded parts of a signed URL. Raises UrlRefused: altered, or past its expiry."""
        expected = self._signature(key, expires, filename)
        if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
            raise UrlRefused(
                f"the signature of {key!r} does not match its path, expiry and filename: use the URL as the service "
                "gave it, or ask for a new one"
            )
        if int(expires) <= self.now():  # digits, since it is what `sign` signed
            moment = datetime.fromtimestamp(int(expires), UTC).isoformat()
            raise UrlRefused(f"the URL of {key!r} expired at {moment}: ask for a new one")

    def _signature(self, key: str, expires: str, filename: str) -> str:
        # JSON, since with a plain separator one field could end where another should begin.
        message = json.dumps([self.prefix + key, expires, filename]).encode()
        digest = hmac.digest(self.key, message, hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
