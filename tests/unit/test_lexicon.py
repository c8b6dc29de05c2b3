"""The pronunciation lexicon: what is replaced, what is refused, and how it is kept."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app import keys
from serve_app.errors import InvalidRequest, ObjectCorrupt
from serve_app.lexicon import CACHED_S, Lexicons, applied, checked, joined
from serve_app.storage import MemoryStore, UrlSigner
from tests.support.jobs import Clock


@pytest.mark.parametrize(
    ("text", "entries", "expected"),
    [
        ("A GIF, a gif, GIFs and GIF's", {"GIF": "jif"}, "A jif, a gif, GIFs and jif's"),
        ("A GIF and a Gif", {"gif": "jif"}, "A jif and a jif"),
        ("New York City, New\nYork", {"New York": "NY", "New York City": "NYC"}, "NYC, NY"),
        ("a b c", {"a": "b", "b": "c"}, "b c c"),
        (
            "C++ and .NET and @me",
            {"C++": "see plus", ".NET": "dot net", "@me": "at me"},
            "see plus and dot net and at me",
        ),
        ("nginx nginx2 my_nginx nginx-x", {"nginx": "engine x"}, "engine x nginx2 my_nginx engine x-x"),
        ("我在重庆市", {"重庆": "崇庆"}, "我在崇庆市"),
        ("é e\u0301", {"e": "x"}, "é e\u0301"),
        ("Straße STRASSE", {"straße": "strasse"}, "strasse STRASSE"),
        ("हिन्दी हि", {"हि": "x"}, "हिन्दी x"),
        ("İstanbul ΟΔΟΣ", {"istanbul": "x", "οδος": "y"}, "x y"),
    ],
)
def test_whole_words_are_replaced(text: str, entries: dict[str, str], expected: str) -> None:
    """By case where the entry has a capital, the longest first, and no spelling again."""
    assert applied(text, tuple(entries.items())) == expected


@given(
    st.text(max_size=40),
    st.dictionaries(st.text("abAB é+重", min_size=1, max_size=4).filter(str.strip), st.just("q"), max_size=5),
)
def test_any_lexicon_applies_to_any_text(text: str, entries: dict[str, str]) -> None:
    """A text without the words of a lexicon is untouched, and nothing is raised."""
    lexicon = tuple((word.strip(), spelling) for word, spelling in entries.items())
    spoken = applied(text, lexicon)
    assert spoken == text or "q" in spoken


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({str(n): "x" for n in range(101)}, "lexicon has 101 entries, at most 100 .* PUT /v1/lexicon"),
        ({"": "x"}, "lexicon has the entry '', whose word has 0 characters: send 1 to 100"),
        ({"GIF": ""}, "lexicon has the entry 'GIF', whose spelling has 0 characters"),
        ({"x" * 101: "y"}, "whose word has 101 characters"),
        ({"GIF": "[pause:9]"}, "'GIF', whose spelling has a bracket"),
        ({"a\nb": "x"}, "a control character"),
        ({"a\ud800": "x"}, "half a character"),
        ({"GIF": "--"}, "'GIF', whose spelling has no letter or digit: send what is to be spoken"),
        ({"é": "x", "e\u0301": "y"}, "twice, written in two ways"),
    ],
)
def test_a_wrong_entry_is_refused(entries: dict[str, str], message: str) -> None:
    """The message names the field, the entry and the remedy."""
    with pytest.raises(InvalidRequest, match=message):
        checked(entries, field="lexicon", limit=100)


def test_entries_are_kept_in_nfc() -> None:
    """As the text is that they are looked for in."""
    assert checked({" e\u0301  x ": "y"}, field="lexicon", limit=100) == (("é x", "y"),)


def test_a_request_is_stronger_than_its_tenant() -> None:
    """For the same word, in whatever case."""
    assert joined((("gif", "a"), ("png", "b")), (("GIF", "c"),)) == (("GIF", "c"), ("png", "b"))


def test_lexicons_are_each_tenants_own() -> None:
    """Stored under one key, with the version of its form."""
    lexicons = Lexicons(store := MemoryStore(UrlSigner(b"k" * 32)))
    assert lexicons.get("acme") == ()
    assert lexicons.put("acme", {"GIF": "jif"}) == lexicons.get("acme") == (("GIF", "jif"),)
    assert lexicons.get("default") == ()
    stored = json.loads(store.get(keys.lexicon("acme")).body)
    assert stored == {"schema_version": 1, "entries": {"GIF": "jif"}}
    lexicons.delete("acme")
    assert (lexicons.get("acme"), Lexicons(store).get("acme")) == ((), ())


def test_what_another_process_stored_is_seen_after_five_seconds() -> None:
    """A lexicon is read at each acceptance, and the store must not be asked each time."""
    clock = Clock()
    store = MemoryStore(UrlSigner(b"k" * 32))
    here, there = Lexicons(store, clock), Lexicons(store, clock)
    assert here.get("acme") == ()
    there.put("acme", {"GIF": "jif"})
    clock.now += CACHED_S - 0.1
    assert here.get("acme") == ()
    clock.now += 0.2
    assert here.get("acme") == (("GIF", "jif"),)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"entries": 5}', b"{}"])
def test_what_is_no_lexicon_is_said_to_be_none(body: bytes) -> None:
    """With its key, and what to do."""
    store = MemoryStore(UrlSigner(b"k" * 32))
    store.put(keys.lexicon("acme"), body, content_type="application/json")
    with pytest.raises(ObjectCorrupt, match=r"tenants/acme/lexicon.v1.json is not a lexicon: .* PUT /v1/lexicon"):
        Lexicons(store).get("acme")
