"""How long a text about a fact may become, and whether it fits into what a model reads at once."""

from __future__ import annotations

from editbench.errors import MethodError
from editbench.models import LanguageModel
from editbench.types import Fact

ROOM = 24
"""Tokens for a text about a fact that has no demonstration."""


def answer_room(model: LanguageModel, fact: Fact, most: int | None) -> int:
    """The most tokens of a text that the model writes about ``fact``: ``most``; where that is None, ``ROOM``, or half again
    those of its demonstration."""
    if most is not None:
        return most
    shown = (
        model.pair_ids(fact.prompt, fact.demonstration, fact.form)[1] if fact.demonstration else []
    )
    return max(ROOM, len(shown) * 3 // 2)


def check_context(model: LanguageModel, fact: Fact, tokens: int) -> None:
    """Makes sure that a fact's text of ``tokens`` tokens, prompt and answer, can be read.

    Raises:
        MethodError: it is longer than the model's context.
    """
    limit = model.context_length
    if limit is not None and tokens > limit:
        raise MethodError(
            f"Fact {fact.id!r} takes {tokens} tokens with its answer and all that stands before it, and {model.name} reads "
            f"at most {limit}. Shorten its prompt, target or demonstration, or leave it out."
        )
