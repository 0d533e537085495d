"""The Python API: ``inject``, one call for every method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import transformers

from editbench.edit import Edit
from editbench.models import LanguageModel, load_model
from editbench.run.life import as_edit, injected, method_for
from editbench.run.on_top import check_on
from editbench.types import Fact, check_facts


def inject(
    model: LanguageModel | transformers.PreTrainedModel | str,
    facts: Iterable[Fact | Mapping[str, object]],
    method: str | None = None,
    *,
    on: Edit | str | Path | None = None,
    tokenizer: transformers.PreTrainedTokenizerBase | None = None,
    allow_conflicts: bool = False,
    **options: object,
) -> Edit:
    """Return the edit that makes ``facts`` true in ``model``, which stays bit for bit as it is.

    Args:
        model: a ``LanguageModel``, a name for ``load_model``, or a Hugging Face model with its
            ``tokenizer``.
        facts: ``Fact`` objects, or dicts with at least ``prompt`` and ``target``.
        method: a registered name; ``editbench list methods`` shows them. By default ``mixsd``, and
            with ``on`` the method of that edit with its options.
        on: an edit of ``model``, or the folder of one, to inject the facts on top of. The result
            is an edit of ``model`` with the facts of both (``editbench.stack``).
        tokenizer: the tokenizer of a Hugging Face model.
        allow_conflicts: accept facts that give one prompt two targets.
        options: options of the method, such as ``lam=0.5``; ``editbench list METHOD`` shows them.

    Raises:
        EditbenchError: the method or an option is unknown, a fact is invalid or lacks a subject
            that the method needs, or facts contradict each other.
    """
    # All checks come before the model is loaded, which may take minutes.
    below = None if on is None else as_edit(on)
    chosen = method_for(method, options, below)
    checked = check_facts(
        (fact if isinstance(fact, Fact) else Fact.from_dict(fact) for fact in facts),
        allow_conflicts,
    )
    if below is not None:
        check_on(below.facts, checked, allow_conflicts)
    chosen.check_subjects(chosen.name, checked)
    dtype = "auto" if below is None else below.model_dtype
    return injected(load_model(model, tokenizer, dtype=dtype), checked, chosen, below)
