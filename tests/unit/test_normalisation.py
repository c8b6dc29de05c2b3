"""Numbers as words. Every reading that wetext alone would lose or falsify has a line here."""

import subprocess
import sys
from threading import Thread

import pytest

from serve_app.normalisation import written_out
from serve_app.normalisation.grammars import spoken

ENGLISH = [
    ("1,234", "one thousand two hundred and thirty four"),
    ("1234 km", "one thousand two hundred and thirty four kilometers"),
    ("1000000, 1,000,000.50", "one million, one million point five zero"),
    ("12,000,007", "twelve million and seven"),
    ("0042", "zero zero four two"),
    ("$5.20", "five dollars and twenty cents"),
    ("$1.01 $0.01 $2.00", "one dollar and one cent one cent two dollars"),
    ("£3bn, £1.50, $1.5 million", "three billion pounds, one pound and fifty pence, one point five million dollars"),
    ("-$5 $-5 $10k", "minus five dollars minus five dollars ten thousand dollars"),
    ("$5-10, $5–$10, $5/month", "five to ten dollars, five dollars to ten dollars, five dollars per month"),
    ("a $5 bill", "a five dollar bill"),
    ("$10 - 3 of them, $10 - $20, $.50", "ten dollars - three of them, ten dollars to twenty dollars, fifty cents"),
    ("5-3=2, 3-5", "five minus three equals two, three to five"),
    ("Oh no. 5 came. The no. 7", "Oh no. five came. The number seven"),
    ("The IV, Book I read, Part I was", "The IV, Book I read, Part one was"),
    ("on Main St. The, 4 Oak Dr Apt, Ask Dr. Li", "on Main Street. The, four Oak Drive Apt, Ask Doctor Li"),
    ("90° 9° (right) 5 °C", "ninety degrees nine degrees (right) five degrees Celsius"),
    ("1,000s of people", "one thousand s of people"),
    ("5¢ 5€ A$5", "five cents five euros five Australian dollars"),
    ("call 555-1234", "call five five five, one two three four"),
    ("+1 555 123 4567", "plus one, five five five, one two three, four five six seven"),
    ("150-2000 kg", "one hundred and fifty to two thousand kilograms"),
    ("the 1980s, 30s, '90s, 2000s", "the nineteen eighties, thirties, nineties, two thousands"),
    ("1999-2003 and 1914-18", "nineteen ninety nine to two thousand and three and nineteen fourteen to eighteen"),
    ("2.0.1", "two point zero point one"),
    ("version 3.11 v2.0", "version three point eleven version two point zero"),
    ("192.168.0.1:80", "one nine two dot one six eight dot zero dot one colon eight zero"),
    ("24/7, 9/11, 21/22", "twenty four seven, nine eleven, twenty one over twenty two"),
    ("2½ ¾", "two and a half three quarters"),
    ("1e6 1.5e-10", "one times ten to the power of six one point five times ten to the power of minus ten"),
    ("10^6 m² 5 m²", "ten to the power of six m squared five square meters"),
    ("+3 #1 No. 5 Nos. 1", "plus three number one Number five Numbers one"),
    ("3 m, 5 m/s, 5 kWh, 1 V", "three meters, five meters per second, five kilowatt hours, one volt"),
    ("6'2\" or 5 ft 3 in", "six feet two inches or five feet three inches"),
    ("6'2 and 5' or '90s", "six feet two inches and five' or nineties"),
    ("10% - 20%, 10 - 12", "ten percent to twenty percent, ten - twelve"),
    ("ISBN 0-306-40615-2", "ISBN zero, three zero six, four zero six one five, two"),
    ("5 in the morning", "five in the morning"),
    ("3:05 3:00 pm 3:00", "three oh five three PM three o'clock"),
    ("24:00 and 25:61", "twenty four o'clock and twenty five to sixty one"),
    ("2024-12-25, 25.12.2024", "December twenty fifth, twenty twenty four, December twenty fifth, twenty twenty four"),
    ("March 5, 2024; 5 March", "March fifth, twenty twenty four; the fifth of March"),
    ("the 5th of May", "the fifth of May"),
    ("2024-01-05T10:30:00", "January fifth, twenty twenty four, ten hours and thirty minutes"),
    ("-5°C, 45°", "minus five degrees Celsius, forty five degrees"),
    ("3 - 5 = -2", "three minus five equals minus two"),
    ("5x3 and 5 x 3 = 15", "five by three and five times three equals fifteen"),
    ("a - b, 1-2-3, 5-year-old", "a - b, one-two-three, five-year-old"),
    ("I met George. VI", "I met George. VI"),
    ("Louis XIV's Part II", "Louis the fourteenth's Part two"),
    ("Dr. No, St. Paul, Main St.", "Doctor No, Saint Paul, Main Street."),
    ("apples etc. He left", "apples et cetera. He left"),
    ("apples etc. and", "apples et cetera and"),
    ("don't say \"I'll\" -- O'Neil's", "don't say \"I'll\" -- O'Neil's"),
    ("HELLO iPhone U.S. N.A.S.A. a/b and/or", "HELLO iPhone U.S. N.A.S.A. a/b and/or"),
    ("a % b { c \\ d", "a % b { c \\ d"),
    ("１２３ 5", "one hundred and twenty three five"),
]  # fmt: skip
CHINESE = [
    ("3-5公斤", "三到五公斤"),
    ("5%-10%和5~10%", "百分之五到百分之十和百分之五到百分之十"),
    ("¥100-200", "一百到两百元"),
    ("¥3.5亿", "三点五亿元"),
    ("我用GPT-4写", "我用GPT 四写"),
    ("他说\"5个\"", "他说\"五个\""),
    ("2022—2023", "二零二二到二零二三"),
    ("有 3 个", "有三个"),
    ("手机138-0013-8000", "手机一三八，零零一三，八零零零"),
    ("版本2.0.1", "版本二点零点一"),
    ("编号0042", "编号零零四二"),
    ("得了1st", "得了第一"),
    ("2024-01-05下午3:30-5:00", "二零二四年一月五日下午三点三十分到五点"),
    ("95后", "九五后"),
    ("比分3-2", "比分三比二"),
    ("没有数字，hello", "没有数字，hello"),
]  # fmt: skip
JAPANESE = [
    ("-5℃です", "マイナス五度です"),
    ("3-5人", "三から五人"),
    ("¥3.5億です", "三点五億円です"),
    ("9:05に", "九時五分に"),
    ("10:00-12:00に", "十時から十二時に"),
    ("007です", "ゼロゼロ七です"),
    ("0.5です", "ゼロ点五です"),
    ("〇と2つ", "〇と二つ"),
    ("電話は090-1234-5678。", "電話はゼロ九ゼロの一二三四の五六七八。"),
    ("2024-01-05です", "二千二十四年一月五日です"),
]


