"""Chinese and Japanese: written forms that wetext falsifies are put in others that it reads right, then it reads.

line -> own rules (ranges, hyphens, digit strings) -> pieces without quotes or spaces -> wetext
"""

import re
from collections.abc import Callable

from serve_app.normalisation.grammars import GrammarLanguage, spoken
from serve_app.normalisation.languages import HAN, KANA
from serve_app.normalisation.rules import Rule, applied

__all__ = ["written_out_chinese", "written_out_japanese"]


MAX_PIECE = 120
"""Characters that wetext is given at once: its time grows with the square of a line without any mark."""
MAX_DIGITS = 16
"""Of a number that is read as an amount; a longer one is read digit by digit."""

_DIGIT_FORMS = str.maketrans("０１２３４５６７８９", "0123456789")
_ZH_DIGITS = dict(zip("0123456789", "零一二三四五六七八九", strict=True))
_JA_DIGITS = dict(zip("0123456789", ("ゼロ", *"一二三四五六七八九"), strict=True))

_CJK = f"{HAN}{KANA}"
_N = r"[0-9]+(?:\.[0-9]+)?"
_START = r"(?<![0-9A-Za-z])(?<![0-9][-./:,])"
_RANGE = re.compile(rf"{_START}({_N})(%?) ?[-–—~～〜] ?([$¥€£]?)({_N})(?![0-9]|[-./:][0-9])")
_WIDE_SIGN = re.compile("(?<=[0-9])[：．](?=[0-9])|(?<=[0-9])％|￥(?=[0-9])|[－＋](?=[0-9])")
_NARROW = str.maketrans("％：．￥－＋", "%:.¥-+")
_SPACE = re.compile(f"(?<=[{_CJK}]) (?=[0-9])|(?<=[0-9]) (?=[{_CJK}])")
_NAME_AND_NUMBER = re.compile("(?<=[A-Za-z])-(?=[0-9])")
_ORDINAL = re.compile(r"(?<![0-9A-Za-z.])([0-9]{1,6})(?:st|nd|rd|th)(?![A-Za-z])")
_DOTTED = re.compile(r"(?<![0-9.])[0-9]{1,5}(?:\.[0-9]{1,5}){2,5}(?![0-9])")
_TELEPHONE = re.compile(
    r"(?<![0-9A-Za-z])(?:\+[0-9]{1,3}(?:[ -][0-9]{2,5}){2,4}|1[0-9]{2}[ -][0-9]{4}[ -][0-9]{4}"
    r"|0[0-9]{1,4}-[0-9]{2,4}-[0-9]{4}|0[0-9]{2,3}-[0-9]{7,8}|400-[0-9]{3}-[0-9]{4})(?![0-9-])"
)
_TIMES = re.compile("([0-9]{1,2}:[0-9]{2}) ?[-–—~～〜] ?(?=[0-9]{1,2}:[0-9]{2})")
_TIME = re.compile("(?<![0-9:.])([0-9]{1,2}):([0-5][0-9])(?![0-9:])")
_LONG = re.compile(
    rf"(?<![0-9])(?<![0-9][.,:/-])(?:0[0-9]+|[0-9]{{{MAX_DIGITS + 1},}})(?![0-9年月日時时点分秒]|[.,:/-][0-9])"
)
_DATE = re.compile("(?<![0-9-])([12][0-9]{3})[-/](0?[1-9]|1[0-2])[-/](0?[1-9]|[12][0-9]|3[01])(?![0-9-])")
_BIG_MONEY = re.compile(rf"([¥$€£])({_N})([万萬亿億兆])(?!元|円)")
_MONEY_RANGE = re.compile(rf"([¥$€£])({_N}) ?[-–—~～〜] ?(?:\1)?({_N})(?![0-9.万萬亿億兆])")
_SCORE = re.compile(r"(?<=比分)([0-9]{1,3})[-–]([0-9]{1,3})(?![0-9])")
_DECADE = re.compile(r"(?<![0-9])([05-9][05])(?=后|後)")
_YEARS = re.compile(r"(?<![0-9.,])((?:19|20)[0-9]{2}) ?[-–—~～] ?((?:19|20)[0-9]{2})(?![0-9]|[-./:,年][0-9]?)")
_DEGREES = re.compile("(?<=[0-9]) ?(?:℃|°C)")
_BREAK = re.compile(r"""([\s"“”「」『』\\。！？；，、]+)""")

_CURRENCY_ZH = {"¥": "元", "$": "美元", "€": "欧元", "£": "英镑"}
_CURRENCY_JA = {"¥": "円", "$": "ドル", "€": "ユーロ", "£": "ポンド"}


def written_out_chinese(line: str) -> str:
    """`line` with its numbers in Chinese."""
    return _written_out(line, "zh", _ZH_RULES)


