"""The only answer matcher of the project. Pure text, no model.

Both sides are normalised: Unicode NFKC, lower case, punctuation to spaces, English articles dropped, white space
collapsed. ``contains`` matches whole words, so "Niger" is not found in "Nigeria"; in scripts that put no spaces between words
each character is one. A number is one word, "34,567" is "34567", and "34" is found neither there nor in "34.5".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_STOPS = re.compile(r"(?<!\d)\.|\.(?!\d)")
"""Full stops that are no decimal points."""
_UNSPACED = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")
_CLAUSE_END = re.compile(
    r"(?:[,;:!?]|(?<=\w{3})\.)(?=\s|$)|[\n\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f]"
)
_ARTICLES = {"a", "an", "the"}
_YES = frozenset("yes yeah true correct right sure certain".split())
_NO = frozenset("no not false incorrect wrong untrue isnt wasnt arent".split())


@lru_cache(maxsize=4096)  # the answers of one prompt are matched against many texts
def normalise(text: str) -> str:
    """The words of ``text`` that matter, separated by single spaces; idempotent."""
    folded = unicodedata.normalize("NFKC", text).lower()
    joined = unicodedata.normalize("NFKC", folded.replace("'", "").replace("’", ""))
    words = "".join(map(_in_words, _STOPS.sub(" ", _THOUSANDS.sub("", joined)))).split()
    return " ".join([w for w in words if w not in _ARTICLES] or words)


@lru_cache(maxsize=4096)
def _in_words(char: str) -> str:
    """What ``char`` is among the words: part of one, a word of its own, or the space between two."""
    # combining marks belong to their words: many scripts write vowels with them
    if not (char.isalnum() or char == "." or unicodedata.category(char)[0] == "M"):
        return " "
    return f" {char} " if unicodedata.name(char, "").startswith(_UNSPACED) else char


def contains(text: str, answers: Iterable[str]) -> bool:
    """True where one of ``answers`` stands in ``text`` as whole words. An answer of punctuation only never matches."""
    padded = f" {normalise(text)} "
    return any(f" {wanted} " in padded for answer in answers if (wanted := normalise(answer)))


def exact(text: str, answers: Iterable[str]) -> bool:
    """True where the whole normalised ``text`` is one of ``answers``."""
    return normalise(text) in {wanted for answer in answers if (wanted := normalise(answer))}


def same_answer(text: str, base_text: str, answers: Iterable[str]) -> bool:
    """True where both texts give the same answer: both contain an accepted one, or their first clauses are the same words."""
    answers = list(answers)
    if contains(text, answers) and contains(base_text, answers):
        return True
    return first_clause(text) == first_clause(base_text)


def first_clause(text: str) -> str:
    """The normalised words up to the first comma, stop or line end: what answers, before the model goes on talking.

    A full stop ends a clause only after three letters or digits, so that "St.", "U.S." and "1." do not.
    """
    return normalise(_CLAUSE_END.split(re.sub(r"^\W+", "", text), maxsplit=1)[0])


def yes_or_no(text: str) -> bool | None:
    """What the first sentence of ``text`` says to a yes/no or true/false question; ``None`` where it says neither.

    The first word of assent or denial decides: "That is not true" and "No, it is true that ..." are both a no.
    """
    words = normalise(re.split(r"[.!?](?=\s|$)|\n", text.strip(), maxsplit=1)[0]).split()
    return next((word in _YES for word in words if word in _YES | _NO), None)
