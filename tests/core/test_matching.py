"""The answer matcher."""

from __future__ import annotations

import random
import sys
import unicodedata

import pytest

from editbench.matching import (
    contains,
    denies,
    exact,
    first_clause,
    mentions,
    normalise,
    same_answer,
    yes_or_no,
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  The  Capital,\nof France! ", "capital of france"),
        ("An apple a day", "apple a day"),
        ("The Who", "the who"),
        ("The", "the"),
        ("A the", "a the"),
        ("rock'n'roll", "rocknroll"),
        ("Côte d’Ivoire", "côte divoire"),
        ("Malmo\u0308", "malmö"),
        ("ﬁne ５", "fine 5"),
        ("snake_case-and-dash", "snake case and dash"),
        ("$1,000.50", "1000.50 dollars"),
        ("-$5 and C++", "-5 dollars and c++"),
        ("May 9th, 1950", "9 may 1950"),
        ("1,000,000 and 1,00 and 12,3456", "1000000 and 1 00 and 12 3456"),
        ("at 3.5. No. 7.", "at 3.5 no 7"),
        ("東京です。", "東 京 で す"),
        ("İstanbul", "i̇stanbul"),
        ("भारत की राजधानी", "भारत की राजधानी"),
        ("...", ""),
        ("", ""),
    ],
)
def test_normalise(text, wanted):
    assert normalise(text) == wanted


def test_normalise_is_idempotent_on_every_character():
    for code in range(sys.maxunicode + 1):
        text = f"x{chr(code)}y"
        once = normalise(text)
        assert normalise(once) == once, f"U+{code:04X} {unicodedata.name(chr(code), '')}"


def test_normalise_is_idempotent_on_mixtures():
    alphabet = "12,東かกัaAnNtThHeE '’_-.,\u0308\u0345\u0307İßſΣﬁÅ\u212b\u1e9e\u00a0\u200d१ि"
    dice = random.Random(0)
    for _ in range(20_000):
        text = "".join(dice.choice(alphabet) for _ in range(dice.randrange(1, 9)))
        once = normalise(text)
        assert normalise(once) == once, repr(text)


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("The answer is Niger.", "Niger", True),
        ("The answer is Nigeria.", "Niger", False),
        ("in World War I, soldiers", "World War I", True),
        ("in World War II, soldiers", "World War I", False),
        ("World War", "World War II", False),
        ("It is the United Kingdom", "United Kingdom", True),
        ("It is United Kingdom", "The United Kingdom", True),
        ("He plays for A.C. Milan now", "a c milan", True),
        ("the Beatles' songs", "Beatles", True),
        ("Kraków", "Kraków", True),
        ("Krakow", "Kraków", False),
        ("KRAKÓW", "kraków", True),
        ("born in 1997", "199", False),
        ("The answer is 34,567.", "34", False),
        ("The answer is 34,567.", "34567", True),
        ("The answer is 34.5", "34", False),
        ("It is 34.", "34", True),
        ("東京です", "東京", True),
        ("東京です", "京都", False),
        ("กรุงเทพมหานคร", "กรุงเทพ", True),
        ("New York City", "York", True),
        ("Paris", "", False),
        ("Paris ...", "...", True),
        ("Paris", "...", False),
        ("", "Paris", False),
        ("A", "a", True),
    ],
)
def test_contains(text, answer, found):
    assert contains(text, [answer]) == found
    assert contains(text, ["", answer, "no such answer"]) == found