@pytest.mark.parametrize(("text", "expected"), ENGLISH)
def test_english(text: str, expected: str) -> None:
    """Numbers become words, and all else stays as it is."""
    assert written_out(text, "en") == expected


@pytest.mark.parametrize(("text", "expected"), CHINESE)
def test_chinese(text: str, expected: str) -> None:
    """Ranges are none of subtraction, names none of negative numbers."""
    assert written_out(text, "zh") == expected


@pytest.mark.parametrize(("text", "expected"), JAPANESE)
def test_japanese(text: str, expected: str) -> None:
    """Zero is said, and minutes are minutes."""
    assert written_out(text, "ja") == expected


@pytest.mark.parametrize("language", ["de", "ko", "fr-CA", "xx"])
def test_other_languages_are_untouched(language: str) -> None:
    """Digits stay digits, in any script."""
    text = "5 Äpfel, $3. 我有3个。りんごを3個。"
    assert written_out(text, language, ("en",)) == text


def test_what_a_grammar_cannot_read_as_a_whole_is_read_number_by_number() -> None:
    """Nothing is lost but what has no words."""
    assert spoken("en", "+1 555") == "+one five hundred and fifty five"


def test_a_line_without_any_mark_is_read_in_pieces() -> None:
    """Chinese sets no spaces: a number is never cut, however long its line is."""
    assert written_out("我有12个苹果" * 500, "zh") == "我有十二个苹果" * 500


def test_threads_read_the_same() -> None:
    """The grammars are shared by all threads of a process."""
    read: dict[int, str] = {}

    def said(at: int) -> str:
        return " ".join(written_out(f"{number + 13 * at} 个", "zh") for number in range(40))

    def work(at: int) -> None:
        read[at] = said(at)

    threads = [Thread(target=work, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == {
        at: " ".join(written_out(f"{number + 13 * at} 个", "zh") for number in range(40)) for at in range(4)
    }


def test_no_grammar_is_read_at_import() -> None:
    """A process that never writes out a number does not pay for it."""
    code = "import sys, serve_app.spoken; sys.exit('wetext' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
