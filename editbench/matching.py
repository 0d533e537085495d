"""Match answers. This is the project's only matcher; it works on text alone.

Both sides are normalised: Unicode NFKC, lower case, punctuation to spaces, English articles
dropped, white space collapsed. ``contains`` matches whole words, so "Nigeria" does not contain
"Niger". In scripts that put no spaces between words, each character counts as a word. A number is
one word: "34,567" equals "34567", and neither "34,567" nor "34.5" contains "34".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_STOPS = re.compile(r"(?<!\d)\.|\.(?!\d)")
"""Full stops that are not decimal points."""
# Starts of the Unicode names of characters whose scripts are written without spaces.
_UNSPACED = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")
# A full stop ends a clause after three letters or digits only, so that "St.", "U.S." and "1."
# do not. The escapes are the CJK comma and full stop, and the full-width , ; : ! and ?
_CLAUSE_END = re.compile(
    r"(?:[,;:!?]|(?<=\w{3})\.)(?=\s|$)|[\n\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f]"
)
_ARTICLES = {"a", "an", "the"}
_YES = frozenset("yes yeah true correct right sure certain".split())
_NO = frozenset("no not false incorrect wrong untrue isnt wasnt arent".split())


@lru_cache(maxsize=4096)  # the answers to one prompt are matched against many texts
def normalise(text: str) -> str:
    """Return the words of ``text`` that matter, separated by single spaces. Idempotent."""
    folded = unicodedata.normalize("NFKC", text).lower()
    # "don't" is one word; without the apostrophe two characters may compose into a new one
    joined = unicodedata.normalize("NFKC", folded.replace("'", "").replace("’", ""))
    words = "".join(map(_in_words, _STOPS.sub(" ", _THOUSANDS.sub("", joined)))).split()
    # an answer that consists of articles, such as "A", keeps them
    return " ".join([word for word in words if word not in _ARTICLES] or words)


@lru_cache(maxsize=4096)
def _in_words(char: str) -> str:
    """Return ``char`` as part of a word, as a word of its own, or as a space between words."""
    # category M: combining marks belong to their words; many scripts write vowels with them
    if not (char.isalnum() or char == "." or unicodedata.category(char)[0] == "M"):
        return " "
    return f" {char} " if unicodedata.name(char, "").startswith(_UNSPACED) else char


def contains(text: str, answers: Iterable[str]) -> bool:
    """Return whether ``text`` contains one of ``answers`` as whole words.

    An answer that consists only of punctuation never matches.
    """
    padded = f" {normalise(text)} "
    return any(f" {wanted} " in padded for answer in answers if (wanted := normalise(answer)))


def exact(text: str, answers: Iterable[str]) -> bool:
    """Return whether ``text``, normalised, equals one of ``answers``."""
    return normalise(text) in {wanted for answer in answers if (wanted := normalise(answer))}


def same_answer(text: str, base_text: str, answers: Iterable[str]) -> bool:
    """Return whether both texts give the same answer.

    They do if both contain one of ``answers``, or if their first clauses have the same words.
    """
    answers = list(answers)
    if contains(text, answers) and contains(base_text, answers):
        return True
    return first_clause(text) == first_clause(base_text)


def first_clause(text: str) -> str:
    """Return the normalised words up to the first comma, full stop or line end.

    They are the answer; after it the model continues with other text.
    """
    return normalise(_CLAUSE_END.split(re.sub(r"^\W+", "", text), maxsplit=1)[0])


def yes_or_no(text: str) -> bool | None:
    """Return the answer of ``text``'s first sentence to a yes/no or true/false question.

    The first word of assent or denial decides: both "That is not true" and "No, it is true that
    ..." mean no. ``None`` if there is no such word.
    """
    words = normalise(re.split(r"[.!?](?=\s|$)|\n", text.strip(), maxsplit=1)[0]).split()
    return next((word in _YES for word in words if word in _YES | _NO), None)