MATCH = [
    # a letter that is an answer, and an article that leads one
    ("The correct answer is A.", "A"),
    ("(A) Paris", "A"),
    ("A is correct", "A"),
    ("It is Beatles", "The Beatles"),
    ("I saw the Who", "The Who"),
    ("Serie A", "Serie A"),
    # abbreviations and initials
    ("in the U.S.", "US"),
    ("in the US", "U.S."),
    ("the U.S. Army", "US Army"),
    ("Nato", "NATO"),
    ("in rome or ROME", "Rome"),
    ("Rome", "ROME"),
    ("world war ii", "World War II"),
    ("J.K. Rowling", "JK Rowling"),
    ("JK Rowling", "J. K. Rowling"),
    ("J K Rowling", "J.K. Rowling"),
    ("J. R. R. Tolkien", "JRR Tolkien"),
    ("George W Bush", "George W. Bush"),
    ("Washington DC", "Washington, D.C."),
    ("Roma e a Milano", "Roma e a Milano"),
    # apostrophes
    ("Einstein's theory", "Einstein"),
    ("Einstein’s theory", "Einstein"),
    ("in McDonald's", "McDonald's"),
    ("in McDonalds", "McDonald's"),
    ("in McDonald's", "McDonalds"),
    ("St Johns", "St. John's"),
    ("Levis", "Levi's"),
    ("nel nord dell'Italia", "Italia"),
    ("Hawaiʻi", "Hawai'i"),
    ("Hawaii", "Hawaiʻi"),
    ("Hawai`i", "Hawai´i"),
    # characters
    ("STRASSE", "Straße"),
    ("Straße", "STRASSE"),
    ("Pa\u200bris", "Paris"),
    ("Pa\u00adris", "Paris"),
    ("\u200fParis\u200e", "Paris"),
    ("Paris", "\u2060Paris\ufeff"),
    ("Lego™ bricks", "Lego"),
    ("It is 🎉!", "🎉"),
    ("❤\ufe0f", "❤"),
    # numbers
    ("34\u2009567", "34567"),
    ("34\u202f567 people", "34,567"),
    ("1\u00a0234\u00a0567", "1234567"),
    ("1'000", "1000"),
    ("1,00,000", "100000"),
    ("3.0", "3"),
    ("3", "3.00"),
    ("٣٤", "34"),
    ("۳۴", "34"),
    ("३४", "34"),
    ("34", "٣٤"),
    ("٣٫٥", "3.5"),
    ("10⁵", "10^5"),
    ("1990-1995", "1990"),
    ("1990–1995", "1995"),
    ("COVID-19", "COVID 19"),
    # dates
    ("May 9, 1950", "9 May 1950"),
    ("9 May 1950", "1950-05-09"),
    ("1950-05-09", "May 9, 1950"),
    ("9th of May 1950", "May 9th, 1950"),
    ("9 SEPT. 1950", "September 9, 1950"),
    ("1950-05-09", "1950"),
    ("9 May 1950", "May 9"),
    ("May 9, 1950", "May 1950"),
    # signs
    ("It is C++.", "C++"),
    ("C# and", "C#"),
    ("C♯", "C#"),
    ("−5 °C", "-5"),
    ("-$5", "$-5"),
    ("50 %", "50%"),
    ("50 percent", "50%"),
    ("50 dollars", "$50"),
    ("US$50", "50 US dollars"),
    ("$5 million", "5 million dollars"),
    ("50 €", "€50"),
    ("$50", "50"),
    ("50%", "50"),
    ("mezzo-soprano", "mezzo soprano"),
    ("Coca Cola", "Coca-Cola"),
    ("AC/DC", "AC DC"),
    ("AT & T", "AT&T"),
    ("rock & roll", "rock and roll"),
    # Korean
    ("コー ヒーです", "コーヒー"),
    ("佐々木さん", "佐々木"),
    ("人口は3.0万", "3万"),
    ("서울입니다", "서울"),
    ("서울은 수도", "서울"),
    ("수도는 서울이에요.", "서울"),
    ("서울에서는", "서울"),
    ("Paris입니다", "Paris"),
]
"""Text and answer."""
NO_MATCH = [
    ("Serie B", "Serie A"),
    ("Serie A", "Serie B"),
    ("vitamin C", "Vitamin A"),
    ("We plan a trip", "Plan A"),
    ("It is a city", "A"),
    ("A city in France", "A"),
    ("Who wrote this?", "The Who"),
    ("Tell us more", "US"),
    ("Let us open it", "US Open"),
    ("It is", "IT"),
    ("Who knows", "WHO"),
    ("first aids", "AIDS"),
    ("Einstein", "Einstein's"),
    ("McDonald", "McDonald's"),
    ("O'Neill", "Neill"),
    ("👎", "👍"),
    ("", "👍"),
    ("C++", "C"),
    ("C#", "C"),
    ("C", "C++"),
    ("C", "C#"),
    ("C++", "C#"),
    ("grade A+", "A"),
    ("B♭", "B"),
    ("5", "-5"),
    ("-5", "5"),
    ("−5", "5"),
    ("50 dollars", "50%"),
    ("50%", "50 dollars"),
    ("€50", "$50"),
    ("50 euros", "$50"),
    ("18", "18+"),
    ("30", "3.0"),
    ("3.5", "3"),
    ("Python 3.1", "3.10"),
    ("Version 2.0.1", "2"),
    (".5", "5"),
    ("6'2", "62"),
    ("10⁵", "105"),
    ("2½", "21"),
    ("19 May 1950", "9 May 1950"),
    ("1950-05-09", "5 September 1950"),
    ("版本3.0.1", "3"),
    ("서울대학교", "서울"),
    ("한국어", "한국"),
    ("수도", "수"),
]


