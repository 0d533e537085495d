"""The answer matcher."""

from __future__ import annotations

import random
import sys
import unicodedata

import pytest

from editbench.matching import contains, exact, first_clause, normalise, same_answer, yes_or_no


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  The  Capital,\nof France! ", "capital of france"),
        ("An apple a day", "apple day"),
        ("The", "the"),
        ("A the", "a the"),
        ("rock'n'roll", "rocknroll"),
        ("Côte d’Ivoire", "côte divoire"),
        ("Malmo\u0308", "malmö"),
        ("ﬁne ５", "fine 5"),
        ("snake_case-and-dash", "snake case and dash"),
        ("$1,000.50", "1000.50"),
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
        ("Paris ...", "...", False),
        ("", "Paris", False),
        ("A", "a", True),
    ],
)
def test_contains(text, answer, found):
    assert contains(text, [answer]) == found
    assert contains(text, ["", answer, "no such answer"]) == found


def test_contains_takes_any_iterable():
    assert contains("It is Oslo", (answer for answer in ("Bergen", "Oslo")))
    assert not contains("It is Oslo", [])


def test_exact():
    assert exact(" The Oslo. ", ["oslo"])
    assert not exact("Oslo, Norway", ["Oslo"])
    assert not exact("", ["", "..."])


@pytest.mark.parametrize(
    ("text", "base", "same"),
    [
        ("It is Oslo.", "Oslo, of course", True),
        ("Bergen. More text", "bergen.\nOther text", True),
        ("Bergen", "Trondheim", False),
        ("Oslo", "Bergen", False),
        ("", "", True),
        ("St. Petersburg is old", "St. Louis is old", False),
        ("1. Bergen", "1. Trondheim", False),
        ("Mr. Smith", "Mr. Jones", False),
        ("It was 1990. Then", "It was 1990. Now", True),
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
