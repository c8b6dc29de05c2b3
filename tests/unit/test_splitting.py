"""Where a text is divided: sentences, clauses, words, characters."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serve_app.errors import InvalidText
from serve_app.splitting import sentences, split
from serve_app.text import normalise

SENTENCES = [
    ("Hello there. How are you? Fine!", ["Hello there.", "How are you?", "Fine!"]),
    ("Dr. Smith met J. R. R. Tolkien. They talked.", ["Dr. Smith met J. R. R. Tolkien.", "They talked."]),
    ("It costs 3.50 or 1,000.5 now. He paid.", ["It costs 3.50 or 1,000.5 now.", "He paid."]),
    ("Bring fruit, e.g. Braeburn apples. Then go.", ["Bring fruit, e.g. Braeburn apples.", "Then go."]),
    ("He lives in the U.S. with Ms. Lee. She too.", ["He lives in the U.S. with Ms. Lee.", "She too."]),
    ("We meet at 5 p.m. on Monday. Bye.", ["We meet at 5 p.m. on Monday.", "Bye."]),
    ("See No. 5 and vol. 12. No. That was it.", ["See No. 5 and vol. 12.", "No.", "That was it."]),
    ("Visit example.com today. Then call.", ["Visit example.com today.", "Then call."]),
    ("Wait... what? Yes… No.", ["Wait... what?", "Yes…", "No."]),
    ("Really?! Yes!!! Good.", ["Really?!", "Yes!!!", "Good."]),
    ('"Stop!" he said. "Go." She went.', ['"Stop!" he said.', '"Go."', "She went."]),
    ("(See this.) Then that.", ["(See this.)", "Then that."]),
    ("He said “Go.” She went.", ["He said “Go.”", "She went."]),
    ("你好。今天天气很好！我们走吧？好", ["你好。", "今天天气很好！", "我们走吧？", "好"]),
    ("「行こう。」彼は言った。", ["「行こう。」", "彼は言った。"]),
    ("３．５です。終わり。", ["３．５です。", "終わり。"]),
    ("यह एक है। यह दो है॥ बस", ["यह एक है।", "यह दो है॥", "बस"]),
    ("هل أنت بخير؟ نعم۔ حسنا", ["هل أنت بخير؟", "نعم۔", "حسنا"]),
    ("Բարեւ։ Այո։", ["Բարեւ։", "Այո։"]),
    ("안녕하세요. 반갑습니다.", ["안녕하세요.", "반갑습니다."]),
    ("¿Qué tal? ¡Bien! Vale.", ["¿Qué tal?", "¡Bien!", "Vale."]),
    ("Die Straße, z.B. hier. Über alles.", ["Die Straße, z.B. hier.", "Über alles."]),
    ("Привет. Как дела?", ["Привет.", "Как дела?"]),
    ("A Title\n\nThe text begins", ["A Title", "The text begins"]),
    ("a title\n\nthe text begins", ["a title", "the text begins"]),
    ("Milk\nBread", ["Milk", "Bread"]),
    ("A line that is\nwrapped here. New one.", ["A line that is wrapped here.", "New one."]),
    ("Mr.\nBrown came. He sat.", ["Mr. Brown came.", "He sat."]),
    ("1. First thing\n2. Second thing", ["1. First thing", "2. Second thing"]),
    ("She left. *** He came.", ["She left.", "*** He came."]),
    ("*** She left.\n---\nHe came.", ["*** She left. ---", "He came."]),
    ("I like it 👍🏽. Do you?", ["I like it 👍🏽.", "Do you?"]),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES, ids=[text[:20] for text, _ in SENTENCES])
def test_sentences(text: str, expected: list[str]) -> None:
    """Stops of many scripts end a sentence; abbreviations, initials, decimals and wrapped lines do not."""
    found = sentences(normalise(text))
    assert [" ".join(sentence.split()) for sentence in found] == expected
    assert "".join(found) == normalise(text)


PIECES = [
    # whole sentences, as many as fit
    ("One. Two. Six.", 14, ["One. Two. Six."]),
    ("One. Two. Six.", 13, ["One. Two.", "Six."]),
    ("One. Two. Six.", 4, ["One.", "Two.", "Six."]),
    ("One.\n\nTwo.", 10, ["One. Two."]),
    # a sentence that is too long: clauses, of even length
    ("Alpha beta, gamma delta, epsilon zeta.", 30, ["Alpha beta, gamma delta,", "epsilon zeta."]),
    ("aa, bb, cc, dd, ee, ff.", 20, ["aa, bb, cc,", "dd, ee, ff."]),
    ("第一、第二、第三。", 18, ["第一、第二、", "第三。"]),
    ("so it was—he said—all over", 18, ["so it was—", "he said—all over"]),
    ("hello there. how are you. fine", 15, ["hello there.", "how are you.", "fine"]),
    ("ask Dr. Smith about Dr. Jones", 20, ["ask Dr. Smith", "about Dr. Jones"]),
    # no clause marks: words, of even length
    ("one two three four five six", 20, ["one two three", "four five six"]),
    ("aaaa bbbb cccc dddd eeee", 19, ["aaaa bbbb cccc", "dddd eeee"]),
    ("pay 1,000,000 now", 13, ["pay 1,000,000", "now"]),
    # no spaces: characters, of even length
    ("abcdefghijkl", 10, ["abcdef", "ghijkl"]),
    ("今天天气很好我们", 12, ["今天天气", "很好我们"]),
    ("a verylongword here", 8, ["a verylo", "ngword", "here"]),
    # no spaces either, in a script that sets none: where a word may end
    ("วันนี้อากาศดีมากฉันอยากไปเที่ยวทะเล", 60, ["วันนี้อากาศดีมากฉัน", "อยากไปเที่ยวทะเล"]),
    ("今日は天気がとても良いので海に行きたい", 30, ["今日は天気がとても", "良いので海に行きたい"]),
    ("今天是晴天我想和我的朋友一起去海边玩", 27, ["今天是晴天我想和我", "的朋友一起去海边玩"]),
    # numbers are not divided
    ("that is 1 000 000 km", 15, ["that is", "1 000 000 km"]),
    ("it weighs two hundred and thirty four kg", 30, ["it weighs", "two hundred and thirty four kg"]),
    ("他在３：３０和1，000之间", 20, ["他在", "３：３０和", "1，000之间"]),
    # never inside what a reader sees as one character
    ("a👩‍👩‍👧b", 19, ["a👩‍👩‍👧", "b"]),
    ("a🇩🇪b🇫🇷c", 10, ["a🇩🇪", "b🇫🇷c"]),
    ("a🇩🇪🇫🇷b", 17, ["a🇩🇪🇫🇷", "b"]),
    ("ab👍🏽cd", 9, ["a", "b👍🏽", "cd"]),
    ("कक्ष", 9, ["क", "क्ष"]),
    ("می\u200cخ", 7, ["می\u200c", "خ"]),
    ("x\u0d4eക", 6, ["x", "\u0d4eക"]),
    ("x\u1100가", 6, ["x", "\u1100가"]),
    ("กำกำ", 8, ["กำ", "กำ"]),
    ("x\u0323\u0302q\u0323\u0302", 8, ["x\u0323\u0302", "q\u0323\u0302"]),
    ("한한\u11abe", 9, ["한", "한\u11abe"]),
    # what cannot be spoken alone stays with what can
    ("abcdefghij —", 10, ["abcdefg", "hij —"]),
    ("--- abcdefg", 7, ["--- ab", "cdefg"]),
]


@pytest.mark.parametrize(("text", "max_bytes", "expected"), PIECES, ids=[text[:20] for text, _, _ in PIECES])
def test_pieces(text: str, max_bytes: int, expected: list[str]) -> None:
    """Pieces hold whole sentences, else clauses, else words, else characters; long ones are divided evenly."""
    pieces = split(normalise(text), max_bytes)
    assert pieces == expected
    assert max(len(piece.encode()) for piece in pieces) <= max_bytes


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
MARKS = st.sampled_from(
    [". ", ", ", " ", "! ", "。", "、", "\n", "\n\n", "... ", "-", '" ', ") ", "—", "\u0301", "\u200d"]
)
TEXTS = st.lists(
    st.tuples(WORDS | st.sampled_from(["Dr", "e.g", "3", "a", "ক্ষ", "🇩🇪", "👩‍👧"]), MARKS), max_size=30
).map(lambda pairs: "".join(word + mark for word, mark in pairs))


@given(text=TEXTS, max_bytes=st.integers(1, 80))
def test_nothing_is_lost_and_every_piece_fits(text: str, max_bytes: int) -> None:
    """For any text and limit: joined without whitespace the pieces are the text; each fits and can be spoken.
    Or the text is refused: for having nothing to speak, or a run that fits no piece."""
    try:
        normal = normalise(text)
        pieces = split(normal, max_bytes)
    except InvalidText:
        return
    assert _solid("".join(pieces)) == _solid(normal)
    for piece in pieces:
        assert len(piece.encode()) <= max_bytes
        assert piece == piece.strip()
        assert any(character.isalnum() for character in piece)
        assert unicodedata.category(piece[0]) not in {"Mn", "Mc", "Me"} or piece is pieces[0]


@given(text=TEXTS)
def test_a_text_is_refused_only_for_what_it_is(text: str) -> None:
    """With room for anything, a text with a letter is one piece: its own text, with single spaces."""
    normal = normalise(text)
    assume(any(character.isalnum() for character in normal))
    assert split(normal, 10_000) == [" ".join(normal.split())]


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=9), min_size=1, max_size=40), st.integers(9, 60))
def test_words_are_divided_into_as_few_pieces_as_possible(words: list[str], max_bytes: int) -> None:
    """No two neighbouring pieces of a text would fit into one."""
    pieces = split(" ".join(words), max_bytes)
    for first, second in pairwise(pieces):
        assert len(f"{first} {second}") > max_bytes


@pytest.mark.parametrize(
    ("text", "max_bytes", "message"),
    [
        ("", 300, "has nothing to speak: send at least one letter or digit"),
        ("…?!", 300, "has nothing to speak"),
        ("👍", 300, "has nothing to speak"),
        ("Hi " + "-" * 30, 30, r"has 32 bytes at position 1 \('i -----.*cannot be divided into pieces of 30 bytes"),
        ("👨‍👩‍👧‍👦a", 16, "has 26 bytes at position 0"),
    ],
)
def test_what_cannot_be_spoken_is_refused(text: str, max_bytes: int, message: str) -> None:
    """The message says what is wrong and where; nothing is dropped to make a text fit."""
    with pytest.raises(InvalidText, match=message):
        split(text, max_bytes)


@pytest.mark.parametrize("text", ["." * 200_000 + "x", ")." * 100_000 + "x", "-" * 200_000 + "x", "🇩" * 200_001 + "x"])
@pytest.mark.timeout(20)
def test_a_long_run_takes_time_in_proportion(text: str) -> None:
    """Nothing is scanned again for each character of a run: squared time on such a text would be hours."""
    with pytest.raises(InvalidText, match="cannot be divided"):
        split(text, 300)


def _solid(text: str) -> str:
    return "".join(text.split())
