"""Find the subject of a fact: the span of its prompt at which weight editors read their key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from editbench.errors import MethodError
from editbench.types import Fact
from editbench.writing import EAST_ASIAN, ELIDED, is_question

Span = tuple[int, int]
"""Where a span begins and ends in its prompt."""


@dataclass(frozen=True)
class Subject:
    """Where a fact's subject stands in its prompt: ``prompt[start:start + len(text)]``."""

    text: str
    start: int
    source: str
    """``given``, ``rule`` (a name or quotation in the prompt) or ``last word``."""
    doubt: str = ""
    """Why the rule may have found the wrong span; empty if it is given or plain."""

    @property
    def last(self) -> int:
        """Index of the subject's last character in the prompt."""
        return self.start + len(self.text) - 1


def find_subject(fact: Fact) -> Subject:
    """Return the subject of ``fact``.

    This is the given subject, else the longest quotation in the prompt, else the longest name (a
    run of capitalised words that may contain small connecting words and numbers), else the last
    word that is not a function word ("is", "by").

    Raises:
        MethodError: The given subject occurs more than once, so its place would be a guess.
    """
    prompt = fact.prompt
    if fact.subject is not None:
        starts = places(fact.subject, prompt)
        if len(starts) > 1:
            raise MethodError(
                f"Fact {fact.id!r}: subject {fact.subject!r} occurs {len(starts)} times in its "
                f"prompt {prompt!r}, and weight editors read their key at one place. "
                "Give the longer form that occurs once, or reword the prompt."
            )
        return Subject(fact.subject, starts[0], "given")
    quoted = _quotations(prompt)
    if spans := quoted or _names(prompt):
        start, end = max(spans, key=lambda span: span[1] - span[0])
        return Subject(prompt[start:end], start, "rule", _doubt(prompt, spans, bool(quoted)))
    start, end = _last_word(prompt)
    return Subject(prompt[start:end], start, "last word", "the prompt has no name")


def with_subject(fact: Fact) -> Fact:
    """Return ``fact`` with the subject that was found, if it has none and it occurs once."""
    if fact.subject is not None:
        return fact
    found = find_subject(fact).text
    return replace(fact, subject=found) if len(places(found, fact.prompt)) == 1 else fact


def places(subject: str, prompt: str) -> list[int]:
    """Return where ``subject`` begins in ``prompt``: as whole words if any, else anywhere."""
    starts = [match.start() for match in re.finditer(re.escape(subject), prompt)]
    words = [
        i
        for i in starts
        if not (prompt[i - 1 : i].isalnum() or prompt[i + len(subject) :][:1].isalnum())
    ]
    return words or starts


def _doubt(prompt: str, spans: Sequence[Span], quoted: bool) -> str:
    """Return why the longest of ``spans`` may not be the subject; empty if nothing speaks against.

    On CounterFact (EasyEdit's form, the half that the rule was not made on), 99 % of the subjects
    without a doubt end where the given ones do. With one they do in 52 % (several names), 85 % (the
    word opens the sentence) and 69 % (no name).
    """
    # A subject that occurs twice has a warning of its own.
    if (different := len({prompt[start:end] for start, end in spans})) > 1:
        return f"one of {different} {'quotations' if quoted else 'names'}"
    start, end = spans[0]
    # "Nintendo's", "Velmora," and "iOS" are names, "Linguists" in "Linguists say" is not.
    is_plain_word = start == 0 and prompt[:end].isalpha() and prompt[1:end].islower()
    if not quoted and is_plain_word and prompt[end : end + 1] == " ":
        return "its capital may only open the sentence"
    return ""


# --- quotations -----------------------------------------------------------------------------------

