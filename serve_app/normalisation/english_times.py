"""Dates, years and times of day in English."""

import re

from serve_app.normalisation.english_numbers import cardinal, number, ordinal, plural, year
from serve_app.normalisation.rules import Rule

__all__ = ["DATES", "TIMES"]

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_BY_NAME = {name: name for name in _MONTHS} | {name[:3]: name for name in _MONTHS} | {"Sept": "September"}
_MONTH = "|".join(sorted(_BY_NAME, key=len, reverse=True))
_DAY = r"(?:0?[1-9]|[12][0-9]|3[01])"

_ISO = re.compile(rf"(?<![\w/-])([0-9]{{4}})([-/])(0?[1-9]|1[0-2])\2({_DAY})(?=T[0-9]|(?![\w/-]))T?")
_NUMERIC = re.compile(r"(?<![\w/.-])([0-9]{1,2})([/.])([0-9]{1,2})\2([0-9]{4}|[0-9]{2}(?![0-9.]))(?![\w/-]|\.[0-9])")
_MONTH_DAY = re.compile(
    rf"\b({_MONTH})\.? ({_DAY})(?:st|nd|rd|th)?(?![\w:%]|[.,][0-9])(?:(,?) ([12][0-9]{{3}})(?![\w:%]|[.,][0-9]))?"
)
_DAY_MONTH = re.compile(
    rf"(?<![\w.,:-])(the )?({_DAY})(?:st|nd|rd|th)? (of )?({_MONTH})\b(?:\.?(,?) ([12][0-9]{{3}})(?![\w:%]|[.,][0-9]))?"
)
_MONTH_YEAR = re.compile(rf"\b({_MONTH})\.?(,?) ([12][0-9]{{3}})(?![\w:%]|[.,][0-9])")
_MONTH_DAYS = re.compile(rf"\b((?:{_MONTH})\.? {_DAY})[-–]({_DAY})(?![\w-])")
_DECADE = re.compile(r"(?<![\w.,])([12][0-9]{2}0|[1-9]0|[1-9][0-9]{0,2})['’]?s\b")
_SHORT_DECADE = re.compile(r"(?<!\w)['’]([1-9]0)s\b")

_CLOCK = "(?:[01]?[0-9]|2[0-4])"
_DURATION = re.compile(r"(?<![\w:.])([0-9]{1,2}):([0-5][0-9]):([0-5][0-9])(Z)?(?![\w:])(?!\.[0-9])")
_TIME = re.compile(rf"(?<![\w:.])({_CLOCK}):([0-5][0-9])(?![0-9:])( ?[AaPp]\.?[Mm]\b\.?)?")
_HOUR = re.compile(rf"(?<![\w:.])({_CLOCK})( ?(?:[ap]m|[AP]M|[ap]\.m\.))(?![\w])")
_TIME_RANGE = re.compile(
    rf"(?<![\w:.])({_CLOCK}(?::[0-5][0-9])?(?: ?[AaPp]\.?[Mm]\.?)?) ?[-–—] ?"
    rf"(?={_CLOCK}(?::[0-5][0-9]| ?[ap]\.?m\b| ?[AP]M\b))"
)
_RATIO = re.compile(r"(?<![\w:.])([0-9]{1,3}):([0-9]{1,3})(?![\w:])")


def _spoken_date(day: int, month: int, written_year: str) -> str:
    if len(written_year) == 2:
        written_year = ("19" if int(written_year) > 30 else "20") + written_year
    return f"{_MONTHS[month - 1]} {ordinal(day)}, {year(written_year)}"


def _iso(found: re.Match[str]) -> str:
    return _spoken_date(int(found[4]), int(found[3]), found[1]) + (", " if found[0].endswith("T") else "")


def _numeric(found: re.Match[str]) -> str:
    """Month first, as Americans write with a slash; day first with full stops, or where the first is no month."""
    first, second = int(found[1]), int(found[3])
    day, month = (first, second) if found[2] == "." or first > 12 else (second, first)
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return found[0]
    return _spoken_date(day, month, found[4])


def _month_day(found: re.Match[str]) -> str:
    month, day, comma, written_year = found.groups()
    return f"{_BY_NAME[month]} {ordinal(int(day))}" + (f"{comma} {year(written_year)}" if written_year else "")


def _day_month(found: re.Match[str]) -> str:
    _, day, _, month, comma, written_year = found.groups()
    words = f"the {ordinal(int(day))} of {_BY_NAME[month]}"
    return words + (f"{comma} {year(written_year)}" if written_year else "")


def _decade(found: re.Match[str]) -> str:
    written = found[1]
    return plural(year(written) if len(written) == 4 else number(written))


def _of_day(hour: int, minutes: int, half: str | None) -> str:
    """Half past is "three thirty"; "3:00 pm" has no o'clock."""
    if minutes:
        words = f"{cardinal(hour)} {'oh ' if minutes < 10 else ''}{cardinal(minutes)}"
    else:
        words = cardinal(hour) if half else f"{cardinal(hour)} o'clock"
    if not half:
        return words
    half = half.strip()
    return f"{words} {half if '.' in half else half.upper()}"


def _seconds(found: re.Match[str]) -> str:
    hours, minutes, seconds = (int(found[index]) for index in (1, 2, 3))
    parts = ((hours, "hour"), (minutes, "minute"), (seconds, "second"))
    named = [f"{cardinal(value)} {name}{'' if value == 1 else 's'}" for value, name in parts if value] or [
        "zero seconds"
    ]
    words = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"{words} Z" if found[4] else words


DATES: tuple[Rule, ...] = (
    (_ISO, _iso),
    (_NUMERIC, _numeric),
    (_MONTH_DAYS, r"\1 to \2"),
    (_MONTH_DAY, _month_day),
    (_DAY_MONTH, _day_month),
    (_MONTH_YEAR, lambda found: f"{_BY_NAME[found[1]]}{found[2]} {year(found[3])}"),
    (_SHORT_DECADE, lambda found: plural(number(found[1]))),
    (_DECADE, _decade),
)
TIMES: tuple[Rule, ...] = (
    (_TIME_RANGE, r"\1 to "),
    (_DURATION, _seconds),
    (_TIME, lambda found: _of_day(int(found[1]), int(found[2]), found[3])),
    (_HOUR, lambda found: _of_day(int(found[1]), 0, found[2])),
    (_RATIO, lambda found: f"{number(found[1])} to {number(found[2])}"),
)
