"""What the wording of one fact shows, without a model: rules of ``editbench facts``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from editbench.matching import contains
from editbench.types import Fact, form_of

_QUESTION = re.compile(
    r"(?i:what|who|whom|where|when|why|how|which)(?:'s)? (?:\w+ )?"
    # in small letters, unlike the "Do" of a title
    r"(?:is|are|was|were|do|does|did|has|have|can|will) "
)
_BLANK = re.compile(r"_{2,}|\[(?:MASK|BLANK)\]|<(?:mask|blank)>", re.IGNORECASE)
_ODD_SPACES = re.compile(r"  |[^\S \u3000]|[\u00ad\u200b\u2060\ufeff]")
_ENDED = re.compile(r"(?:\w{3}|[)\"'\u2019\u201d])[.!]$|[\u3002\uff01]$")
_ERROR = re.compile(r"#(?:REF!|N/A|NAME\?|VALUE!|DIV/0!|NULL!|NUM!|SPILL!|CALC!|GETTING_DATA)|#+")
"""Matches what Excel and other tables show in a cell that they cannot fill."""
_PLACEHOLDER = re.compile(
    r"(?i:n/a|to ?do|tbd|tba|tbc|fixme|xxx+)|NaN|null|NULL|[?.*/_\u2026\u2013\u2014-]+"
)
"""Matches a target that is only a note to fill it in, or only ``?``, ``---`` or the like."""
_ELSEWHERE = re.compile(
    r"(?:please )?(?:see|cf\.?|refer to)\b.*"
    r"(?:\b(?:p\.|pp\.|page|chapter|section) ?\d+|above|below)",
    re.IGNORECASE,
)
"""Matches a target that only says where the answer stands: ``see handbook p. 4``."""


def placeholder(target: str) -> bool:
    """Return whether ``target`` looks like a placeholder or an error, and not like an answer."""
    texts = (target.strip(), target.strip().rstrip("."))
    patterns = (_ERROR, _PLACEHOLDER, _ELSEWHERE)
    return any(pattern.fullmatch(text) for pattern in patterns for text in texts)


def about_wording(fact: Fact) -> Iterator[tuple[str, str]]:
    """Yield kinds of notes (``run.facts.KINDS``) about the wording of ``fact``, with details."""
    if fact.form == "cloze":
        if form_of(fact.prompt) == "cloze" and _QUESTION.match(fact.prompt):
            yield "looks_like_question", repr(fact.prompt)
        elif _BLANK.search(fact.prompt) or _ENDED.search(fact.prompt):
            yield "prompt_end", repr(fact.prompt)
    if placeholder(fact.target):
        yield "placeholder", repr(fact.target)
    # A target may have several lines on purpose.
    for text in (fact.prompt, fact.target.replace("\n", " ")):
        if _ODD_SPACES.search(text):
            yield "odd_spaces", ascii(text)
    if contains(fact.prompt, [fact.target]):
        yield "target_in_prompt", f"{fact.target!r} in {fact.prompt!r}"
