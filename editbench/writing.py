"""How languages write: question marks, quotation marks, and scripts without spaces.

This is about text alone: no model and no tokenizer.
"""

from __future__ import annotations

import re
import unicodedata

EAST_ASIAN = (
    "\u2e80-\u2fdf\u3001-\u312f\u31a0-\u31ff\u3220-\u33ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\ufe30-\ufe4f\uff01-\uff9f\U00020000-\U0003ffff"
)
"""Ranges of a regular expression: Chinese and Japanese letters and punctuation, without Hangul."""
SOUTH_EAST_ASIAN = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\ua9e0-\ua9ff\uaa60-\uaa7f"
"""The same of Thai, Lao, Myanmar and Khmer."""

QUESTION_MARKS = "?\uff1f\u061f\u037e\u055e\u1367\u2047\u2048\u2049\u203d\ufe16\ufe56"
"""Latin, full-width, Arabic, Greek, Armenian, Ethiopic, doubled, and two narrow forms."""
# Quotes, brackets, marks of emphasis, "!" and dots may close a question after its question mark.
_AFTER_A_QUESTION = re.compile(
    r"[\s!.\u2026\"'*_`)\]}>\u2018\u2019\u201c\u201d\u00ab\u00bb\u2039\u203a"
    r"\u3002\u300d\u300f\u3009\u300b\uff01\uff09\u200b-\u200f\u2060\ufeff]+$"
)

# An article that has lost its vowel and is written onto the next word: l'auteur, dell'isola.
ELIDED = (
    r"(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quelqu|all|coll|dall|dell|nell|sull|un|quest|quell|sant)"
    r"['\u2019]"
)
_ELIDED_END = re.compile(rf"(?<!\w)(?:{ELIDED}|o['\u2019])$", re.IGNORECASE)
# "Anglo-", "and/", "https://", and a handle or number sign that begins a word.
_WRITTEN_ONTO_THE_NEXT = re.compile(r"(?:\w[-\u2010-\u2014]|[\w/]/|(?<!\S)[@#])$")
# A mark that leans on the word before it, if a space or nothing but a possessive's "s" follows.
_LEANS_BACK = re.compile(
    r"(?:[,;:.!?\u2026%)\]}\u00bb\u201d\u060c\u061b\u061f]|['\u2019]s)(?=\s)"
    r"|[\u3001\u3002\u3009\u300b\u300d\u300f\uff01\uff09\uff0c\uff0e\uff1a\uff1b\uff1f]"
)
# What may stand between the letters of two words that are joined all the same.
_CLOSING = re.compile(r"[\"'*_`)\]}:;,\u2019\u201d\u00bb\u203a-]+$")
_OPENING = re.compile(r"^[\"'*_`(\[{\u2018\u201c\u00ab\u2039]+")
_EAST = re.compile(f"[{EAST_ASIAN}]")
UNSPACED = re.compile(f"[{EAST_ASIAN}{SOUTH_EAST_ASIAN}]")
"""Matches a character of the scripts that put no spaces between words."""
SENTENCE_ENDS = (".", "!", "?", "\u2026", *"\u3002\uff0e\uff01\uff1f\uff61\u061f\u06d4\u0964\u0589")
"""Marks after which a sentence needs no full stop."""


def is_question(text: str) -> bool:
    """Return whether ``text`` ends with a question mark of any script.

    Closing quotes, brackets, spaces, dots and "!" may follow the mark. In Greek, a semicolon is the
    question mark. In Armenian, the mark stands over a vowel of the last sentence.
    """
    text = _AFTER_A_QUESTION.sub("", text)
    if text.endswith(tuple(QUESTION_MARKS)):
        return True
    if text.endswith(";"):
        letters = [char for char in text if char.isalpha()]
        return bool(letters) and unicodedata.name(letters[-1], "").startswith("GREEK")
    *_, last = re.split("[\u0589:]", text.rstrip("\u0589: "))
    return "\u055e" in last


