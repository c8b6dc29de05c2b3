"""Money, units and percent in English."""

import re

from serve_app.normalisation.english_numbers import NUMBER, cardinal, number
from serve_app.normalisation.grammars import spoken
from serve_app.normalisation.rules import Rule

__all__ = ["MONEY", "UNIT", "UNITS"]

# Singular and plural of the whole and of its hundredth.
_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", None, None),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", None, None),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
    "₺": ("lira", "lira", "kurush", "kurush"),
    "₪": ("shekel", "shekels", "agora", "agorot"),
    "₿": ("bitcoin", "bitcoins", None, None),
}
_DOLLARS = {
    "US": "US", "A": "Australian", "AU": "Australian", "C": "Canadian", "CA": "Canadian", "NZ": "New Zealand",
    "HK": "Hong Kong", "S": "Singapore",
}  # fmt: skip
_SCALES = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "tn": "trillion"}
_SIGNS = "".join(_CURRENCIES)
_SCALE = r"(?: ?(hundred|thousand|million|billion|trillion)\b|(?: ?(bn|mn|tn)|([kKmMbB]))(?![\w]))"
_MONEY = re.compile(
    rf"(?P<minus>(?<!\w)[-−])?(?:(?<![A-Za-z])(?P<dollars>{'|'.join(_DOLLARS)}))?(?P<sign>[{_SIGNS}]) ?"
    rf"(?P<minus2>[-−])?(?P<first>{NUMBER}){_SCALE}?"
    rf"(?:(?:[-–—]| [-–—] ?(?=[{_SIGNS}]))(?P<again>[{_SIGNS}])?(?P<second>{NUMBER}){_SCALE}?)?(?![0-9])"
    r"(?P<per>/(?=[A-Za-z]))?"
)
_MONEY_BEHIND = re.compile(rf"(?<![\w$£€])(?P<first>{NUMBER}) ?(?P<sign>[{_SIGNS}])(?![\w{_SIGNS}])")
_CENTS = re.compile(rf"({NUMBER}) ?¢")
_ONE = re.compile(r"\b[Aa]n?[ \n]$")

# What wetext reads right; it has the words for one of them and for more.
_WETEXT_UNITS = (
    "kg", "g", "mg", "km", "cm", "mm", "nm", "μm", "ft", "yd", "mi", "lb", "lbs", "oz", "ml", "ms", "min", "Hz", "MHz",
    "GHz", "MB", "GB", "TB", "KB", "Mbps", "kW", "mph", "rpm", "ha",
)  # fmt: skip
_OWN_UNITS = {
    "m": ("meter", "meters"),
    "µm": ("micrometer", "micrometers"),
    "µs": ("microsecond", "microseconds"),
    "hPa": ("hectopascal", "hectopascals"),
    "kPa": ("kilopascal", "kilopascals"),
    "m³": ("cubic meter", "cubic meters"),
    "cm²": ("square centimeter", "square centimeters"),
    "cm³": ("cubic centimeter", "cubic centimeters"),
    "kHz": ("kilohertz", "kilohertz"),
    "kWh": ("kilowatt hour", "kilowatt hours"),
    "MWh": ("megawatt hour", "megawatt hours"),
    "MW": ("megawatt", "megawatts"),
    "GW": ("gigawatt", "gigawatts"),
    "W": ("watt", "watts"),
    "V": ("volt", "volts"),
    "mAh": ("milliamp hour", "milliamp hours"),
    "dB": ("decibel", "decibels"),
    "kB": ("kilobyte", "kilobytes"),
    "Gbps": ("gigabit per second", "gigabits per second"),
    "kbps": ("kilobit per second", "kilobits per second"),
    "L": ("liter", "liters"),
    "l": ("liter", "liters"),
    "mL": ("milliliter", "milliliters"),
    "kcal": ("kilocalorie", "kilocalories"),
    "psi": ("pound per square inch", "pounds per square inch"),
    "fps": ("frame per second", "frames per second"),
    "px": ("pixel", "pixels"),
    "h": ("hour", "hours"),
    "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"),
    "mins": ("minute", "minutes"),
    "sec": ("second", "seconds"),
    "secs": ("second", "seconds"),
    "s": ("second", "seconds"),
    "km²": ("square kilometer", "square kilometers"),
    "m²": ("square meter", "square meters"),
}
UNIT = "|".join(sorted({*_WETEXT_UNITS, *_OWN_UNITS}, key=len, reverse=True))
_MEASURE = re.compile(
    rf"(?<![\w$£€¥^])({NUMBER})(?!(?<=,[0-9]{{3}})s\b)(?: |-(?!s\b|m\b))?({UNIT})(?:/({UNIT}))?(?![\w²³'’])"
)
_PERCENT = re.compile(rf"({NUMBER}) ?([%‰])")
_DEGREES = re.compile(rf"({NUMBER}) ?(?:°|º)(?: ?([CF])(?![A-Za-z]))?")
_SIGN_DEGREES = re.compile(rf"({NUMBER}) ?([℃℉])")
_FEET_AND_INCHES = re.compile(r"(?<![\w'])([0-9]{1,2})['′] ?([0-9]|1[01])(?:\"|″|''|(?![\w.,'’]))")
_FEET_IN = re.compile(r"(?<=[0-9] ft )([0-9]{1,2}) in\b")
_DEGREE_RANGE = re.compile(rf"({NUMBER})°(?= to [0-9.]+ ?°)")


