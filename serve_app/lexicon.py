"""A pronunciation lexicon: words that are spoken as if they were spelled otherwise; each tenant's in the store.

    tenant's entries + request's entries -> joined -> applied to the text as the client wrote it

The functions are pure. `Lexicons` blocks on the store: async callers run it in a thread.
"""

import json
import re
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache

from cachetools import TTLCache

from serve_app import keys
from serve_app.errors import InvalidRequest, ObjectCorrupt, ObjectNotFound
from serve_app.storage import ObjectStore

__all__ = [
    "MAX_REQUEST_ENTRIES",
    "MAX_TENANT_ENTRIES",
    "Lexicon",
    "Lexicons",
    "applied",
    "checked",
    "joined",
    "relevant",
]

Lexicon = tuple[tuple[str, str], ...]
"""Words with their spellings; of two entries for one place in a text the longer wins, then the earlier."""

MAX_REQUEST_ENTRIES = 100
MAX_TENANT_ENTRIES = 1000
MAX_CHARS = 100
CACHED_S = 5.0
TENANTS = 1000
SCHEMA_VERSION = 1

# Scripts that set no space between words: a word may begin and end anywhere.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_TOKEN = re.compile(f"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\\w)+|[^\\w\\s]")
_SPACES = re.compile(r"\s+")


def checked(entries: Mapping[str, str], *, field: str, limit: int) -> Lexicon:
    """`entries` in NFC. Raises InvalidRequest that names `field`, the entry and the remedy."""
    if len(entries) > limit:
        raise InvalidRequest(
            f"{field} has {len(entries)} entries, at most {limit} are taken: leave some out"
            + (", or store them with PUT /v1/lexicon" if limit < MAX_TENANT_ENTRIES else "")
        )
    canonical: dict[str, str] = {}
    for word, spelling in entries.items():
        plain = _checked(word, "word", word, field)
        if plain in canonical:
            raise InvalidRequest(f"{field} has {word[:40]!r} twice, written in two ways: send it once")
        canonical[plain] = _checked(spelling, "spelling", word, field)
    return tuple(canonical.items())


def _checked(text: str, what: str, word: str, field: str) -> str:
    where = f"{field} has the entry {word[:40]!a}, whose {what}"
    if not 1 <= len(text) <= MAX_CHARS:
        raise InvalidRequest(f"{where} has {len(text)} characters: send 1 to {MAX_CHARS}")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in "[]" for character in text):
        raise InvalidRequest(f"{where} has a bracket, a control character or half a character: leave it out")
    plain = _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip()
    if not any(map(str.isalnum, plain)):
        raise InvalidRequest(f"{where} has no letter or digit: send what is to be spoken")
    return plain


def joined(tenant_lexicon: Lexicon, request_lexicon: Lexicon) -> Lexicon:
    """Both; a request's entry takes the place of the tenant's for the same word, however its case is."""
    own = {_folded(word) for word, _ in request_lexicon}
    return (*request_lexicon, *(entry for entry in tenant_lexicon if _folded(entry[0]) not in own))


def relevant(text: str, lexicon: Lexicon) -> Lexicon:
    """Those entries that may match somewhere in `text`."""
    folded = _folded(_SPACES.sub(" ", text))
    return tuple(entry for entry in lexicon if _folded(entry[0]) in folded)


def applied(text: str, lexicon: Lexicon) -> str:
    """`text` with whole words spelled as `lexicon` says; from left to right, and no spelling is looked at again.

    An entry with a capital letter matches this case alone, any other every case; its spaces match any whitespace.
    A word ends where no letter, digit, mark or underscore goes on, and anywhere in scripts without spaces.
    """
    return _searcher(lexicon)(text) if lexicon else text


@lru_cache(maxsize=32)
def _searcher(lexicon: Lexicon) -> Callable[[str], str]:
    return _Searcher(lexicon)


class _Searcher:
    """Entries by their first token, so that a long lexicon costs no more than a short one."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._by_token: dict[str, list[tuple[str, bool, str]]] = {}
        for word, spelling in sorted(lexicon, key=lambda entry: -len(entry[0])):
            exact = any(map(str.isupper, word))
            token = _TOKEN.match(_folded(word))
            assert token is not None, "checked() lets no word begin with a space"
            self._by_token.setdefault(token[0], []).append((word if exact else _folded(word), exact, spelling))

    def __call__(self, text: str) -> str:
        written, folded = re.sub(r"\s", " ", text), _folded(re.sub(r"\s", " ", text))
        parts, start = [], 0
        for token in _TOKEN.finditer(folded):
            at = token.start()
            if at < start or not _border(text, at):
                continue
            for word, exact, spelling in self._by_token.get(token[0], ()):
                if (written if exact else folded).startswith(word, at) and _border(text, at + len(word)):
                    parts += [text[start:at], spelling]
                    start = at + len(word)
                    break
        return "".join((*parts, text[start:]))


def _folded(text: str) -> str:
    """In lower case, each character for one."""
    return text.replace("\u0130", "i").lower().replace("ς", "σ")


def _border(text: str, at: int) -> bool:
    """Whether a word may begin or end at `at`."""
    if at in (0, len(text)):
        return True
    before, after = text[at - 1], text[at]
    if unicodedata.category(after).startswith("M"):
        return False
    if _IS_UNSPACED.match(before) or _IS_UNSPACED.match(after):
        return True
    return not (_in_word(before) and _in_word(after))


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")


class Lexicons:
    """Each tenant's own lexicon, read from the store at most once in 5 s of `clock`. Raises StorageError."""

    def __init__(self, store: ObjectStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._seen: TTLCache[str, Lexicon] = TTLCache(TENANTS, CACHED_S, clock)

    def get(self, tenant: str) -> Lexicon:
        """As it was at most 5 s ago; () where the tenant has stored none."""
        with self._lock:
            seen = self._seen.get(tenant)
        return self._keep(tenant, self._read(tenant)) if seen is None else seen

    def put(self, tenant: str, entries: Mapping[str, str]) -> Lexicon:
        """In place of what was there. Raises InvalidRequest. Other processes see it within 5 s."""
        lexicon = checked(entries, field="entries", limit=MAX_TENANT_ENTRIES)
        body = json.dumps({"schema_version": SCHEMA_VERSION, "entries": dict(lexicon)}, ensure_ascii=False)
        self._store.put(keys.lexicon(tenant), body.encode(), content_type="application/json")
        return self._keep(tenant, lexicon)

    def delete(self, tenant: str) -> None:
        """Nothing happens where there is none."""
        self._store.delete(keys.lexicon(tenant))
        self._keep(tenant, ())

    def _keep(self, tenant: str, lexicon: Lexicon) -> Lexicon:
        with self._lock:
            self._seen[tenant] = lexicon
        return lexicon

    def _read(self, tenant: str) -> Lexicon:
        key = keys.lexicon(tenant)
        try:
            body = self._store.get(key).body
        except ObjectNotFound:
            return ()
        try:
            return tuple((str(word), str(spelling)) for word, spelling in json.loads(body)["entries"].items())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ObjectCorrupt(f"{key} is not a lexicon: send it anew with PUT /v1/lexicon, or delete it") from error
