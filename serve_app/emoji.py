"""Emoji, which are not spoken. The standard library has no property for them: after the blocks of Unicode's emoji-data.

Letters, digits, signs of currency, mathematics and music are none, and neither are © ® ™, which have words.
"""

import re

__all__ = ["without_emoji"]

_ALWAYS = (
    "\U0001f000-\U0001f0ff\U0001f10d-\U0001f10f\U0001f12f\U0001f16c-\U0001f171\U0001f17e\U0001f17f\U0001f18e"
    "\U0001f191-\U0001f19a\U0001f1ad-\U0001f265\U0001f300-\U0001faff"
    "\u231a\u231b\u2328\u23cf\u23e9-\u23f3\u23f8-\u23fa\u25fd\u25fe\u2600-\u2639\u263a-\u265f\u2660-\u266c\u2670-\u2775"
    "\u2794-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55"
)
_WITH_SELECTOR = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb\u25fc\u2934\u2935"
    "\u3030\u303d\u3297\u3299"
)
_ONE = f"(?:[{_ALWAYS}]\ufe0e?|[{_WITH_SELECTOR}](?=\ufe0f))[\ufe0f\u20e3\u200d\U000e0020-\U000e007f]*"
_EMOJI = re.compile(f"(?P<before> ?)(?:{_ONE})(?: ?(?:{_ONE}))*(?P<behind> ?)(?P<mark>(?=[.,;:!?…。，！？]))?")
_KEYCAP = re.compile("([0-9#*])\ufe0f?\u20e3")
_SELECTORS = re.compile("[\ufe0e\ufe0f\u20e3]|\u200d(?=[\u2640\u2642])")


def without_emoji(text: str) -> str:
    """`text` without its emoji, with one space where words stood on both sides; of a keycap its digit stays."""
    if text.isascii():
        return text
    text = _KEYCAP.sub(lambda keycap: keycap[1] if keycap[1].isdecimal() else " ", text)
    return _SELECTORS.sub("", _EMOJI.sub(_gap, text))


def _gap(found: re.Match[str]) -> str:
    if found["mark"] is not None:
        return ""
    begin, end = found.span()
    at_edge = begin == 0 or end == len(found.string) or found.string[begin - 1] == "\n" or found.string[end] == "\n"
    return "" if at_edge else " "