_PAIRS = (
    ("\"", "\""), ("\u201c", "\u201d"), ("\u201e", "\u201c\u201d"), ("\u201d", "\u201d"),
    ("\u00ab", "\u00bb"), ("\u00bb", "\u00ab"), ("\u2039", "\u203a"), ("\u300c", "\u300d"),
    ("\u300e", "\u300f"), ("\u300a", "\u300b"), ("\u3008", "\u3009"),
)  # fmt: skip
_QUOTED = re.compile(
    "|".join(rf"{o}\s*([^{o}{c}]+?)\s*[{c}]" for o, c in _PAIRS)
    # Single quotes are apostrophes as well, so they must stand outside words.
    + r"|(?<!\w)['\u2018](?=\S)([^\u2018]{2,}?)(?<=\S)['\u2019](?!\w)"
)


def _quotations(prompt: str) -> list[Span]:
    """Return the spans inside quotation marks, except for one around the whole prompt."""
    spans = []
    for match in _QUOTED.finditer(prompt):
        if match[0] != prompt:
            spans.append(match.span(match.lastindex or 0))
    return spans


# --- names ----------------------------------------------------------------------------------------

CONNECTING = frozenset(
    "a al and at bin da das de del della dem den der des di do dos du e el en et for from ibn in "
    "la las le les lo los of on ten ter the to und van von y zu zum zur &".split()
)
"""Small words that may stand inside a name."""
OPENING = frozenset(
    "a after although an and anyone are as at because before between by can could did do does "
    "during either every everyone for from had has have he her his how however i if in is it its "
    "let may most my name no not of on once one or our please she since some tell that the their "
    "there these they this those though to under until was we were what when where which while who "
    "whom whose why with would you your "
    # French, Spanish, Italian, Portuguese
    "le la les un une des du dans en au aux qui que quel quelle quels quelles quand comment "
    "el los las una unos unas quién quiénes qué cuál cuáles dónde cuándo cómo cuánto del al "
    "il lo gli chi che quale quali dove quando come nel nella "
    "o os as um uma quem qual quais onde em no na "
    # German, Dutch, Scandinavian
    "der die das den dem ein eine einer wer was wann wo wie warum welche welcher welches im am von "
    "de het een wie wat waar wanneer welke "
    "hvem hva hvad hvor när var vem vad vilken hvilken".split()
)
"""Words that are capitalised only because they open a sentence."""
VERBS = frozenset("are by has is was were".split())
"""Words that end no name, not even in a prompt that capitalises each word."""
FUNCTION = (
    OPENING
    | CONNECTING
    | VERBS
    | frozenset(
        "be been being called known named likely about into over than then so "
        "est sont était es son fue era è sono é foi ist sind war waren wurde is zijn er".split()
    )
)
"""Words that are never a subject by themselves."""
DATES = frozenset(
    "january february march april may june july august september october november december "
    "monday tuesday wednesday thursday friday saturday sunday".split()
)
# A full stop behind an initial or one of these does not end a name.
_ABBREVIATED = re.compile(
    r"(?:\w\.)+|(?:Adm|Bros|Capt|Co|Col|Corp|Dr|Fr|Ft|Gen|Gov|Hon|Inc|Jr|Lt|Ltd|Maj|Mr|Mrs|Ms|Mt|"
    r"Mme|Nr|No|Pres|Prof|Rev|Sen|Sgt|Sr|St|Ste|Vol)\."
)
# What belongs to the name before a comma: "King, Jr.", "Hume, 2nd Baronet".
_AFTER_A_COMMA = re.compile(r"(?:Jr|Sr|Inc|Ltd)\.?|LLC|D\.C\.|\d+(?:st|nd|rd|th)")
_ARTICLE = re.compile(ELIDED, re.IGNORECASE)
_WORD = re.compile(
    r"[^\s,;:!?\u00a1\u00bf()\[\]{}\"\u201c-\u201f\u00ab\u00bb\u2039\u203a\u3001\u3002\u3008-\u3011\uff01-\uff0f"
    r"\uff1a\uff1b\uff1f\u060c\u061b\u061f]+"
)
_BEFORE_A_PARTICLE = re.compile(rf"[{EAST_ASIAN}]+?(?=[\u306e\u306f\u304c\u7684\u662f\u5728])")
_BRACKETED = re.compile(r" \(([^()]+)\)")


