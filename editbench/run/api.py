"""The Python API: ``inject``, one call for every method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import transformers

from editbench import registry
from editbench.edit import Edit
from editbench.models import LanguageModel, load_model
from editbench.types import Fact, check_facts


def inject(
    model: LanguageModel | transformers.PreTrainedModel | str,
    facts: Iterable[Fact | Mapping[str, object]],
    method: str = "mixsd",
    *,
    tokenizer: transformers.PreTrainedTokenizerBase | None = None,
    allow_conflicts: bool = False,
    **options: object,
) -> Edit:
    """Return the edit that makes ``facts`` true in ``model``, which stays bit for bit as it is.

    Args:
        model: a ``LanguageModel``, a name for ``load_model``, or a Hugging Face model with its
            ``tokenizer``.
        facts: ``Fact`` objects, or dicts with at least ``prompt`` and ``target``.
        method: a registered name; ``editbench list methods`` shows them.
        tokenizer: the tokenizer of a Hugging Face model.
        allow_conflicts: accept facts that give one prompt two targets.
        options: options of the method, such as ``lam=0.5``; ``editbench list METHOD`` shows them.

    Raises:
        EditbenchError: the method or an option is unknown, a fact is invalid or lacks a subject
            that the method needs, or facts contradict each other.
    """
    # All checks come before the model is loaded, which may take minutes.
    chosen = registry.get("methods", method).from_options(method, options)
    checked = check_facts(
        (fact if isinstance(fact, Fact) else Fact.from_dict(fact) for fact in facts),
        allow_conflicts,
    )
    chosen.check_subjects(method, checked)
    return chosen.inject(load_model(model, tokenizer), checked)
