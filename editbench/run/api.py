"""``inject``: the one call that every method stands behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from editbench import registry
from editbench.edit import Edit
from editbench.models import load_model
from editbench.types import Fact, check_facts


def inject(
    model: Any,
    facts: Iterable[Fact | Mapping[str, Any]],
    method: str = "mixsd",
    *,
    tokenizer: Any = None,
    allow_conflicts: bool = False,
    **options: Any,
) -> Edit:
    """Makes ``facts`` true in ``model`` and returns the edit; ``model`` itself is left bit for bit as it was.

    Args:
        model: a ``LanguageModel``, a name for ``load_model``, or a Hugging Face model (then give its ``tokenizer``).
        facts: ``Fact`` objects or dicts with at least ``prompt`` and ``target``.
        method: a registered name; see ``editbench list methods``.
        options: the method's own, such as ``lam=0.5``.

    Raises:
        EditbenchError: an unknown method or option, a bad fact, contradicting facts, a missing subject.
    """
    chosen = registry.get("methods", method).from_options(method, options)
    facts = check_facts(
        (f if isinstance(f, Fact) else Fact.from_dict(f) for f in facts), allow_conflicts
    )
    chosen.check_subjects(method, facts)
    return chosen.inject(load_model(model, tokenizer), facts)