@dataclass(frozen=True)
class _Word:
    """A word of a prompt, without a possessive, an elided article or the sentence's full stop."""

    text: str
    start: int
    opens: bool
    """Whether it is the first word of a sentence, so that its capital says nothing."""

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def lower(self) -> str:
        return self.text.lower()

    @property
    def is_number(self) -> bool:
        return self.text[0].isdigit() and not self.is_name  # "3M" is a name

    @property
    def is_name(self) -> bool:
        """Whether it has a capital, as "iPhone" and "al-Assad" do."""
        return any(char.isupper() for char in self.text)


def _words(prompt: str) -> Iterator[_Word]:
    opens = True
    for match in _WORD.finditer(prompt):
        word, start = match[0], match.start()
        if article := _ARTICLE.match(word):
            start, word = start + article.end(), word[article.end() :]
        if not _ABBREVIATED.fullmatch(word):
            word = re.sub(r"(?:['\u2019]s?)?\.*$", "", word)
        if word:
            yield _Word(word, start, opens)
            opens = bool(re.match(r"[.!?:]", prompt[start + len(word) :]))


def _names(prompt: str) -> list[Span]:
    """Return the spans of the runs of capitalised words.

    A run may hold small connecting words and numbers inside. The word that opens a sentence and
    dates alone are no names. Capitals say nothing in a prompt without small letters.
    """
    if not any(char.islower() for char in prompt):
        return []
    spans: list[Span] = []
    for run in _runs(prompt):
        while run and not _may_begin(run[0]):
            run = run[1:]
        while run and not _may_end(run[-1]):
            run = run[:-1]
        if all(word.is_number or word.lower in DATES | CONNECTING for word in run):
            continue
        start, end = run[0].start, run[-1].end
        # A name in brackets behind a name belongs to it: "USS Kete (SS-369)".
        bracketed = _BRACKETED.match(prompt, end)
        if spans and start < spans[-1][1]:
            continue
        if bracketed and (bracketed[1][0].isupper() or bracketed[1][0].isdigit()):
            end = bracketed.end()
        spans.append((start, end))
    return spans


def _runs(prompt: str) -> Iterator[list[_Word]]:
    """Yield the longest runs of names, numbers and connecting words with only spaces between."""
    run: list[_Word] = []
    for word in _words(prompt):
        between = prompt[run[-1].end : word.start] if run else ""
        article = _ARTICLE.fullmatch(between.strip())
        joined = between.isspace() or article or between == "-"
        if between == ", " and _AFTER_A_COMMA.fullmatch(word.text):
            joined = True
        if run and not joined:
            yield run
            run = []
        if word.is_name or word.is_number or word.lower in CONNECTING:
            run.append(word)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _may_begin(word: _Word) -> bool:
    if word.opens and word.lower in OPENING:
        return False
    return word.is_number or (word.is_name and word.text != "I")  # but "Gustav I"


def _may_end(word: _Word) -> bool:
    return word.is_number or (word.is_name and word.lower not in VERBS)


def _last_word(prompt: str) -> Span:
    """Return the span of a word that may be the subject of a prompt without names.

    It is the last word that is not a function word, in a cloze the last one before the verb: "the
    capital of france is", "hamburger is named after". In Chinese and Japanese it goes up to the
    first particle.
    """
    words = list(_words(prompt))
    if not words:
        return 0, len(prompt)
    content = [word for word in words if word.lower not in FUNCTION] or words
    verbs = [word.start for word in words if word.lower in VERBS]
    if verbs and not is_question(prompt):
        content = [word for word in content if word.start < verbs[0]] or content
    start, end = content[-1].start, content[-1].end
    if before := _BEFORE_A_PARTICLE.match(prompt, start, end):
        return start, before.end()
    return start, end
