"""``inject``: the one call that every method stands behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from editbench import registry
from editbench.edit import Edit
from editbench.errors import MethodError
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
    check_subjects(method, type(chosen), facts)
    return chosen.inject(load_model(model, tokenizer), facts)


def check_subjects(name: str, method: Any, facts: Iterable[Fact]) -> None:
    """Makes sure that ``method`` gets the subjects it needs.

    Raises:
        MethodError: it needs one and a fact has none.
    """
    if method.needs_subject:
        for fact in facts:
            if fact.subject is None:
                raise MethodError(
                    f"Fact {fact.id!r} has no subject, and {name} reads its key at the last subject token. "
                    'Add "subject", or use a method that needs none (sft, mixsd, opsd).'
                )
