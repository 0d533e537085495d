"""Match answers. This is the project's only matcher; it works on text alone.

Both sides are first brought into one form (``normal_form.py``): case, numbers, dates, signs and
initials. ``contains`` then matches whole words, so "Nigeria" does not contain "Niger". In scripts
that put no spaces between words, each character counts as a word. In Korean a word may end in a
particle.

An answer that is only denied or corrected ("It is not Paris but Lyon.") is not contained, and
``denies`` finds it. ``eval/DEFINITIONS.md`` has the rules in full.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple

from editbench.normal_form import (
    COMMON,
    MARKS,
    canonical,
    folded,
    leading_articles,
    normalise,
    plain,
    split,
    words,
)

__all__ = [
    "contains",
    "denies",
    "exact",
    "first_clause",
    "mentions",
    "normalise",
    "same_answer",
    "yes_or_no",
]

# A full stop ends a clause after three letters or digits only, so that "St.", "U.S." and "1."
# do not. The escapes are the CJK comma and full stop, and the full-width , ; : ! and ?
_CLAUSE_END = re.compile(
    r"(?:[,;:!?]|(?<=\w{3})\.)(?=\s|$)|[\n\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f\u060c\u061f]"
)
_OPENING = re.compile(r"^(?:(?![-\u2212]?[$€£¥]?\d)\W)+")
"""What stands before the first word or signed number."""
_YES = frozenset("yes yeah true correct right sure certain".split())
_NO = frozenset("no not false incorrect wrong untrue isnt wasnt arent".split())

_MARKS = frozenset(MARKS.values())

_HANGUL = re.compile("[\uac00-\ud7a3]")
# Of one syllable, and so only after an answer of several: 수도 (capital) is not 수 with 도 (too)
_PARTICLE = "[은는이가을를에의도만와과로]"
_ENDING = (
    "으로|에서|에게|께서|한테|부터|까지|처럼|보다|하고|이나|이랑|마다|조차|밖에|"
    "입니다|입니까|이다|이에요|예요|이야|이었다|였다|이었습니다|였습니다|이라고|라고|이라는|라는|이며|이고"
)


_AROUND = 30
"""Words and marks around a mention that may deny it. Whole texts would take quadratic time."""
ABBREVIATION = 4
"""Letters of the longest upper-case answer that needs its case."""
_SMALL_INITIALS = re.compile(r"\b[a-z](?: [a-z]\b)+")

# --- what denies a mention; words in lower case, marks apart, apostrophes dropped -----------------
_NT = "(?:is|was|are|were|do|does|did|has|have|had|ca|wo|could|would|should|ai)nt"
# Between the denial and the answer: small words, and one other word, as in "not located in".
_SMALL = (
    "(?: (?:a|an|the|in|at|on|from|by|to|for|as|with|be|been|have|actually|really|even"
    "|(?:city|town|state|type|kind|sort|form|name|part|member|native|made) of))*"
)
_OTHER = (
    "(?: (?!(?:only|just|merely|simply|sure|certain|until|till|before|than|but|it|he|she|they|this"
    "|that|which|who|because|if|whether|and|or|of|far|least|unlike|mention|miss|surprisingly)\\b)"
    "[^ .,;:!?]+)?"
)
_BEFORE = re.compile(
    rf"(?<! or)(?<! than)(?<! why) (?:(?:not|no longer|cannot|{_NT}){_SMALL}{_OTHER}"
    rf"|never|neither|nor|instead of|rather than){_SMALL}$"
    r"| (?:do not|dont) (?:think|believe)(?: that)?"
    rf"(?: (?:it|this|that|he|she|they|the answer)(?: (?:is|was|’s))?)?{_SMALL}$"
    r"| (?:not true|not correct|untrue|false|incorrect|wrong) that(?: [^ .;:!?]+)*$"
    rf"| (?:not|neither|{_NT})(?: [^ .,;:!?]+){{1,3}} (?:or|nor){_SMALL}$"
)
_AFTER = re.compile(
    # "Paris? No", "Is Paris the capital? No"
    r"^(?: [^ .!?;:]+){0,8} \?(?: well| actually| oh| ,)*"
    r" (?:(?:no|nope)(?= [.,;:!]| it | that | $)|not (?!sure |certain )|wrong |false )"
    # "Paris is wrong", "Paris is not the capital"
    r"|^ (?:is|was|are|were)(?:nt| not| never| no longer| wrong| incorrect| false)"
    r"(?! only| just| merely| always| yet| far| unlike| built in| known| clear| certain| sure"
    r"| to be)"
    # "Paris, no, Lyon", "Paris. No, it is Lyon", "Paris, I mean Lyon"
    r"|^ [,;] (?:(?:no|wait|sorry|correction) [,:;]|no wait|i mean|or rather) |^ [.!] no , "
)
# "once Paris, now Lyon", "It used to be Paris. Now it is Lyon", "was Paris, but is now Lyon"
_FORMERLY = re.compile(
    r" (?:once|formerly|previously|originally|used to)(?! from\b)(?: [^ .,;:!?]+){0,3}$"
    r"| (?:it|this) was$"
)
_NOW = re.compile(
    r"^(?: [^ .,;:!?]+){0,3}(?: [.,;])?(?: but| and| it| is){0,3}"
    r" (?:now|today|currently) (?!an? |the )"
)
_CUE = re.compile(
    rf" (?:not|never|no|nope|neither|nor|cannot|instead|rather|{_NT}|untrue|false|incorrect|wrong"
    "|wait|sorry|correction|mean|now|today|currently) "
)
"""Without one of these words a text denies nothing."""
_ASKED = re.compile(
    rf" (?:not|never|no longer|cannot|{_NT}|once|formerly|former|previously|originally|used to) "
)
"""To "What did he never return?" a right answer may repeat the "never"."""


class _Found(Enum):
    """How a text mentions an answer."""

    ABSENT = auto()
    DENIED = auto()
    """Each mention is denied or corrected."""
    STATED = auto()


class _Wanted(NamedTuple):
    """An answer as it is searched."""

    joined: str
    """Its words, between spaces."""
    split: str
    """The same with possessives and elisions split, and initials in small letters joined."""
    cased: tuple[str, ...]
    """The words that the text must have in upper case."""


class _Read(NamedTuple):
    """A text as it is searched; the first fields are those of ``_Wanted``."""

    joined: str
    split: str
    korean: bool


def contains(text: str, answers: Iterable[str], prompt: str = "") -> bool:
    """Return whether ``text`` states one of ``answers``: as whole words, and without denying it.

    An answer without words, such as an emoji, is searched letter for letter. An empty one never
    matches.

    Args:
        prompt: what was asked. If the question itself has a word of denial ("Which book did he
            never return?"), its answer may have it too, and nothing counts as denied.
    """
    found = _find(text, answers)
    return found is _Found.STATED or (found is _Found.DENIED and _asks_for_denial(prompt))


def denies(text: str, answers: Iterable[str], prompt: str = "") -> bool:
    """Return whether ``text`` mentions one of ``answers``, but only to deny or to correct it.

    ``contains`` is then false. "It is not Paris but Lyon.", "Paris? No, it is Lyon." and "once
    Paris, now Lyon" deny Paris.
    """
    return _find(text, answers) is _Found.DENIED and not _asks_for_denial(prompt)


def mentions(text: str, answers: Iterable[str]) -> bool:
    """Return whether ``text`` names one of ``answers``, to state or to deny it."""
    return _find(text, answers) is not _Found.ABSENT


@lru_cache(maxsize=4096)
def _asks_for_denial(prompt: str) -> bool:
    return bool(prompt and _ASKED.search(f" {folded(prompt)} "))


def exact(text: str, answers: Iterable[str]) -> bool:
    """Return whether ``text`` is one of ``answers`` and nothing else."""
    whole = normalise(text)
    return any(
        # The same words may differ in the case of an abbreviation, or be none at all.
        normalise(answer) == whole
        and _find(text, [answer]) is not _Found.ABSENT
        and (whole or _raw(text) == _raw(answer))
        for answer in answers
    )


def same_answer(text: str, base_text: str, answers: Iterable[str], prompt: str = "") -> bool:
    """Return whether both texts give the same answer.

    They do if both contain one of ``answers``, or if their first clauses have the same words.
    """
    answers = list(answers)
    if contains(text, answers, prompt) and contains(base_text, answers, prompt):
        return True
    return first_clause(text) == first_clause(base_text)


def first_clause(text: str) -> str:
    """Return the normalised words up to the first comma, full stop or line end.

    They are the answer; after it the model continues with other text. The comma of a date ends
    nothing. A text without words is returned as it is.
    """
    opened = _OPENING.sub("", canonical(text))
    return normalise(_CLAUSE_END.split(opened, maxsplit=1)[0]) or text.strip()


def yes_or_no(text: str) -> bool | None:
    """Return the answer of ``text``'s first sentence to a yes/no or true/false question.

    The first word of assent or denial decides: both "That is not true" and "No, it is true that
    ..." mean no. ``None`` if there is no such word.
    """
    first = normalise(re.split(r"[.!?](?=\s|$)|\n", text.strip(), maxsplit=1)[0]).split()
    return next((word in _YES for word in first if word in _YES | _NO), None)


# --- mentions -------------------------------------------------------------------------------------


def _find(text: str, answers: Iterable[str]) -> _Found:
    """Return how ``text`` mentions ``answers``: stated if one of them is."""
    read, found = _read(text), _Found.ABSENT
    for answer in answers:
        wanted = _wanted(answer)
        # Nearly all pairs end here, so this comes first.
        if wanted.joined not in read.joined and wanted.split not in read.split:
            if read.korean and _before_particle(read.joined, wanted.joined):
                return _Found.STATED
            continue
        one = _Found.STATED
        if not wanted.joined or wanted.cased or _has_cue(text):
            one = _look_closely(text, answer)
        if one is _Found.STATED:
            return one
        found = one if one is _Found.DENIED else found
    return found


@lru_cache(maxsize=4096)
def _look_closely(text: str, answer: str) -> _Found:
    """Return how ``text``, which has the words of ``answer``, mentions it."""
    wanted = _wanted(answer)
    if not wanted.joined:
        return _Found.STATED if (raw := _raw(answer)) and raw in _raw(text) else _Found.ABSENT
    found = None
    for sought in dict.fromkeys((wanted.joined, wanted.split)):
        for mention in _mentions(text, sought.split()):
            found = found or _Found.ABSENT
            if _in_case(mention, wanted.cased):
                found = _Found.DENIED
                if not _is_denied(mention):
                    return _Found.STATED
        if found:
            return found
    # "McDonalds" is found in "McDonald's", where ``_mentions`` splits the possessive.
    return _Found.STATED


@lru_cache(maxsize=4096)  # many answers are looked for in a text
def _read(text: str) -> _Read:
    joined, one = f" {folded(text)} ", canonical(text)
    apart = f" {words(split(one))} " if "'" in one else joined
    return _Read(joined, apart, not text.isascii() and bool(_HANGUL.search(text)))


@lru_cache(maxsize=4096)
def _has_cue(text: str) -> bool:
    return bool(_CUE.search(_read(text).joined))


@lru_cache(maxsize=4096)  # the answers to one prompt are matched against many texts
def _wanted(answer: str) -> _Wanted:
    one = canonical(answer)
    # "a c milan" in small letters is A.C. Milan, too. In a text, "a" is rather an article.
    initials = _SMALL_INITIALS.sub(lambda found: found[0].replace(" ", ""), one)
    cased = words(one, fold=False).split()
    cased = cased[leading_articles([word.casefold() for word in cased]) :]
    upper = tuple(
        word
        for word in cased
        if word.isalpha()
        and word.isupper()
        and len(word) <= ABBREVIATION
        # in a longer name the other words tell, unless the letters spell a word: "US Open"
        and (len(cased) == 1 or word.lower() in COMMON)
    )
    return _Wanted(_sought(one), _sought(split(initials)), upper)


def _sought(form: str) -> str:
    """Return the words of an answer between spaces; nothing, if there are none."""
    found = words(form).split()
    return f" {' '.join(found[leading_articles(found) :])} " if found else ""


def _raw(text: str) -> str:
    return plain(text).strip()


def _before_particle(text: str, answer: str) -> bool:
    """Return whether words of ``text`` are the answer with Korean particles at its end."""
    answer = answer.strip()
    one = f"|{_PARTICLE}" if len(answer) > 1 else ""
    return bool(re.search(rf" {re.escape(answer)}(?:(?:{_ENDING}{one}){_PARTICLE}?) ", text))


class _Mention(NamedTuple):
    """A place where a text names an answer."""

    before: str
    """The last words and marks before it, in lower case, each after a space."""
    named: Sequence[str]
    """The words of the answer as the text writes them."""
    after: str
    """The next ones, likewise, with a space behind them."""


def _mentions(text: str, sought: Sequence[str]) -> Iterator[_Mention]:
    """Find the words ``sought`` in ``text``; marks may stand between them."""
    tokens = words(split(canonical(text)), marks=True, fold=False).split()
    lower = [unicodedata.normalize("NFKC", token.casefold()) for token in tokens]
    places = [i for i, token in enumerate(tokens) if token not in _MARKS]
    spoken = [lower[i] for i in places]
    for at in range(len(spoken) - len(sought) + 1):
        if spoken[at : at + len(sought)] == list(sought):
            first, last = places[at], places[at + len(sought) - 1]
            yield _Mention(
                "".join(f" {token}" for token in lower[max(0, first - _AROUND) : first]),
                [tokens[i] for i in places[at : at + len(sought)]],
                "".join(f" {token}" for token in lower[last + 1 : last + 1 + _AROUND]) + " ",
            )


def _in_case(mention: _Mention, cased: Sequence[str]) -> bool:
    """Return whether the words ``cased`` are in upper case: "us" is not "US", nor "A man" A."""
    if not cased:
        return True
    # "Nato" and "Oslo" are NATO and OSLO, but "Who" is not the WHO
    named = {
        word.upper() if len(word) == ABBREVIATION and word[0].isupper() else word
        for word in mention.named
    }
    if not named.issuperset(cased):
        return False
    following = mention.after.split(maxsplit=1)[:1]
    article = list(mention.named) == ["A"] and following and following[0] not in COMMON | _MARKS
    return not article


def _is_denied(mention: _Mention) -> bool:
    return bool(
        _BEFORE.search(mention.before)
        or _AFTER.search(mention.after)
        or (_FORMERLY.search(mention.before) and _NOW.search(mention.after))
    )
