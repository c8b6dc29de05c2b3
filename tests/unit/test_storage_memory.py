"""MemoryStore: what the contract suite cannot ask of every store."""

from datetime import UTC, datetime

from serve_app.storage import MemoryStore, UrlSigner


def test_the_clock_is_injected() -> None:
    """`last_modified` is what the given clock said at the time of the write, in all descriptions."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    store = MemoryStore(now=lambda: moment)
    store.put("a", b"x", content_type="text/plain")
    assert [store.head("a").last_modified, store.list("").items[0].last_modified] == [moment, moment]


def test_the_default_clock_is_in_utc() -> None:
    """Without a clock, times are of now and timezone-aware."""
    before = datetime.now(UTC)
    written = MemoryStore().put("a", b"", content_type="text/plain").last_modified
    assert before <= written <= datetime.now(UTC)


def test_two_stores_share_nothing() -> None:
    """Neither objects nor the key of signed URLs."""
    one, two = MemoryStore(), MemoryStore()
    one.put("a", b"x", content_type="text/plain")
    assert two.list("").items == []
    assert one.url("a", expires_s=10**9, filename="a") != two.url("a", expires_s=10**9, filename="a")


def test_a_given_signer_signs() -> None:
    """URLs verify with the signer that was passed in."""
    signer = UrlSigner(b"key", now=lambda: 0.0)
    assert MemoryStore(signer).url("a", expires_s=5, filename="f") == signer.sign("a", 5, "f")
