"""A stack: edits made one on top of the other, as one edit of the base.

``stacked`` adds their changes up, so that whatever takes an edit takes a stack: it is applied,
scored, merged and exported like any other. ``Edit.parts`` keeps each of them as it was made. From
these, the next edit is made on top and a fact is taken out again (``editbench.run.life``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import reduce

from editbench.changes import Change, added_up, joined, summed
from editbench.edit import Edit
from editbench.errors import ModelError
from editbench.models import LanguageModel
from editbench.report import EditRecord, warnings_of
from editbench.retrieval import Retriever


def parts_of(edit: Edit) -> tuple[Edit, ...]:
    """Return the edits of a stack, the first one first; those of a plain edit are itself."""
    return edit.parts or (edit,)


def stacked(edits: Sequence[Edit]) -> Edit:
    """Return one edit of the base that is all of ``edits``, each made on top of those before it.

    A single one is returned as it is.

    Raises:
        ModelError: facts in context and changed weights do not go together, or an edit is live.
    """
    parts = [part for edit in edits for part in parts_of(edit)]
    first, *later = parts
    if not later:
        return first
    for part in parts:
        part.check_weights("part of a stack")
        if (part.context is None) != (first.context is None):
            raise ModelError(
                f"{first.method} and {part.method} cannot be stacked: one puts facts before the "
                "prompt, the other changes weights. Inject all facts by one of them."
            )
    facts = tuple(fact for part in parts for fact in part.facts)
    return replace(
        first,
        method=", ".join(dict.fromkeys(part.method for part in parts)),
        options=first.options if all(part.options == first.options for part in parts) else {},
        facts=facts,
        changes=reduce(_sum, (part.changes for part in parts)),
        keys=reduce(joined, (part.keys for part in parts)),
        sums=reduce(added_up, (part.sums for part in parts)),
        context=None if first.context is None else Retriever(facts),
        diagnostics={"warnings": warnings_of(part.diagnostics for part in parts)},
        records=[_numbered(i, record) for i, part in enumerate(parts) for record in part.records],
        values=None,
        parts=tuple(parts),
    )


def _sum(first: Mapping[str, Change], second: Mapping[str, Change]) -> Mapping[str, Change]:
    """Return the changes of both, added up where both change a weight."""
    whole = {**first, **second}
    for name in first.keys() & second.keys():
        whole[name] = summed(first[name], second[name])
    return whole


def _numbered(chunk: int, record: EditRecord) -> EditRecord:
    numbered: EditRecord = {"chunk": chunk}
    numbered.update(record)
    return numbered


@contextmanager
def applied_parts(edits: Sequence[Edit], model: LanguageModel) -> Iterator[LanguageModel]:
    """Apply ``edits`` one after the other inside the ``with``, each to the model it was made for.

    That is the model that the next edit of the stack is made for: the weights are rounded after
    each of them, as they were when the stack was made.

    Raises:
        ModelError: an edit was made for another model than the one that those before it leave. The
            message says which, and ``model`` is as it was.
    """
    with ExitStack() as applied:
        for number, edit in enumerate(edits, start=1):
            if len(edits) > 1 and edit.model_hash != model.fingerprint():
                below = "the base" if number == 1 else f"the {number - 1} edits before it"
                n = len(edit.facts)
                facts = f"{n} fact{'s' * (n != 1)}"
                raise ModelError(
                    f"Edit {number} of the stack ({edit.method}, {facts}) was made "
                    f"for weights {edit.model_hash}, and {below} of {model.name} give "
                    f"{model.fingerprint()}. Pass the base that the stack was made for with "
                    "--model, or inject its facts again."
                )
            applied.enter_context(edit.applied(model))
        yield model
