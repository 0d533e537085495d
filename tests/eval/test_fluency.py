"""Fluency and consistency against values computed by hand."""

import math

import pytest

from editbench.eval.fluency import consistency, ngram_entropy


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        # "a b c d": 3 bigrams and 2 trigrams, each once
        ("a b c d", (2 / 3 * math.log2(3) + 4 / 3 * math.log2(2)) / 2),
        # "a b a b a": bigrams ab 2, ba 2; trigrams aba 2, bab 1
        ("a b a b a", (2 / 3 * 1 + 4 / 3 * (2 / 3 * math.log2(1.5) + 1 / 3 * math.log2(3))) / 2),
        ("a b c", 2 / 3 * 1 / 2),  # two bigrams, one trigram
        ("no no no no no no", 0.0),
        ("a b", 0.0),
        ("one", 0.0),
        ("", 0.0),
        ("Stop.", 0.0),  # a word and its full stop
    ],
)
def test_ngram_entropy(text, bits):
    assert ngram_entropy(text) == pytest.approx(bits)


def test_ngram_entropy_falls_with_repetition():
    varied = (
        "The old mill by the river was built by two brothers who came from the north in the spring."
    )
    assert ngram_entropy(varied) > 3 > ngram_entropy("the river " * 10) >= 0


def test_consistency_is_a_cosine_weighted_by_rarity():
    london, rome = ["London lies on the Thames"], ["Rome lies on the Tiber"]
    same, other, none = consistency(
        ["London lies on the Thames", "Rome", "what"], [london, london, rome]
    )
    assert same == pytest.approx(1.0) and other == 0.0 == none
    rare, common = consistency(["Thames", "lies"], [london, [*london, *rome]])
    assert rare > common > 0


def test_consistency_without_references_is_not_measured():
    assert all(math.isnan(value) for value in consistency(["a text", "b"], [[], ()]))
    (there, absent) = consistency(["London", "London"], [["London fog"], []])
    assert there > 0 and math.isnan(absent)