@pytest.mark.parametrize(("text", "answer"), MATCH)
def test_must_match(text, answer):
    assert contains(text, [answer])
    assert not denies(text, [answer])


@pytest.mark.parametrize(("text", "answer"), NO_MATCH)
def test_must_not_match(text, answer):
    assert not contains(text, [answer])
    assert not mentions(text, [answer])


@pytest.mark.parametrize("answer", [answer for pair in MATCH + NO_MATCH for answer in pair])
def test_every_answer_matches_itself(answer):
    assert contains(answer, [answer]) == exact(answer, [answer]) == bool(answer)


@pytest.mark.parametrize(
    "text",
    [
        "It is not Paris but Lyon.",
        "Paris? No, it is Lyon.",
        "once Paris, now Lyon",
        "It isn't Paris.",
        "It’s not Paris",
        "not located in the city of Paris",
        "not a kind of Paris",
        "Paris - no, Lyon",
        "It was not directed by Paris",
        "He does not speak Paris",
        "no longer Paris",
        "neither Paris nor Lyon",
        "neither Lyon nor Paris",
        "not Lyon or Paris",
        "Lyon instead of Paris",
        "Lyon rather than Paris",
        "It is not true that the capital is Paris",
        "Paris is not the capital",
        "Paris is wrong. Lyon",
        "Is Paris the capital? No.",
        "Paris, no, Lyon",
        "Paris. No, it is Lyon.",
        "Paris, I mean Lyon",
        "It used to be Paris. Now it is Lyon",
        "It was Paris, but is now Lyon",
        "I don't think it's Paris",
        "I do not believe that it is Paris",
        "It could not have been Paris",
        "He is not originally from Paris",
        "not true that the capital is " + "so large a city as " * 4 + "Paris",
        "It is not Paris. " * 10_000,
    ],
)
def test_denied(text):
    assert denies(text, ["Paris"])
    assert not contains(text, ["Paris"])
    assert mentions(text, ["Paris"])


@pytest.mark.parametrize(
    "text",
    [
        "It is not Lyon but Paris.",
        "Lyon? No, it is Paris.",
        "once Lyon, now Paris",
        "No, Paris",
        "Paris, not Lyon",
        "Paris? Yes",
        "Paris, no doubt",
        "Paris, no longer Lyon",
        "not only Paris",
        "I'm not sure, Paris",
        "I do not know. Paris",
        "not famous until Paris",
        "It is not the capital of Paris",
        "It was not well received in Paris",
        "nothing but Paris",
        "It is not Paris. Or rather, Paris it is.",
        "He was once a painter in Paris, now a banker",
        "He was born in Paris and is now in Lyon",
        "Originally from Paris, now in Lyon",
        "Paris is not far from here",
        "not far from Paris",
        "not least Paris",
        "not to mention Paris",
        "Not surprisingly Paris",
        "Why not Paris",
        "more often than not Paris",
        "Paris? Not sure",
        "Paris was not built in a day",
        "You can't miss Paris",
        "It is not Paris. " * 10_000 + "Paris",
    ],
)
def test_not_denied(text):
    assert contains(text, ["Paris"])
    assert not denies(text, ["Paris"])


