"""Signed URLs: what was signed verifies, anything else does not."""

import pickle
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from serve_app.errors import ConfigError, InvalidRequest, UrlRefused
from serve_app.storage import UrlSigner

SIGNED_AT = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.time = SIGNED_AT

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signer(clock: Clock) -> UrlSigner:
    return UrlSigner(b"0123456789abcdef0123456789abcdef", now=clock)


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query, keep_blank_values=True).items()}


def test_a_signed_url_is_a_path_that_verifies(signer: UrlSigner) -> None:
    """It is a path under the prefix with expiry, filename and signature, and verifies as it was signed."""
    url = signer.sign("audio/ä b.wav", 60, "Ä & b.wav")
    query = query_of(url)
    assert unquote(urlsplit(url).path) == "/files/audio/ä b.wav"
    assert (query["expires"], query["filename"]) == ("1700000060", "Ä & b.wav")
    assert sorted(query) == ["expires", "filename", "signature"]
    signer.verify("audio/ä b.wav", **query)


def test_the_signature_is_hmac_sha256(signer: UrlSigner) -> None:
    """A fixed key and moment give this signature, so that URLs outlive a release."""
    assert query_of(signer.sign("a", 60, "b.wav"))["signature"] == "eZVrsoCbRYzqvxchhNyqq-DTOEKki2WxuTEe6g32Q0g"


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("key", "audio/b.wav"),
        ("key", "audio/a.wav/../b.wav"),
        ("expires", "1700000061"),
        ("expires", "01700000060"),
        ("expires", "never"),
        ("expires", ""),
        ("filename", "b.wav"),
        ("filename", ""),
        ("signature", ""),
        ("signature", "ä"),
        ("signature", "\udcff"),
        ("signature", "A" * 43),
    ],
)
def test_an_altered_url_is_refused(signer: UrlSigner, part: str, value: str) -> None:
    """Changing any one part, also to what cannot be parsed, is UrlRefused and nothing else."""
    parts = {"key": "audio/a.wav", **query_of(signer.sign("audio/a.wav", 60, "a.wav"))}
    signer.verify(**parts)
    with pytest.raises(UrlRefused, match="does not match"):
        signer.verify(**{**parts, part: value})


def test_fields_cannot_be_shifted_into_each_other(signer: UrlSigner) -> None:
    """Text that moves from one signed field to the next changes the signature."""
    signature = query_of(signer.sign('a", "1', 60, "f"))["signature"]
    with pytest.raises(UrlRefused):
        signer.verify("a", '1", "1700000060', "f", signature)


def test_a_url_ends_at_its_expiry(signer: UrlSigner, clock: Clock) -> None:
    """It reads until the last moment, and from the expiry on it is refused with the time in the message."""
    query = query_of(signer.sign("a", 60, "b.wav"))
    clock.time = SIGNED_AT + 59.9
    signer.verify("a", **query)
    clock.time = SIGNED_AT + 60
    with pytest.raises(UrlRefused, match=r"expired at 2023-11-14T22:14:20\+00:00"):
        signer.verify("a", **query)


@pytest.mark.parametrize("other", [UrlSigner(b"another key"), UrlSigner(b"0123456789abcdef0123456789abcdef", "/v2/")])
def test_another_key_or_prefix_makes_another_signature(signer: UrlSigner, other: UrlSigner) -> None:
    """A URL is good only for the key and the route that it was signed for."""
    query = query_of(signer.sign("a", 10**9, "b.wav"))
    with pytest.raises(UrlRefused, match="does not match"):
        other.verify("a", **query)


def test_it_crosses_processes_and_keeps_its_key_to_itself() -> None:
    """A pickled signer signs the same, and its repr does not show the key."""
    signer = UrlSigner(b"very secret")
    copy = pickle.loads(pickle.dumps(signer))
    copy.verify("a", **query_of(signer.sign("a", 60, "b.wav")))
    assert "very secret" not in repr(signer)


def test_an_empty_key_and_a_key_that_urls_rewrite_are_refused(signer: UrlSigner) -> None:
    """Nothing is signed with an empty secret, nor for a path that a client would normalise to another."""
    with pytest.raises(ConfigError, match="is empty"):
        UrlSigner(b"")
    with pytest.raises(InvalidRequest, match="is not a key"):
        signer.sign("audio/../secret", 60, "a")
