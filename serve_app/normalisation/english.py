"""English: signs, money, dates, times, units and numbers as words, by rules in an order that each relies on.

    line -> abbreviations -> telephone numbers, addresses, versions -> dates -> money -> times -> ranges -> units
         -> fractions, powers, ordinals -> signs of mathematics -> numbers that are left -> other signs

Whatever no rule knows stays as it was written: letters' case, punctuation, contractions.
"""

import re
import unicodedata

from serve_app.normalisation.english_amounts import MONEY, UNIT, UNITS
from serve_app.normalisation.english_numbers import (
    ANY_NUMBER,
    NUMBER,
    cardinal,
    digits,
    fraction,
    is_year,
    number,
    ordinal,
    year,
)
from serve_app.normalisation.english_times import DATES, TIMES
from serve_app.normalisation.english_words import ABBREVIATIONS, MATHS, ROMANS, SIGNS
from serve_app.normalisation.rules import Rule, applied

__all__ = ["written_out"]

_FULL_WIDTH = str.maketrans("０１２３４５６７８９", "0123456789")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_TELEPHONE = re.compile(
    r"(?<![\w.-])(?:\+[0-9]{1,3}[ .-]?(?:\([0-9]{1,4}\) ?)?[0-9]{2,4}(?:[ .-][0-9]{2,4}){1,4}"
    r"|(?:1[ .-])?(?:\([0-9]{3}\) ?|[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}|[0-9]{3}-[0-9]{2}-[0-9]{4}"
    rf"|[0-9]{{3}}-[0-9]{{4}}(?! ?(?:{UNIT})(?!\w))"
    r"|[0-9]{1,5}(?:-[0-9]{1,7}){3,5}|[0-9]{4}(?:[ -][0-9]{4}){2,4}|0[0-9]{2,4} [0-9]{3,4} [0-9]{3,4})"
    r"(?![\w%]|[.,-][0-9])(?! ?[-–])"
)
_GROUP = re.compile("[0-9]+")
_ADDRESS = re.compile(r"(?<![\w.])([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::([0-9]{1,5}))?(?![\w])(?!\.[0-9])")
_VERSION = re.compile(r"(?<![0-9.])[0-9]{1,5}(?:\.[0-9]{1,5}){2,5}(?![0-9])(?!\.[0-9])")
_VERSION_LETTER = re.compile(r"\b[vV](?:er)?\.? ?(?=[0-9]+\.[0-9])")
_NAMED_VERSION = re.compile(r"(?i:\b(version|release)) ([0-9]{1,4})\.([1-9][0-9]{0,3})(?![0-9]|\.[0-9])")
_RANGE = re.compile(
    rf"(?<![\w./$£€+-])({NUMBER}(?:%|°)?)(?:[-–—]| – | - (?=[0-9.,]{{1,12}}%))"
    rf"({NUMBER})(?![0-9])(?![-–—./:,][0-9])(?!-[0-9A-Za-z])(?! ?=)"
)
_SET_PHRASES = {"24/7": "twenty four seven", "9/11": "nine eleven", "50/50": "fifty fifty"}
_SET_PHRASE = re.compile(r"(?<![\w/.])(?:24/7|9/11|50/50)(?![\w/])")
_VULGAR = re.compile("([0-9]?)([¼½¾⅐-⅞])")
_MIXED = re.compile(r"(?<![\w/.,])([0-9]{1,4}) ([0-9]{1,2})/([0-9]{1,3})(?![\w/])")
_FRACTION = re.compile(r"(?<![\w/.,])([0-9]{1,4})/([0-9]{1,4})(?![\w/]|[.,][0-9])")
_SCIENTIFIC = re.compile(rf"({NUMBER})[eE]([+-]?)([0-9]{{1,3}})(?!\w)")
_POWER = re.compile(r"(?<=[\w)])\^([-−]?)([0-9]{1,9})(?![\w])")
_SQUARE = re.compile("(?<=[A-Za-z0-9)])([²³])(?![⁰¹²³⁴⁵⁶⁷⁸⁹⁻])")
_SUPERSCRIPT = re.compile("(?<=[A-Za-z0-9)])[⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_SUBSCRIPT = re.compile("(?<=[A-Za-z)])[₀-₉]+")
_ORDINAL = re.compile(r"(?<![\w.,])([0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,15})(?:st|nd|rd|th|ST|ND|RD|TH)(?![A-Za-z])")
_HASH = re.compile(r"(?<![\w&#])#(?=[0-9])|№ ?(?=[0-9])")
_SIGNED = re.compile(r"(?<![\w)\]%\"'”’.-])[-−](?=[0-9]|\.[0-9])")
_POSITIVE = re.compile(r"(?<![\w+])\+(?=[0-9])")
_LEADING_POINT = re.compile(r"(?<![\w.])\.([0-9]+)(?![\w.])")
_YEAR = re.compile(r"(?<![\w.,$£€])([0-9]{4})(?![\w]|[.,][0-9])")
_BEFORE_DIGIT = re.compile(r"(?<=[^\W\d_])(?=[0-9])")
_BEHIND_DIGIT = re.compile(r"(?<=[0-9])(?=[^\W\d_])")
_NUMBER = re.compile(ANY_NUMBER)
_ANY_DIGIT = re.compile("[0-9]")
_TIMES_AS_FAST = re.compile(r"(?<=[0-9])[x×](?![\w])")


