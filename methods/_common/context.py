"""Check that a text about a fact fits into the model's context."""

from __future__ import annotations

from editbench.errors import MethodError
from editbench.models import LanguageModel
from editbench.types import Fact


def check_context(model: LanguageModel, fact: Fact, tokens: int) -> None:
    """Make sure that a fact's text of ``tokens`` tokens, prompt and answer, can be read.

    Raises:
        MethodError: The text is longer than the model's context.
    """
    limit = model.context_length
    if limit is not None and tokens > limit:
        raise MethodError(
            f"Fact {fact.id!r} takes {tokens} tokens with its answer and all that stands before "
            f"it, and {model.name} reads at most {limit}. Shorten its prompt, target or "
            "demonstration, or leave it out."
        )
