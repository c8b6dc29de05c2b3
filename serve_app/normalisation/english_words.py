"""Abbreviations, Roman numerals and signs in English."""

import re

from serve_app.normalisation.english_numbers import cardinal, ordinal
from serve_app.normalisation.rules import Rule

__all__ = ["ABBREVIATIONS", "MATHS", "ROMANS", "SIGNS"]

_TITLES = {
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missus", "St": "Saint", "Prof": "Professor", "Gen": "General",
    "Col": "Colonel", "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant", "Rev": "Reverend", "Gov": "Governor",
    "Sen": "Senator", "Rep": "Representative", "Mt": "Mount", "Ft": "Fort",
}  # fmt: skip
_STREETS = {"St": "Street", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Dr": "Drive", "Ln": "Lane"}
_BEFORE_A_NUMBER = {
    "no": "number", "nos": "numbers", "vol": "volume", "vols": "volumes", "p": "page", "pp": "pages", "fig": "figure",
    "figs": "figures", "ch": "chapter", "sec": "section", "eq": "equation",
}  # fmt: skip
_ALWAYS = {
    "e.g.": "for example", "i.e.": "that is", "a.k.a.": "also known as", "vs.": "versus", "approx.": "approximately",
    "cf.": "compare", "dept.": "department",
}  # fmt: skip
_MAY_END = {
    "etc.": "et cetera", "jr.": "junior", "sr.": "senior", "inc.": "incorporated", "ltd.": "limited",
    "corp.": "corporation",
}  # fmt: skip


def _any_of(words: dict[str, str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_TITLE = re.compile(r"\b(?:(Dr|Mr|Mrs|St)\.?|(Prof|Gen|Col|Capt|Lt|Sgt|Rev|Gov|Sen|Rep|Mt|Ft)\.) (?=[A-Z]|and Mrs)")
# Of what stands behind a house's number or "on", St and Dr are no titles.
_ADDRESS_STREET = re.compile(
    r"(\b(?:[0-9]+[A-Za-z]?|on|at|from|near|along|down|off|across) (?:[A-Z][a-z]+|[0-9]+(?:st|nd|rd|th))) "
    r"(St|Dr)\b(?:\.(?= [a-z]))?"
    r"(?! [A-Z][a-z]+ (?:on|at|in)\b)"
)
_STREET = re.compile(rf"(?<=[a-z]) ({'|'.join(_STREETS)})\.(?! ?[A-Z])")
_NUMBERED = re.compile(rf"(?i:\b({_any_of(_BEFORE_A_NUMBER)})\.) ?(?=[0-9])")
_AN_ANSWER = re.compile(r"(?<![Tt]he )(?<!\bin )(?<!\bat )(?<!, )(?<!\()\bno\. ")
_PLAIN = re.compile(rf"(?i:(?<![\w.])({_any_of(_ALWAYS)}))(?!\w)")
_ENDING = re.compile(rf"(?i:(?<![\w.])({_any_of(_MAY_END)}))(?P<end>(?=[\"'”’)]*(?:$|\n| [\"'“‘(]?[A-Z])))?")


def _as_written(words: str, written: str) -> str:
    """With a capital where the abbreviation has one: it begins a sentence, or is part of a name."""
    return words[0].upper() + words[1:] if written[0].isupper() else words


def _ending(found: re.Match[str]) -> str:
    """The stop of an abbreviation that ends a sentence is the sentence's, too."""
    words = _as_written(_MAY_END[found[1].lower()], found[1])
    return words + ("." if found["end"] is not None else "")


def _street(found: re.Match[str]) -> str:
    ends = found.string[found.end() : found.end() + 1] in ("", "\n")
    return f" {_STREETS[found[1]]}{'.' if ends else ''}"


ABBREVIATIONS: tuple[Rule, ...] = (
    (_ADDRESS_STREET, lambda found: f"{found[1]} {_STREETS[found[2]]}"),
    (_STREET, _street),
    (_TITLE, lambda found: f"{_TITLES[found[1] or found[2]]} "),
    (_AN_ANSWER, "no.\u200b "),
    (_NUMBERED, lambda found: _as_written(_BEFORE_A_NUMBER[found[1].lower()], found[1]) + " "),
    (re.compile("\u200b"), ""),
    (_PLAIN, lambda found: _as_written(_ALWAYS[found[1].lower()], found[1])),
    (_ENDING, _ending),
)

_HEADS = (
    "Chapter|Part|Act|Scene|Volume|Vol|Book|War|Section|Article|Phase|Type|Title|Appendix|Stage|Level|Class|Figure|"
    "Table|Bowl|Episode|Grade|Psalm|Canto"
)
_RULERS = (
    "Henry|Louis|Elizabeth|George|Edward|Charles|William|Richard|James|Philip|Paul|Benedict|Pius|Leo|Nicholas|"
    "Alexander|Catherine|Peter|Frederick|Wilhelm|Napoleon|Ramses|Mary|Gregory|Innocent|Clement|Ivan|Otto|Carl|Gustav|"
    "Christian|Haakon|Felipe|Alfonso|Ferdinand|Franz|Joseph|Rama|Darius|Xerxes|Ptolemy|Urban|John"
)
_ROMAN = "(?=[IVXLC])(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
_SAID_OF_A_PART = "is|was|has|had|of|and|to|in|begins|ends|starts|the|will|shows|says"
_NUMBERED_ROMAN = re.compile(
    rf"\b((?:{_HEADS})) (?!I (?!(?:{_SAID_OF_A_PART})\b)[a-z])"
    rf"(?!(?:(?<=Type )|(?<=Class )|(?<=Appendix ))[LXVC]\b)({_ROMAN})(?![\w'’]|\.[A-Z])"
)
_RULER = re.compile(rf"\b((?:{_RULERS})) (?!I\b|V\b|X\b|L\b|C\b)({_ROMAN})(?![\w])")
_CAPITALISED_ROMAN = re.compile(
    r"\b([A-Z][a-z]+) ((?=[IVX]{2})(?!(?:IV|XX|XI)(?!\w))X{0,3}(?:IX|IV|V?I{0,3}))(?![\w'’])"
)
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}


def _roman(numeral: str) -> int:
    values = [_VALUES[letter] for letter in numeral]
    following = [*values[1:], 0]
    return sum(-value if value < after else value for value, after in zip(values, following, strict=True))


ROMANS: tuple[Rule, ...] = (
    (_NUMBERED_ROMAN, lambda found: f"{found[1]} {cardinal(_roman(found[2]))}"),
    (_RULER, lambda found: f"{found[1]} the {ordinal(_roman(found[2]))}"),
    (_CAPITALISED_ROMAN, lambda found: f"{found[1]} {cardinal(_roman(found[2]))}"),
)

_BEFORE, _BEHIND = r"(?<=[0-9)²³]) ?", r" ?(?=[-−]?[0-9(]|[a-z][²³^])"
MATHS: tuple[Rule, ...] = (
    (re.compile(rf"{_BEFORE}\+{_BEHIND}"), " plus "),
    (re.compile(rf"{_BEFORE}[*·]{_BEHIND}"), " times "),
    (re.compile(rf"{_BEFORE}[x×]{_BEHIND}(?=[0-9.]{{1,20}} ?=)"), " times "),
    (re.compile(rf"{_BEFORE}[x×]{_BEHIND}"), " by "),
    (re.compile(rf"{_BEFORE}÷{_BEHIND}"), " divided by "),
    (re.compile(r"(?<=[0-9)]) ?[-−] ?(?=[0-9(][0-9 +*/().×÷−-]{0,80}=)"), " minus "),
    (re.compile(r"(?<=[\w)²³]) ?= ?(?=[-−]?[\w($£€])"), " equals "),
    (re.compile(r"(?<=[\w)%]) ?≠ ?"), " is not equal to "),
    (re.compile(r"(?<=[0-9)%]) ?(?:≤|<=) ?(?=[-−]?[0-9])"), " less than or equal to "),
    (re.compile(r"(?<=[0-9)%]) ?(?:≥|>=) ?(?=[-−]?[0-9])"), " greater than or equal to "),
    (re.compile(r"(?<=[0-9)%]) < (?=[-−]?[0-9])"), " less than "),
    (re.compile(r"(?<=[0-9)%]) > (?=[-−]?[0-9])"), " greater than "),
    (re.compile(r"(?<![\w<])≤ ?(?=[0-9$£€])"), "at most "),
    (re.compile(r"(?<![\w>])≥ ?(?=[0-9$£€])"), "at least "),
    (re.compile(r"(?<![\w<])< ?(?=[0-9$£€])"), "less than "),
    (re.compile(r"(?<![\w>])> ?(?=[0-9$£€])"), "more than "),
    (re.compile(r" ?± ?(?=[0-9])"), " plus or minus "),
    (re.compile(r"(?<!\w)[~≈] ?(?=[0-9$£€])"), "about "),
)
SIGNS: tuple[Rule, ...] = (
    (re.compile(r"(?<=\w) ?& ?(?=\w)"), " and "),
    (re.compile(r"\b([A-Za-z])\+\+(?![\w+])"), r"\1 plus plus"),
    (re.compile(r"\b([A-G])[#♯](?![\w#])"), r"\1 sharp"),
    (re.compile(r"(?<![\w/])w/o (?=\w)"), "without "),
    (re.compile(r"(?<![\w/])w/ ?(?=[A-Za-z])"), "with "),
    (re.compile(r"(?<![\w@])@(?=\w)"), "at "),
)
