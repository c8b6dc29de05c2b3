"""Numbers as English words: amounts, ordinals, years, digit by digit, fractions.

wetext reads up to 999. Above that it takes four digits for a year ("1234" is "twelve thirty four") and "1,234" without
its "one", so here a number is read in groups of three.
"""

import re

from serve_app.normalisation.grammars import spoken

__all__ = ["ANY_NUMBER", "NUMBER", "cardinal", "digits", "fraction", "number", "ordinal", "plural", "year"]

ANY_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
NUMBER = rf"(?<![0-9])(?<![0-9][.,]){ANY_NUMBER}"
"""An amount as it is written, never one that begins inside another."""
MAX_DIGITS = 18
"""Of an amount; a longer number is read digit by digit."""

_SCALES = ("", " thousand", " million", " billion", " trillion", " quadrillion")
_DIGITS = dict(
    zip("0123456789", ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], strict=True)
)
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
YEARS = range(1100, 2100)


def digits(text: str) -> str:
    """Each digit of `text` as a word, other characters left out."""
    return " ".join(_DIGITS[character] for character in text if character in _DIGITS)


def cardinal(value: int) -> str:
    """One thousand two hundred and thirty four; below 10 ** 18."""
    if value < 1000:
        return spoken("en", str(value))
    groups, rest = [], value
    while rest:
        rest, group = divmod(rest, 1000)
        groups.append(group)
    words = [cardinal(group) + _SCALES[power] for power, group in reversed(list(enumerate(groups))) if group]
    if 0 < groups[0] < 100:
        words[-1] = f"and {words[-1]}"
    return " ".join(words)


def number(written: str) -> str:
    """Of an integer or decimal as it is written, "1,234.50"; leading zeros and very long ones digit by digit."""
    whole, _, decimals = written.replace(",", "").partition(".")
    long = len(whole) > MAX_DIGITS or (len(whole) > 1 and whole.startswith("0"))
    words = digits(whole) if long else cardinal(int(whole))
    return f"{words} point {digits(decimals)}" if decimals else words


def ordinal(value: int) -> str:
    """Twenty first, one hundredth."""
    before, separator, last = cardinal(value).rpartition(" ")
    word = _ORDINALS.get(last) or (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")
    return before + separator + word


def year(written: str) -> str:
    """Nineteen oh five, two thousand and five, twenty twenty four; what is no year of 1100 to 2099 as a number."""
    if len(written) != 4 or not written.isdecimal() or int(written) not in YEARS or 2000 <= int(written) < 2010:
        return number(written)
    century, rest = divmod(int(written), 100)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def plural(words: str) -> str:
    """Of a number's last word: thirties, hundreds, sixes."""
    if words.endswith("y"):
        return f"{words[:-1]}ies"
    return words + ("es" if words.endswith("x") else "s")


def fraction(numerator: int, denominator: int) -> str:
    """Three quarters; "over" where the parts have no name that is used."""
    if (denominator > 20 and denominator not in (50, 100, 1000)) or denominator < 2:
        return f"{cardinal(numerator)} over {cardinal(denominator)}"
    one = {2: "half", 4: "quarter"}.get(denominator) or ordinal(denominator)
    if numerator == 1:
        return f"one {one}"
    return f"{cardinal(numerator)} {'halves' if denominator == 2 else one + 's'}"


def is_year(written: str) -> bool:
    """Whether four digits are read as a year: "in 1999", but also "room 1204"."""
    return re.fullmatch("[0-9]{4}", written) is not None and int(written) in YEARS
