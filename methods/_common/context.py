"""Whether a text about a fact fits into what a model reads at once."""

from __future__ import annotations

from editbench.errors import MethodError
from editbench.models import LanguageModel
from editbench.types import Fact


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
