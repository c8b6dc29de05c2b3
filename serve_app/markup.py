"""A text without its markdown: what a reader would see is spoken, what only a renderer needs is not.

    canonical text (`text.normalise`) -> fenced code kept apart -> lines (headings, lists, quotes, tables) -> inline

By expressions that leave alone what merely looks like markdown ("2 * 3 * 4", snake_case, C#, #1, 5 > 3) and all other
brackets, such as [pause:0.5]. Knows no HTML.
"""

import re
from collections.abc import Iterator

__all__ = ["without_markup"]

_FENCE = re.compile(r"(?:```|~~~)[^`\n]{0,100}")
_HEADING = re.compile(r"#{1,6} +(.*?)(?: +#+)?")
_UNDERLINE = re.compile(r"={3,}|-{3,}")
_RULE = re.compile(r"([-*_])(?: ?\1){2,}")
_QUOTE = re.compile(r"(?:> ?)+(?=\S|$)")
_ITEM = re.compile(r"[-*+•‣◦▪] +(?:\[[ xX]\] +)?(?=\S)")
_NUMBERED = re.compile(r"[0-9]{1,9}[.)] \S")
_DELIMITERS = re.compile(r"\|?(?: ?:?-+:? ?\|)+(?: ?:?-+:? ?)?")
_CELL_EDGE = re.compile(r"(?<!\\)\|")

_LINK = re.compile(
    r"!?\[(?!(?:pause|voice):)([^\[\]\n]{0,1000})\]\((?:<[^<>\n]{0,2000}>|[^\s()<>]{0,2000}(?:\([^\s()]{0,500}\)[^\s()]{0,500})?)"
    r"(?: (?:\"[^\"\n]{0,300}\"|'[^'\n]{0,300}'))?\)"
)
_AUTOLINK = re.compile(r"<((?:https?://|mailto:)[^\s<>]{1,2000}|[^\s<>@]{1,64}@[^\s<>@]{1,253})>")
_CODE = re.compile(r"(?<!`)(?:``(?!`)([^\n]{1,2000}?)(?<!`)``(?!`)|`(?!`)([^`\n]{1,2000})`(?!`))")
_STARS = re.compile(r"(?<![A-Za-z0-9_*\\])(\*{1,3})(?![\s*])([^*\n]{1,2000})(?<![\s*\\])\1(?![A-Za-z0-9_*])")
_UNDERSCORES = re.compile(r"(?<![\w\\])(_{1,3})(?![\s_])([^\n_](?:[^\n]{0,500}?[^\s\\_])?)\1(?!\w)")
_STRUCK = re.compile(r"(?<![~\w])~~(?![\s~])([^~\n]{1,2000})(?<!\s)~~(?!~)")
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+.!|<>~-])")

_FULL_STOPS = (("\u3040", "\u30ff", "。"), ("\u3400", "\u9fff", "。"), ("\u0900", "\u097f", "।"))


def without_markup(text: str) -> str:
    """`text`, which `text.normalise` returned, as it is read. Headings and rules become paragraphs of their own; a
    heading, list item or table row without a mark at its end gets a full stop, which is the pause that is seen."""
    return "\n".join(_lines(text.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    fence = ""
    table = False
    closed_at = {line.strip(): at for at, line in enumerate(lines) if line.strip() in ("```", "~~~")}
    for at, line in enumerate(lines):
        if fence:
            if line.strip() == fence:
                fence = ""
            else:
                yield line
            continue
        if _FENCE.fullmatch(line) and closed_at.get(line[:3], -1) > at:
            fence = line[:3]
            continue
        line = _QUOTE.sub("", line, count=1) if line.startswith(">") else line
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if _DELIMITERS.fullmatch(line) and table:
            continue
        table = "|" in line and (table or _DELIMITERS.fullmatch(following) is not None)
        if table:
            yield _stopped(_inline(_row(line)))
        elif _RULE.fullmatch(line) or (at and lines[at - 1] and _UNDERLINE.fullmatch(line)):
            yield "\n"
        elif line and _UNDERLINE.fullmatch(following) and not _ITEM.match(line):
            yield f"\n{_stopped(_inline(line))}"
        elif heading := _HEADING.fullmatch(line):
            yield f"\n{_stopped(_inline(heading[1]))}\n"
        elif item := _ITEM.match(line):
            yield _stopped(_inline(line[item.end() :]))
        elif _NUMBERED.match(line):
            yield _stopped(_inline(line))
        else:
            yield _inline(line)


def _row(line: str) -> str:
    cells = (cell.strip() for cell in _CELL_EDGE.split(line))
    return ", ".join(cell for cell in cells if cell)


def _stopped(line: str) -> str:
    """With a full stop of its script where it ends in a letter or digit; scripts that have none stay as they are."""
    end = line[-1:]
    if not end.isalnum():
        return line
    if end.isascii() or "\u00c0" <= end <= "\u052f" or "\uac00" <= end <= "\ud7a3":
        return f"{line}."
    return line + next((stop for first, last, stop in _FULL_STOPS if first <= end <= last), "")


def _inline(line: str) -> str:
    if not any(sign in line for sign in "*_`[<~\\"):
        return line
    line = _AUTOLINK.sub(r"\1", _LINK.sub(r"\1", line))
    for _ in range(2):  # one inside another
        line = _STARS.sub(r"\2", line)
    for _ in range(2):
        line = _UNDERSCORES.sub(r"\2", line)
    return _ESCAPED.sub(r"\1", _CODE.sub(lambda code: code[1] or code[2], _STRUCK.sub(r"\1", line)))