def written_out_japanese(line: str) -> str:
    """`line` with its numbers in Japanese. wetext's 〇, which is a written zero, is spoken as ゼロ."""
    return _written_out(line, "ja", _JA_RULES)


def _written_out(line: str, language: GrammarLanguage, rules: tuple[Rule, ...]) -> str:
    line = line.translate(_DIGIT_FORMS)
    if not any("0" <= character <= "9" for character in line):
        return line
    line = _WIDE_SIGN.sub(lambda sign: sign[0].translate(_NARROW), line)
    return "".join(_read(piece, language) for piece in _BREAK.split(applied(rules, line)))


def _read(piece: str, language: GrammarLanguage) -> str:
    if not any("0" <= character <= "9" for character in piece):
        return piece
    return "".join(_read_short(part, language) for part in _short(piece))


def _read_short(piece: str, language: GrammarLanguage) -> str:
    words = spoken(language, piece)
    return words if language == "zh" or "〇" in piece else words.replace("〇", "ゼロ")


def _short(piece: str) -> list[str]:
    """`piece` in parts of about MAX_PIECE characters, never divided at a digit."""
    parts, start = [], 0
    while len(piece) - start > MAX_PIECE:
        cut = start + MAX_PIECE
        while cut < len(piece) and not (piece[cut - 1].isalpha() and piece[cut].isalpha()):
            cut += 1
        parts.append(piece[start:cut])
        start = cut
    return [*parts, piece[start:]]


def _digits(names: dict[str, str], dot: str = "", gap: str = "") -> Callable[[re.Match[str]], str]:
    """Digit by digit, with a word for a full stop and a mark between groups."""
    signs = {".": dot, " ": gap, "-": gap, "+": ""}
    return lambda number: "".join(names.get(sign) or signs.get(sign, sign) for sign in number[0])


def _range(to: str) -> Callable[[re.Match[str]], str]:
    """Both ends with the percent sign that stands behind the second, so that neither is read as negative."""

    def replacement(found: re.Match[str]) -> str:
        first, percent, currency, second = found.groups()
        if found.string[found.end() : found.end() + 1] == "%":
            percent = "%"
        return f"{first}{percent}{to}{currency}{second}"

    return replacement


def _years(to: str) -> Callable[[re.Match[str]], str]:
    def replacement(found: re.Match[str]) -> str:
        first, last = ("".join(_ZH_DIGITS[digit] for digit in year) for year in found.groups())
        return f"{first}{to}{last}"

    return replacement


def _clock(found: re.Match[str]) -> str:
    """9:05 as 9時5分. wetext knows it with two digits of minutes from 10 on only."""
    minutes = int(found[2])
    return f"{int(found[1])}時{minutes}分" if minutes else f"{int(found[1])}時"


def _date(found: re.Match[str]) -> str:
    year, month, day = map(int, found.groups())
    return f"{year}年{month}月{day}日"


def _money_range(to: str, units: dict[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda found: f"{found[2]}{to}{found[3]}{units[found[1]]}"


def _big_money(units: dict[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda found: f"{found[2]}{found[3]}{units[found[1]]}"


_ZH_RULES: tuple[Rule, ...] = (
    (_SPACE, ""),
    (_DATE, _date),
    (_TELEPHONE, _digits(_ZH_DIGITS, gap="，")),
    (_DOTTED, _digits(_ZH_DIGITS, dot="点")),
    (_ORDINAL, r"第\1"),
    (_DECADE, _digits(_ZH_DIGITS)),
    (_SCORE, r"\1比\2"),
    (_TIMES, r"\1到"),
    (_YEARS, _years("到")),
    (_MONEY_RANGE, _money_range("到", _CURRENCY_ZH)),
    (_RANGE, _range("到")),
    (_NAME_AND_NUMBER, " "),
    (_BIG_MONEY, _big_money(_CURRENCY_ZH)),
    (_LONG, _digits(_ZH_DIGITS)),
)
_JA_RULES: tuple[Rule, ...] = (
    (_SPACE, ""),
    (_DATE, _date),
    (_TELEPHONE, _digits(_JA_DIGITS, gap="の")),
    (_DOTTED, _digits(_JA_DIGITS, dot="点")),
    (_ORDINAL, r"第\1"),
    (_TIMES, r"\1から"),
    (_TIME, _clock),
    (_MONEY_RANGE, _money_range("から", _CURRENCY_JA)),
    (_RANGE, _range("から")),
    (_NAME_AND_NUMBER, " "),
    (_DEGREES, "度"),
    (_BIG_MONEY, _big_money(_CURRENCY_JA)),
    (_LONG, _digits(_JA_DIGITS)),
)
