"""How long a text about a fact may become, and whether it fits into the model's context."""

from __future__ import annotations

from editbench.errors import MethodError
from editbench.models import LanguageModel
from editbench.types import Fact

ROOM = 24
"""Tokens for a text about a fact that has no demonstration."""


def answer_room(model: LanguageModel, fact: Fact, most: int | None) -> int:
    """Return the most tokens of a text that the model writes about ``fact``.

    That is ``most``, or where it is None half as many again as the fact's demonstration has, and at
    least ``ROOM``.
    """
    if most is not None:
        return most
    shown: list[int] = []
    if fact.demonstration:
        _, shown = model.pair_ids(fact.prompt, fact.demonstration, fact.form)
    return max(ROOM, len(shown) * 3 // 2)


def check_context(model: LanguageModel, fact: Fact, tokens: int) -> None:
    """Make sure that a fact's text of ``tokens`` tokens, prompt and answer, can be read.

    Raises:
        MethodError: It is longer than the model's context.
    """
    limit = model.context_length
    if limit is not None and tokens > limit:
        raise MethodError(
            f"Fact {fact.id!r} takes {tokens} tokens with its answer and all that stands before "
            f"it, and {model.name} reads at most {limit}. Shorten its prompt, target or "
            "demonstration, or leave it out."
        )
