"""Which facts one vector at their subject can carry, and which a trainer should learn.

The pair ``memit+mixsd`` divides its facts by this rule, and ``editbench facts`` shows it.
"""

from __future__ import annotations

from collections.abc import Sequence

from editbench.types import Fact

SURGICAL_WORDS = 4
"""Maximum number of words in a surgical fact's target."""
LONG_TARGET = 16
"""Length of a target, in tokens, above which one vector can hardly make a model say it."""


def is_surgical(fact: Fact) -> bool:
    """Return whether one vector at its subject can carry ``fact``."""
    return (
        fact.subject is not None
        and fact.prompt.count(fact.subject) == 1
        and fact.demonstration is None
        and len(fact.target.split()) <= SURGICAL_WORDS
    )


def divide(facts: Sequence[Fact]) -> tuple[list[Fact], list[Fact]]:
    """Return the surgical facts, one target for each subject, and the others, both in order."""
    surgical: list[Fact] = []
    bulk: list[Fact] = []
    targets: dict[str | None, str] = {}
    for fact in facts:
        # setdefault makes the subject's first surgical fact the one whose target counts.
        fits = is_surgical(fact) and targets.setdefault(fact.subject, fact.target) == fact.target
        (surgical if fits else bulk).append(fact)
    return surgical, bulk
