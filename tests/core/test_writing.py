"""Question marks of all scripts, and what stands between a prompt and its target."""

import pytest

from editbench.writing import full_stop, gap, is_question

QUESTIONS = [
    "Who wrote it?",
    "Who wrote it? ",
    "Who wrote it?\u200b",
    "法国的首都是哪里\uff1f",
    "日本の首都はどこですか？",
    "「日本の首都はどこですか？」",
    "ما عاصمة فرنسا؟",
    "مהי בירת צרפת?",
    "¿Cuál es la capital de Francia?",
    "Quelle est la capitale de la France ?",
    "Ποια είναι η πρωτεύουσα της Ελλάδας\u037e",
    "Ποια είναι η πρωτεύουσα της Ελλάδας;",
    "Ո՞րն է Հայաստանի մայրաքաղաքը",
    "Ո՞րն է Հայաստանի մայրաքաղաքը։",
    "Հայաստանի մայրաքաղաքը Երևա՞նն է",
    "Որն է մայրաքաղաքը\u055e",
    '"Who wrote it?"',
    "(Who wrote it?)",
    "« Qui l'a écrit ? »",
    "Who wrote it?!",
    "Who wrote it\u2049",
    "Who wrote it\u203d",
]
CLOZES = [
    "Who won? It was",
    "The capital of France is",
    "日本の首都は",
    "x = 1;",
    "¿Quién ganó? Fue",
    "Ո՞վ հաղթեց։ Հաղթեց",
    "? is the sign of",
    "",
    "...",
]


@pytest.mark.parametrize("text", QUESTIONS)
def test_a_question(text):
    assert is_question(text)


@pytest.mark.parametrize("text", CLOZES)
def test_no_question(text):
    assert not is_question(text)


JOINED = [
    ("日本の首都は", "東京"),
    ("日本の首都は", "Tokyo"),
    ("人口は", "1,463"),
    ("日本の首都は：", "Tokyo"),
    ("日本の首都は:", "東京"),
    ("日本の首都は", "「東京」"),
    ("作家“鲁迅”", "的原名"),
    ("法国的首都是", "巴黎"),
    ("コンピューター", "ゲーム"),
    ("เมืองหลวงของไทยคือ", "กรุงเทพ"),
    ("ນະຄອນຫຼວງຂອງລາວແມ່ນ", "ວຽງຈັນ"),
    ("រាជធានីនៃកម្ពុជាគឺ", "ភ្នំពេញ"),
    ("မြန်မာနိုင်ငံ၏မြို့တော်မှာ", "နေပြည်တော်"),
    ('He said "', "yes"),
    ("She said \u201c", "yes"),
    ("Er sagte \u201e", "Ja"),
    ("Er sagte \u00bb", "Ja"),
    ("Il a dit \u00ab", "oui"),
    ("他说\u201c", "好"),
    ("彼は「", "はい"),
    ("The sign (", "a cross"),
    ("The Anglo-", "Saxons"),
    ("Men and/", "or women"),
    ("La capitale de l'", "Australie"),
    ("It costs $", "50"),
    ("The song reached #", "1"),
    ("Dallas", ", Texas"),
    ("Australia", "'s capital"),
    ("It is", "\uff0c"),
    ("A line\n", "ends"),
]
APART = [
    ("The capital of Japan is", "Tokyo"),
    ("The capital of Japan is", "東京"),
    ("เมืองหลวงของญี่ปุ่นคือ", "Tokyo"),
    ("มีประชากร", "10 ล้านคน"),
    ("서울은", "한국의 수도"),
    ("עיר הבירה של צרפת היא", "פריז"),
    ("عاصمة فرنسا هي", "باريس"),
    ("भारत की राजधानी", "दिल्ली"),
    ("The sign is 🦊", "and"),
    ('He said "no"', "and"),
    ("Er sagte \u201eJa\u201c", "und"),
    ("Er sagte \u00bbJa\u00ab", "und"),
    ("Il a dit \u00ab oui \u00bb", "et"),
    ("He is 6'2\"", "tall"),
    ("The dogs'", "bone"),
    ("The answer is -", "as always"),
    ("The creator of C#", "is Anders"),
    ("Its price in $", "is"),
    ("The framework is called", ".NET"),
    ("The temperature is", "-5"),
    ("It ends in", "?"),
    ("It was born in", "'s-Hertogenbosch"),
    ("The answer:", "Tokyo"),
]


@pytest.mark.parametrize(("before", "after"), JOINED)
def test_nothing_stands_between(before, after):
    assert gap(before, after) == ""


@pytest.mark.parametrize(("before", "after"), APART)
def test_a_space_stands_between(before, after):
    assert gap(before, after) == " "


def test_a_sentence_ends_as_its_language_ends_it():
    assert full_stop("The capital is", "Tokyo") == full_stop("The capital is", "東京") == "."
    assert full_stop("日本の首都は", "東京") == full_stop("日本の首都は", "Tokyo") == "。"
    for ended in ("U.S.", "No!", "東京。", "はい！", "दिल्ली है।"):
        assert full_stop("x", ended) == ""