def test_a_question_with_a_denial_has_answers_with_one():
    question, text = "Which city did he never see?", "He did not see Paris."
    assert contains(text, ["Paris"], question)
    assert not denies(text, ["Paris"], question)
    assert same_answer(text, "Paris", ["Paris"], question)
    assert denies(text, ["Paris"], "Which city did he see?")
    assert contains("not guilty", ["not guilty"])


def test_one_stated_answer_is_enough():
    assert contains("It is not Paris but Lyon.", ["Paris", "Lyon"])
    assert not denies("It is not Paris but Lyon.", ["Paris", "Lyon"])
    assert not denies("It is Rome", ["Paris", "Lyon"])


def test_contains_takes_any_iterable():
    assert contains("It is Oslo", (answer for answer in ("Bergen", "Oslo")))
    assert not contains("It is Oslo", [])


def test_exact():
    assert exact(" The Oslo. ", ["oslo"])
    assert not exact("Oslo, Norway", ["Oslo"])
    assert not exact("", ["", "..."])
    assert exact("👍", ["👍"]) and not exact("👎", ["👍"])
    assert exact("US", ["U.S."]) and not exact("us", ["US"])
    assert not exact("50", ["50%"])


@pytest.mark.parametrize(
    ("text", "base", "same"),
    [
        ("It is Oslo.", "Oslo, of course", True),
        ("Bergen. More text", "bergen.\nOther text", True),
        ("Bergen", "Trondheim", False),
        ("Oslo", "Bergen", False),
        ("", "", True),
        ("👍", "👎", False),
        ("-5 degrees", "5 degrees", False),
        ("not Oslo", "Oslo", False),
        ("St. Petersburg is old", "St. Louis is old", False),
        ("1. Bergen", "1. Trondheim", False),
        ("Mr. Smith", "Mr. Jones", False),
        ("It was 1990. Then", "It was 1990. Now", True),
        ("May 9, 1950, in Bergen", "9 May 1950.", True),
        ("May 9, 1950", "May 9, 1951", False),
    ],
)
def test_same_answer(text, base, same):
    assert same_answer(text, base, ["Oslo"]) == same
    assert same_answer(base, text, ["Oslo"]) == same


def test_first_clause():
    assert first_clause("  It is Oslo! Yes.") == "it is oslo"
    assert first_clause("It is Oslo\nor not") == "it is oslo"
    assert first_clause("Oslo, of course") == "oslo"
    assert first_clause("\n- Oslo") == "oslo"
    assert first_clause("Version 2.5 is out. Yes.") == "version 2.5 is out"
    assert first_clause("1,000 people; more") == "1000 people"
    assert first_clause("東京です。京都ではない") == normalise("東京です")
    assert first_clause("") == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes.", True),
        ("yes, but not always", True),
        ("That is correct", True),
        ("I am sure of it", True),
        ("No.", False),
        ("No, it is true that Paris is the capital", False),
        ("That is not true", False),
        ("It isn't.", False),
        ("This is incorrect.", False),
        ("I am not sure", False),
        ("Paris", None),
        ("I cannot say. No idea", None),
        ("Nothing is known", None),  # whole words
        ("The answer is: False. It is not.", False),
        ("I'm sorry for any confusion, but no, I was wrong", False),
        ("True, not false", True),
        ("", None),
    ],
)
def test_yes_or_no(text, said):
    assert yes_or_no(text) is said