def _unit(symbol: str) -> tuple[str, str]:
    own = _OWN_UNITS.get(symbol)
    if own:
        return own
    return spoken("en", f"1 {symbol}").removeprefix("one "), spoken("en", f"2 {symbol}").removeprefix("two ")


def _is_one(written: str) -> bool:
    return written.replace(",", "") == "1"


def _measure(found: re.Match[str]) -> str:
    amount, unit, per = found.groups()
    words = _unit(unit)[0 if _is_one(amount) or _ONE.search(found.string[: found.start()][-3:]) else 1]
    return f"{number(amount)} {words}" + (f" per {_unit(per)[0]}" if per else "")


def _money(found: re.Match[str]) -> str:
    groups = found.groupdict()

    first_scale, second_scale = _scale_of(found, "first"), _scale_of(found, "second")
    minus = "minus " if groups["minus"] or groups["minus2"] else ""
    kind = groups["dollars"]
    adjective = _ONE.search(found.string[max(0, found.start() - 3) : found.start()]) is not None
    first, second = groups["first"], groups["second"]
    sign = groups["sign"]
    behind = " per " if groups["per"] else ""
    if second is None:
        return minus + _amount(sign, kind, first, first_scale, adjective) + behind
    if groups["again"]:
        words = _amount(sign, kind, first, first_scale, adjective)
        return f"{minus}{words} to {_amount(groups['again'], kind, second, second_scale, adjective)}{behind}"
    scale = f" {first_scale}" if first_scale and first_scale != second_scale else ""
    return f"{minus}{number(first)}{scale} to {_amount(sign, kind, second, second_scale, adjective)}{behind}"


def _scale_of(found: re.Match[str], which: str) -> str:
    begin, end = found.span(which)
    if begin < 0:
        return ""
    behind = re.match(_SCALE, found.string[end : end + 12])
    written = next((group for group in behind.groups() if group), "") if behind else ""
    return _SCALES.get(written.lower(), written)


def _amount(sign: str, kind: str | None, written: str, scale: str, adjective: bool) -> str:
    one, more, hundredth, hundredths = _CURRENCIES[sign]
    prefix = f"{_DOLLARS[kind]} " if kind else ""
    if scale:
        return f"{number(written)} {scale} {prefix}{one if adjective else more}"
    whole, _, decimals = written.replace(",", "").partition(".")
    if hundredth is None or len(decimals) != 2:
        return f"{number(written)} {prefix}{one if adjective or whole + decimals == '1' else more}"
    cents = int(decimals)
    small = f"{cardinal(cents)} {hundredth if cents == 1 or adjective else hundredths}"
    if int(whole) == 0 and cents:
        return small
    large = f"{number(whole)} {prefix}{one if whole == '1' or adjective else more}"
    return f"{large} and {small}" if cents else large


def _money_behind(found: re.Match[str]) -> str:
    return _amount(found["sign"], None, found["first"], "", False)


def _cents(found: re.Match[str]) -> str:
    return f"{number(found[1])} {'cent' if _is_one(found[1]) else 'cents'}"


def _percent(found: re.Match[str]) -> str:
    return f"{number(found[1])} {'percent' if found[2] == '%' else 'per mille'}"


def _degrees(found: re.Match[str]) -> str:
    scale = {"C": " Celsius", "℃": " Celsius", "F": " Fahrenheit", "℉": " Fahrenheit"}.get(found[2] or "", "")
    return f"{number(found[1])} {'degree' if _is_one(found[1]) else 'degrees'}{scale}"


def _height(found: re.Match[str]) -> str:
    feet, inches = int(found[1]), int(found[2])
    return (
        f"{cardinal(feet)} {'foot' if feet == 1 else 'feet'} {cardinal(inches)} {'inch' if inches == 1 else 'inches'}"
    )


_LEADING_POINT = re.compile(rf"(?<=[{_SIGNS}])\.(?=[0-9])")
MONEY: tuple[Rule, ...] = ((_LEADING_POINT, "0."), (_MONEY, _money), (_MONEY_BEHIND, _money_behind), (_CENTS, _cents))
UNITS: tuple[Rule, ...] = (
    (_FEET_AND_INCHES, _height),
    (_FEET_IN, lambda found: f"{cardinal(int(found[1]))} {'inch' if found[1] == '1' else 'inches'}"),
    (_DEGREE_RANGE, lambda found: number(found[1])),
    (_SIGN_DEGREES, _degrees),
    (_DEGREES, _degrees),
    (_PERCENT, _percent),
    (_MEASURE, _measure),
)