def gap(before: str, after: str) -> str:
    """Return what stands between a text and its continuation: one space, or nothing.

    Nothing stands

    - after white space, an opening quote or bracket, an elided article ("l'"), or a hyphen or slash
      that touches a word;
    - after a currency sign, if a digit follows;
    - before a mark that leans back, such as ", " or "'s ";
    - between two letters of scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Myanmar),
      also where closing or opening quotes stand between them;
    - after Chinese and Japanese text, whatever follows: "\u4eba\u53e3\u306f" + "1,463" and
      "\u8457\u8005\u306f" + "Ada". Texts in these languages seldom put a space there, while Thai,
      Lao, Khmer and Myanmar texts do, and an English text puts one before a foreign word.
    """
    if not before or not after or before[-1].isspace():
        return ""
    if opens_quote(before) or _LEANS_BACK.match(after) or _WRITTEN_ONTO_THE_NEXT.search(before):
        return ""
    first = _OPENING.sub("", after)[:1]
    if _ELIDED_END.search(before) and first.isalpha():
        return ""
    if unicodedata.category(before[-1]) == "Sc" and after[0].isdigit():
        return ""
    last = _CLOSING.sub("", before)[-1:]
    joined = _EAST.match(last) or (UNSPACED.match(last) and UNSPACED.match(first))
    return "" if joined else " "


def full_stop(prompt: str, target: str) -> str:
    """Return the mark that ends the sentence of a prompt and its target; empty if one is there."""
    if target.endswith(SENTENCE_ENDS):
        return ""
    # The prompt decides: "The capital of Japan is \u6771\u4eac." is an English sentence.
    return "\u3002" if _EAST.match(_CLOSING.sub("", prompt)[-1:]) else "."


_PARTNERS = {
    '"': '"',
    "'": "'",
    "`": "`",
    "\u201d": "\u201d",
    "\u201c": "\u201e",
    "\u2018": "\u201a",
    "\u00ab": "\u00bb",
    "\u00bb": "\u00ab",
}
"""Quotation mark that may open or close -> the mark that stands at the other end if it closes."""


def opens_quote(text: str) -> bool:
    """Return whether ``text`` ends with an opening bracket or quotation mark.

    Languages use the same marks differently (\u00abx\u00bb and \u00bbx\u00ab, \u201ex\u201c
    and \u201cx\u201d), so the text before the mark decides.
    """
    mark, before = text[-1:], text[-2:-1]
    if mark and unicodedata.category(mark) == "Ps":  # brackets, \u300c and \u201e
        return True
    # A mark that touches a word closes. Chinese and Japanese words touch both kinds.
    if mark not in _PARTNERS or (before.isalnum() and not _EAST.match(before)):
        return False
    if mark == "'":  # apostrophes are not counted
        return not before or before.isspace()
    if mark == "\u201d" and ("\u201c" in text or "\u201e" in text):
        return False
    other = _PARTNERS[mark]
    if other == mark:
        return text.count(mark) % 2 == 1
    return text.count(other) < text.count(mark)


# --- characters that look alike -----------------------------------------------------------------

_LIKE = {
    **dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"),
    **dict.fromkeys("\u2010\u2011\u2012\u2013", "-"),
}


def looks_alike(wanted: str, text: str) -> str:
    """Return which characters keep ``wanted`` from being in ``text``, where it looks as if it were.

    The result is empty if the two can be told apart by eye.
    """
    seen = [(part, char) for char in text for part in _look(char)]
    meant = [(part, char) for char in wanted for part in _look(char)]
    start = "".join(part for part, _ in seen).find("".join(part for part, _ in meant))
    if not meant or start < 0:
        return ""
    for (_, there), (_, here) in zip(seen[start:], meant, strict=False):
        if there != here:
            return (
                f": the prompt has {_code_point(there)} where the subject has {_code_point(here)}"
            )
    hidden = [char for char in (*wanted, *text) if not _look(char)]
    return f": one of them has {_code_point(hidden[0])}, which is not seen" if hidden else ""


def _look(char: str) -> str:
    """Return the plain characters that ``char`` looks like; nothing if it is not seen."""
    if unicodedata.category(char) == "Cf":
        return ""
    return " " if char.isspace() else _LIKE.get(char) or unicodedata.normalize("NFKC", char)


def _code_point(char: str) -> str:
    return f"U+{ord(char):04X} ({unicodedata.name(char, 'no name').lower()})"
