"""Bring texts into the form in which the matcher compares them.

``canonical`` returns a text whose numbers, dates, signs and initials are written in one way;
``words`` splits it into words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

from editbench.writing import EAST_ASIAN, SOUTH_EAST_ASIAN, UNSPACED

_APOSTROPHES = "’‘‛′`\u02b9\u02bb\u02bc\u02bd\u02be\u02bf\ua78b\ua78c"
"""Characters that stand for an apostrophe, the okina of Hawaiian among them."""
SPLIT = "’"
"""Marks the possessive and the elision in texts that are read with their words split. Free for
that, as every apostrophe of the text itself becomes a plain one."""
_ARTICLES = frozenset(("a", "an", "the"))
COMMON = frozenset(
    "a an the and or but if so as at by for from in of on to up with it he she we you they me us "
    "him her them my our who what when where why how which this that these those is are was were "
    "be been do does did has have had can could will would may might no not yes because".split()
)
"""English words that are in every text, whatever it says."""

_BEFORE_NFKC = {ord("´"): "'", ord("\uff40"): "'", ord("™"): " ", ord("℠"): " "}
_SPACED_THOUSANDS = re.compile(r"(?<!\d)\d{1,3}(?:[\u00a0\u2007\u2009\u202f]\d{3})+(?!\d)")
# Superscripts and fractions: NFKC writes 10⁵ as 105 and 2½ as 21/2.
_RAISED = re.compile(r"(?<=\d)(?=[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u218b])")

_DIGIT = re.compile(r"\d")
_THOUSANDS = re.compile(r"(?<=\d)(?:,(?=(?:\d\d,)*\d{3}(?!\d))|'(?=\d{3}(?!\d)))")
_QUOTED_DIGITS = re.compile(r"(?<=\d)'(?=\d)")
_BARE_POINT = re.compile(r"(?<![\w.])\.(?=\d)")
# "3.0" is 3, but "2.0.1" is a version, and "3.10" is not 3.1
_WHOLE = re.compile(
    rf"(?:(?<![\w.])|(?<=[{EAST_ASIAN}{SOUTH_EAST_ASIAN}]))(\d+)\.0+"
    rf"(?!(?![{EAST_ASIAN}{SOUTH_EAST_ASIAN}])\w|\.\d)"
)
_MINUS = re.compile(r"(?:(?<![\w)\]%.])-|(?<![\w)\]%.])(?<!\d )–)(?=[$€£¥]?\d)")
_LOST_MINUS = re.compile("\u2212(?!\\d)")
_STOPS = re.compile(r"\.(?:(?!\d)|(?<!\d\.))")
"""Full stops that are not decimal points."""

_MONTHS = (
    "january february march april may june july august september october november december".split()
)
_MONTH = (
    r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_DAY, _YEAR = r"(0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?\b", r"(\d{4})\b"
_DATE = re.compile(
    rf"\b(?:{_DAY}\.?(?: of)? {_MONTH}(?:,? {_YEAR})?"
    rf"|{_MONTH} (?:the )?{_DAY}(?![.,]\d)(?:,? {_YEAR})?"
    rf"|{_MONTH},? {_YEAR})",
    re.IGNORECASE,
)
_ISO_DATE = re.compile(r"(?<![\w-])(\d{4})([-/])(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?![\w-])")

_UNITS = {"%": "percent", "$": "dollars", "€": "euros", "£": "pounds", "¥": "yen", "₹": "rupees"}
_UNIT_WORDS = {
    "per cent": "percent",
    "dollar": "dollars",
    "us dollar": "dollars",
    "us dollars": "dollars",
    "usd": "dollars",
    "euro": "euros",
    "eur": "euros",
    "pound": "pounds",
    "gbp": "pounds",
}
_NUMBER = r"((?<!\d)\d+(?:\.\d+)?(?: (?:hundred|thousand|million|billion|trillion))?)"
_MONEY = re.compile(rf"(\u2212?)([$€£¥₹]) ?(\u2212?){_NUMBER}(?!\w|\.\d)", re.IGNORECASE)
_UNIT = re.compile(
    rf"{_NUMBER} ?([%$€£¥₹]|(?<= )(?:{'|'.join(sorted(_UNIT_WORDS, key=len, reverse=True))})\b)",
    re.IGNORECASE,
)
_PLUS = re.compile(r"(?<=\d)\+(?! ?\d)")
# In C++, C#, A+ and B♭ the sign belongs to the name.
_SIGN = re.compile(r"((?<=[A-Za-z])(?:\+\+(?![A-Za-z])|[+#♭](?!\w)))|[+#♭]")

# Written from the full stop backwards, which is much faster to search.
_INITIAL = re.compile(r"\.(?<=\b[^\W\d_]\.)")
_DOTTED_INITIALS = re.compile(r"\b(?:[^\W\d_]\.(?: ?[^\W\d_]\.)+|(?:[^\W\d_]\.)+[^\W\d_](?!\w))")
_SPACED_INITIALS = re.compile(r"\b[A-Z](?: (?!I\b)[A-Z])+(?![\w'])")
_POSSESSIVE = re.compile(r"(?<=\w)'[sS](?!\w)")
_ELISION = re.compile(
    r"(?<![\w'])([cdjlmnstCDJLMNST]|[Qq]u|(?:[Aa]|[Dd]a|[Dd]e|[Nn]e|[Ss]u)ll|[Uu]n)'(?=\w)"
)


class _Characters(dict[int, str]):
    """A table for ``str.translate`` that computes the entry of a character when it is first met."""

    def __init__(self, entry: Callable[[str], str]) -> None:
        super().__init__()
        self.entry = entry

    def __missing__(self, code: int) -> str:
        self[code] = self.entry(chr(code))
        return self[code]


def _plain(char: str) -> str:
    """Return ``char`` in its usual form; nothing for format characters."""
    # Cf: zero-width characters, soft hyphens, bidi marks; U+FE00 to U+FE0F choose a glyph
    if unicodedata.category(char) == "Cf" or "\ufe00" <= char <= "\ufe0f":
        return ""
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    return _SAME.get(char, char)


_SAME = {
    **dict.fromkeys(_APOSTROPHES, "'"),
    "\u2212": "-",
    "\u2010": "-",
    "\u2011": "-",
    "♯": "#",
    "\u066b": ".",
    "\u066c": ",",
}
_PLAIN = _Characters(_plain)


def _in_words(char: str) -> str:
    """Return ``char`` as part of a word, as a word of its own, or as a space between words."""
    if char == "\u2212":  # by now, a minus is a minus and a hyphen a hyphen
        return "-"
    if char == "'":  # "don't" is one word
        return ""
    # category M: combining marks belong to their words; many scripts write vowels with them
    if not (char.isalnum() or char in ".+#♭’" or unicodedata.category(char)[0] == "M"):
        return " "
    return f" {char} " if UNSPACED.match(char) else char


_IN_WORDS = _Characters(_in_words)
MARKS = {
    **dict.fromkeys(",،、–—()", ","),
    **dict.fromkeys(".。।\n", "."),
    **dict.fromkeys("?؟", "?"),
    **{mark: mark for mark in ";:!"},
}
"""Marks that separate clauses and sentences, each with the one that it counts as."""
_WITH_MARKS = _Characters(lambda char: f" {MARKS[char]} " if char in MARKS else _in_words(char))
_WITH_MARKS[ord(".")] = "."  # what is left of them are decimal points


@lru_cache(maxsize=4096)  # the answers to one prompt are matched against many texts
def normalise(text: str) -> str:
    """Return the words of ``text`` in the form in which they are compared. Idempotent.

    They are in lower case and separated by single spaces. Leading articles are left out, unless
    only articles and other words of ``COMMON`` follow them, as in "A" and "The Who".
    """
    found = folded(text).split()
    return " ".join(found[leading_articles(found) :])


@lru_cache(maxsize=4096)
def folded(text: str) -> str:
    """Return the words of ``text`` as ``normalise`` does, with all articles."""
    return words(canonical(text))


def leading_articles(found: Sequence[str]) -> int:
    """Return how many of the first words are articles that may be left out."""
    count = next((i for i, word in enumerate(found) if word not in _ARTICLES), 0)
    return count if count and any(word not in COMMON for word in found[count:]) else 0


def plain(text: str) -> str:
    """Return ``text`` without format characters, with plain digits and apostrophes, under NFKC."""
    if text.isascii():
        return text
    text = _SPACED_THOUSANDS.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    text = _RAISED.sub(" ", text).translate(_BEFORE_NFKC)
    return unicodedata.normalize("NFKC", text).translate(_PLAIN)


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """Return ``text`` with its numbers, dates, units, signs and initials written in one way."""
    text = plain(text).replace("`", "'")
    if _DIGIT.search(text):
        text = _numbers(text)
    if "&" in text:
        text = text.replace("&", " and ")
    if "+" in text or "#" in text or "♭" in text:
        text = _SIGN.sub(lambda found: f"{found[1]} " if found[1] else " ", text)
    if _INITIAL.search(text):
        text = _DOTTED_INITIALS.sub(_without_gaps, text)
    return _SPACED_INITIALS.sub(_without_gaps, text)


def _without_gaps(found: re.Match[str]) -> str:
    return found[0].replace(".", "").replace(" ", "")


def _numbers(text: str) -> str:
    text = _QUOTED_DIGITS.sub(" ", _THOUSANDS.sub("", text))
    text = _WHOLE.sub(r"\1", _BARE_POINT.sub("0.", text))
    text = _ISO_DATE.sub(lambda d: f"{int(d[4])} {_MONTHS[int(d[3]) - 1]} {d[1]}", text)
    text = _MINUS.sub(" \u2212", _DATE.sub(_date, text))
    text = _MONEY.sub(lambda m: f" {m[1]}{m[3]}{m[4]} {_UNITS[m[2]]}", text)
    text = _UNIT.sub(_unit, text)
    return _PLUS.sub(" plus", _LOST_MINUS.sub(" ", text))


def _date(found: re.Match[str]) -> str:
    """Return a date as day, month and year, without the parts that it lacks."""
    day, month = found[1] or found[5], found[2] or found[4] or found[7]
    year = found[3] or found[6] or found[8]
    # "may 9" and "march 10" without a capital and a year are rather words and numbers
    if found[4] and not year and month[0].islower():
        return found[0]
    name = month.lower()
    if year:
        name = next(full for full in _MONTHS if full.startswith(name[:3]))
    return " ".join(filter(None, (str(int(day)) if day else "", name, year)))


def _unit(found: re.Match[str]) -> str:
    unit = found[2].lower()
    return f"{found[1]} {_UNITS.get(unit) or _UNIT_WORDS[unit]} "


def words(text: str, marks: bool = False, fold: bool = True) -> str:
    """Return the words of a canonical text, separated by single spaces.

    Args:
        marks: keep the marks between clauses and sentences, as words of their own.
        fold: in lower case.
    """
    if marks:
        spaced = _STOPS.sub(" . ", text.replace(" - ", " , ")).translate(_WITH_MARKS)
    else:
        spaced = (_STOPS.sub(" ", text) if "." in text else text).translate(_IN_WORDS)
    if fold:
        spaced = spaced.casefold()
    # Without an apostrophe, or in lower case, two characters may compose into a new one.
    found = (spaced if text.isascii() else unicodedata.normalize("NFKC", spaced)).split()
    return " ".join(found)


def split(text: str) -> str:
    """Return a canonical text with possessives and elisions split: "Einstein's", "l'Italie"."""
    return _ELISION.sub(rf"\1{SPLIT} ", _POSSESSIVE.sub(rf" {SPLIT}s", text))
