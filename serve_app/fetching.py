"""Bytes behind a URL that a stranger names: not from our own network, and within limits of size and time.

    URL -> http or https, no credentials in it -> (process) every address of its host is public -> body, counted
        -> a redirect is checked as the URL was

The name is resolved once and the connection goes to the address that was checked (microsoft-antissrf), so that a name
cannot change its mind between the two. The process is not given our keys, and ends when its time is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from serve_app import isolated
from serve_app.errors import InvalidUrl, PayloadTooLarge
from serve_app.isolated import LimitExceeded, Limits

if TYPE_CHECKING:
    from requests import Session

__all__ = ["Fetcher", "UrlFetcher", "check_form", "open_session"]

SCHEMES = ("http", "https")
MAX_URL_CHARS = 2000
MAX_REDIRECTS = 5
TIMEOUT_S = 10.0
BLOCK = 64 * 1024
MEMORY_BYTES = 1024**3
SHOWN = 100


class Fetcher(Protocol):
    """Reads what is behind a URL. Blocks."""

    def fetch(self, url: str, *, field: str, max_bytes: int) -> bytes:
        """Raises InvalidUrl, naming `field`, or PayloadTooLarge."""
        ...


@dataclass(frozen=True, slots=True)
class UrlFetcher:
    """`seconds`: for the whole of it, redirects included. `allowed_addresses`: networks (CIDR) that may be read from
    though they are not public."""

    seconds: float = 30.0
    allowed_addresses: tuple[str, ...] = ()

    def fetch(self, url: str, *, field: str, max_bytes: int) -> bytes:
        """See Fetcher."""
        check_form(url, field)
        fields = {"url": url, "field": field, "max_bytes": max_bytes, "allowed": self.allowed_addresses}
        try:
            return isolated.run("serve_app.fetching:read", fields, b"", Limits(MEMORY_BYTES, self.seconds))[1]
        except LimitExceeded as error:
            raise InvalidUrl(
                f"{field} {url[:SHOWN]!r} could not be read within the limits ({error}): send the bytes as base64"
            ) from error


def check_form(url: str, field: str) -> None:
    """Raises InvalidUrl, naming `field`, for what is no http or https URL. Where its host leads is checked when it is
    connected to (`open_session`)."""
    try:
        parts = urlsplit(url)
        wrong = parts.scheme.lower() not in SCHEMES or not parts.hostname or parts.username or parts.password
        parts.port  # noqa: B018  # raises ValueError where it is none
    except ValueError:
        wrong = True
    if wrong or len(url) > MAX_URL_CHARS or any(c.isspace() or not c.isprintable() for c in url):
        raise InvalidUrl(
            f"{field} {url[:SHOWN]!r} is not a URL that is read: send http:// or https:// with a host, without a "
            f"password, of at most {MAX_URL_CHARS} characters"
        )


def read(fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
    """In the process: the body at `url`, of at most `max_bytes`. Raises InvalidUrl, PayloadTooLarge."""
    from AntiSSRF import AntiSSRFError
    from requests import RequestException

    url, field, shown = fields["url"], fields["field"], fields["url"][:SHOWN]
    try:
        return {}, _read(url, field, fields["max_bytes"], fields["allowed"])
    except AntiSSRFError as error:
        raise InvalidUrl(
            f"{field} {shown!r} is refused ({error}): name a host with public addresses, or send the bytes as base64"
        ) from error
    except (RequestException, OSError, UnicodeError, ValueError) as error:
        raise InvalidUrl(
            f"{field} {shown!r} could not be read ({type(error).__name__}): check that it answers, or send the "
            "bytes as base64"
        ) from error


def open_session(allowed: Sequence[str]) -> "Session":
    """Connects to public addresses only, and to networks (CIDR) that are `allowed`; anything else is AntiSSRFError. For
    use in the process: importing it takes a moment."""
    from AntiSSRF import AntiSSRFPolicy, PolicyConfigOptions

    policy = AntiSSRFPolicy(PolicyConfigOptions.EXTERNAL_ONLY_LATEST)
    policy.allow_plain_text_http = True
    policy.add_xff_header = False
    if allowed:
        policy.add_allowed_addresses(list(allowed))
    session: Session = policy.get_antissrf_session()
    session.trust_env = False  # a proxy would resolve the name again, and .netrc has passwords
    return session


def _read(url: str, field: str, max_bytes: int, allowed: Sequence[str]) -> bytes:
    session = open_session(allowed)
    session.max_redirects = MAX_REDIRECTS
    with session, session.get(url, stream=True, timeout=TIMEOUT_S, headers={"Accept-Encoding": "identity"}) as answer:
        if answer.status_code != 200:
            raise InvalidUrl(f"{field} {url[:SHOWN]!r} answers {answer.status_code}: send a URL that answers 200")
        stated = answer.headers.get("Content-Length", "")
        body = bytearray()
        if not (stated.isdigit() and int(stated) > max_bytes):
            for block in answer.iter_content(BLOCK):
                body += block
                if len(body) > max_bytes:
                    break
            else:
                return bytes(body)
    raise PayloadTooLarge(f"{field} {url[:SHOWN]!r} is over {max_bytes} bytes: send a shorter file")
