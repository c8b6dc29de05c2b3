"""URLs and e-mail addresses as they are said: host and path, without scheme, www, query and fragment."""

import re
from urllib.parse import unquote

__all__ = ["spoken_addresses", "without_addresses"]

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_TOP = "com|org|net|edu|gov|int|io|ai|dev|app|info|co|me|eu|us|uk|de|fr|es|it|nl|pl|pt|br|ru|cn|jp|kr|in|ca|au|ch|at|se"
_PATH = (
    r"(?:[/?#][^\s<>\"'”’`{}|\\^\[\]。，、！？（）()]{0,2000}(?:\([^\s()]{0,200}\)[^\s<>\"'”’`()。，、！？]{0,200})?)?"
)
_URL = re.compile(
    rf"(?i:(?<![A-Za-z0-9_])(?:https?|ftp|wss?)://(?:[^\s/@<>\"]{{1,100}}@)?|(?<![A-Za-z0-9_./@-])www\.)"
    rf"(?P<host>[^\s/?#<>\"'”’`()\[\]。，、！？（）]{{1,253}})"
    rf"(?P<path>{_PATH})"
)
_BARE = re.compile(
    rf"(?<![\w@./:-])(?P<host>(?:{_LABEL}\.){{1,4}}(?:{_TOP}))(?P<path>/(?:[^\s<>\"'”’`()\[\]。，、！？（）]{{0,500}})?)?(?![\w@-]|\.\w)"
)
_EMAIL = re.compile(
    rf"(?<![\w.+%-])(?:mailto:)?(?P<user>[A-Za-z0-9_](?:[A-Za-z0-9._%+-]{{0,62}}[A-Za-z0-9_])?)@(?P<host>(?:{_LABEL}\.){{1,6}}[A-Za-z]{{2,24}})(?![\w@-])"
)
_END = re.compile(r"[.,;:!?…*_~'’]+$")
_WORDS = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "~": "tilde", ":": "colon", "+": "plus", "@": "at",
    "%": "percent", "&": "and", "=": "equals",
}  # fmt: skip
_SIGN = re.compile(r"[./_~:+@%&=-]")
_NUMERIC_HOST = re.compile(r"[0-9.]+(?::[0-9]+)?")


def spoken_addresses(text: str, *, in_english: bool) -> str:
    """`text` with its addresses said: "example dot com slash a dash b", or "example.com/a-b" where not in English.

    A bare host counts where it ends in a common top-level domain, in lower case.
    """

    def said(address: str) -> str:
        return _said(address) if in_english else address

    def url(found: re.Match[str]) -> str:
        whole = found["host"] + (found["path"] or "")
        end = _END.search(whole)
        address = whole[: end.start()] if end else whole
        host_and_path = re.split("[?#]", address, maxsplit=1)[0].rstrip("/")
        return said(_decoded(host_and_path)) + (end[0] if end else "")

    if "." in text or "://" in text:
        text = _URL.sub(url, text)
        text = _EMAIL.sub(lambda found: said(f"{found['user']}@{found['host']}"), text)
        text = _BARE.sub(url, text)
    return text


def without_addresses(text: str) -> str:
    """`text` without what `spoken_addresses` would change: its letters say nothing of the text's language."""
    return _BARE.sub(" ", _URL.sub(" ", _EMAIL.sub(" ", text)))


def _decoded(address: str) -> str:
    """Without a leading www, and with the characters that %-signs stand for where they are readable."""
    address = re.sub("(?i)^www[.]", "", address)
    plain = unquote(address, errors="replace")
    return plain if plain.isprintable() and "\ufffd" not in plain else address


def _said(address: str) -> str:
    host, slash, path = address.partition("/")
    if _NUMERIC_HOST.fullmatch(host):  # an IP address: a number, which is not ours to read
        return host + (_in_words(slash + path) if slash else "")
    return _in_words(address).strip()


def _in_words(part: str) -> str:
    return re.sub(" +", " ", _SIGN.sub(lambda sign: f" {_WORDS[sign[0]]} ", part)).rstrip()
