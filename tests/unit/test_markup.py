"""Markdown, addresses and emoji: what a reader sees is spoken, and what only looks like them is left alone."""

import pytest

from serve_app.emoji import without_emoji
from serve_app.markup import without_markup
from serve_app.text import normalise
from serve_app.web_addresses import spoken_addresses, without_addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A title\nText", "A title.\n\nText"),
        ("## Why? ##\nText", "Why?\n\nText"),
        ("Title\n===\nText", "Title.\n\nText"),
        ("**a** *b* ***c*** __d__ _e_ ~~f~~", "a b c d e f"),
        ("**a *b* c** and `code` ``co`de``", "a b c and code co`de"),
        ("这是**重点**内容", "这是重点内容"),
        ("- milk\n* 2 eggs.\n+ [ ] tea\n• rice!", "milk.\n2 eggs.\ntea.\nrice!"),
        ("- 牛奶\n- दूध\n- ข้าว", "牛奶。\nदूध।\nข้าว"),
        ("1. Mix\n2) Bake", "1. Mix.\n2) Bake."),
        ("[a `b`](https://c.d/e_(f) \"g\") ![h](i.png)![](j.png)", "a b h"),
        ("<https://a.b> <c@d.ef>", "https://a.b c@d.ef"),
        ("> a\n> > b", "a\nb"),
        ("a\n---\nb\n\n* * *\nc", "a.\n\nb\n\nc"),
        ("| a | b |\n|---|:-:|\n| c | |\n| d \\| e |\n\n|f|", "a, b.\nc.\nd | e.\n\n|f|"),
        ("```py\n# x = *a*\n- b\n```\nc", "# x = *a*\n- b\nc"),
        ("```\nnot closed", "```\nnot closed"),
        (r"\*a\* 1\. b", "*a* 1. b"),
    ],
)  # fmt: skip
def test_markdown(text: str, expected: str) -> None:
    """Signs go, words stay, in lines and paragraphs as they are seen; an item ends as a sentence does."""
    assert normalise(without_markup(normalise(text))) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2 * 3 * 4", "2**3**4", "a*b*c", "*args, **kwargs", "snake_case and a_b_c", "_private", "C# is #1", "#hash",
        "5 > 3", "a < b", "[pause:0.5] [voice:anna] [sic]", "[pause:0.5](so) [voice:a](b)", "f(x)[0]", "a | b", "-5",
        "--", "1.5", "~5~", "it's `", "a ** b", "***", "* ", "!", "-", "x = y * z; w = y * v", "* a *", "\\",
    ],
)  # fmt: skip
def test_what_looks_like_markdown_stays(text: str) -> None:
    """But for a line that is a rule or a bullet and nothing else, which has nothing to speak."""
    kept = {"***": "", "* a *": "a *"}.get(text, normalise(text))
    assert normalise(without_markup(normalise(text))) == kept


@pytest.mark.parametrize(
    ("text", "english", "other"),
    [
        ("https://www.example.com/a-b?x=1#y", "example dot com slash a dash b", "example.com/a-b"),
        ("(see http://a.org/b_c/).", "(see a dot org slash b underscore c).", "(see a.org/b_c)."),
        ("www.A-b.de!", "A dash b dot de!", "A-b.de!"),
        ("https://user:key@a.io:80", "a dot io colon 80", "a.io:80"),
        ("https://a.b/%C3%A9%20x", "a dot b slash é x", "a.b/é x"),
        ("https://a.b/%00%FF", "a dot b slash percent 00 percent FF", "a.b/%00%FF"),
        ("http://192.168.0.1:80/x", "192.168.0.1:80 slash x", "192.168.0.1:80/x"),
        (
            "example.com, or example.org/x",
            "example dot com, or example dot org slash x",
            "example.com, or example.org/x",
        ),
        ("mailto:a.b+c@d-e.com.", "a dot b plus c at d dash e dot com.", "a.b+c@d-e.com."),
        ("访问https://a.com，好", "访问a dot com，好", "访问a.com，好"),
        ("e.g. file.py U.S. 3.5 a.m. end.Next Node.js @me a@b", None, None),
    ],
)
def test_addresses(text: str, english: str | None, other: str | None) -> None:
    """Host and path are said, scheme, www, key, query and fragment are not; nothing else is an address."""
    assert spoken_addresses(text, in_english=True) == (english or text)
    assert spoken_addresses(text, in_english=False) == (other or text)


def test_the_words_beside_addresses() -> None:
    """Are what the language of a text is found by."""
    assert without_addresses("访问 https://a.com/b 或 c@d.ef").split() == ["访问", "或"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi 👋 there", "Hi there"),
        ("Hi👋there", "Hi there"),
        ("Great 🎉!", "Great!"),
        ("👩\u200d👩\u200d👧 a 🏳️\u200d🌈 b 👍🏽", "a b"),
        ("🇩🇪 a 🏴\U000e0067\U000e0062\U000e007f b", "a b"),
        ("1️⃣2⃣ #️⃣", "12"),
        ("a ❤️ b ☎ c ✅ d ➡️ e ⭐", "a b c d e"),
        ("好😀，有🍎！", "好，有！"),
        ("© ® ™ ♯ ♭ ① ❶ → ½ ² € ∑ ★", None),
        ("می\u200cخواهم क्\u200dष", None),
        ("👩\u200d👧", ""),
    ],
)
def test_emoji(text: str, expected: str | None) -> None:
    """No emoji is spoken, whole sequences of them; letters, digits and signs with words stay."""
    left = {"© ® ™ ♯ ♭ ① ❶ → ½ ² € ∑ ★": "© ® ™ ♯ ♭ ① ❶ → ½ ² € ∑"}
    assert without_emoji(text).strip() == (left.get(text, text) if expected is None else expected)