def _telephone(found: re.Match[str]) -> str:
    """Digit by digit, a comma between the groups."""
    plus = "plus " if found[0].startswith("+") else ""
    return plus + ", ".join(digits(group[0]) for group in _GROUP.finditer(found[0]))


def _address(found: re.Match[str]) -> str:
    """An IP address: "one nine two dot one six eight dot zero dot one"."""
    parts = " dot ".join(digits(part) for part in found[1].split("."))
    return parts + (f" colon {digits(found[2])}" if found[2] else "")


def _mixed(found: re.Match[str]) -> str:
    whole, numerator, denominator = map(int, found.groups())
    if numerator == 1 and denominator in (2, 4):
        return f"{cardinal(whole)} and a {'half' if denominator == 2 else 'quarter'}"
    return f"{cardinal(whole)} and {fraction(numerator, denominator)}"


def _vulgar(found: re.Match[str]) -> str:
    plain = unicodedata.normalize("NFKC", found[2]).replace("\u2044", "/")
    return f"{found[1]} {plain}" if found[1] else plain


def _power(sign: str, exponent: str) -> str:
    if not sign and exponent in ("2", "3"):
        return " squared" if exponent == "2" else " cubed"
    return f" to the power of {'minus ' if sign else ''}{number(exponent)}"


def _scientific(found: re.Match[str]) -> str:
    return f"{number(found[1])} times ten{_power(found[2].replace('+', ''), found[3])}"


def _superscript(found: re.Match[str]) -> str:
    written = found[0].translate(_SUPERSCRIPTS)
    return _power("-" if written.startswith("-") else "", written.lstrip("-"))


def _version(found: re.Match[str]) -> str:
    return " point ".join(number(part) for part in found[0].split("."))


NUMBERS: tuple[Rule, ...] = (
    (_VERSION_LETTER, "version "),
    (_NAMED_VERSION, lambda found: f"{found[1]} {number(found[2])} point {number(found[3])}"),
    (_TELEPHONE, _telephone),
    (_ADDRESS, _address),
)
POWERS: tuple[Rule, ...] = (
    (_SET_PHRASE, lambda found: _SET_PHRASES[found[0]]),
    (_MIXED, _mixed),
    (_FRACTION, lambda found: fraction(int(found[1]), int(found[2]))),
    (_ORDINAL, lambda found: ordinal(int(found[1].replace(",", "")))),
)
RAISED: tuple[Rule, ...] = (
    (_SQUARE, lambda found: " squared" if found[1] == "²" else " cubed"),
    (_SUPERSCRIPT, _superscript),
    (_POWER, lambda found: _power(found[1], found[2])),
    (_SUBSCRIPT, lambda found: found[0].translate(_SUBSCRIPTS)),
)
LEFT: tuple[Rule, ...] = (
    (_HASH, "number "),
    (_LEADING_POINT, lambda found: f"point {digits(found[1])}"),
    (_TIMES_AS_FAST, " x"),
    (_YEAR, lambda found: year(found[1]) if is_year(found[1]) else number(found[1])),
    (_BEFORE_DIGIT, " "),
    (_BEHIND_DIGIT, " "),
    (_NUMBER, lambda found: number(found[0])),
)
_IN_ORDER: tuple[Rule, ...] = (
    *NUMBERS, *DATES, (_VERSION, _version), *MONEY, *TIMES, (_VULGAR, _vulgar), (_RANGE, r"\1 to \2"),
    (_SIGNED, "minus "), (_POSITIVE, "plus "), (_SCIENTIFIC, _scientific), *UNITS, *MATHS, *POWERS, *RAISED, *LEFT,
)  # fmt: skip


def written_out(line: str) -> str:
    """`line` with its numbers, signs and common abbreviations as English words; line ends stay where they are."""
    line = applied(ROMANS, applied(ABBREVIATIONS, line.translate(_FULL_WIDTH)))
    if _ANY_DIGIT.search(line) or not line.isascii():
        line = applied(_IN_ORDER, line)
    return applied(SIGNS, line)
