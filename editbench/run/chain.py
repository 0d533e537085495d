"""A chain of edits: each is made for the model as the earlier ones left it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from editbench.plugin import Method
from editbench.report import EditRecord, sums, warnings_of
from editbench.retrieval import Retriever
from editbench.tensors import kept

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.models import LanguageModel


class Chain:
    """A context manager that stacks edits and takes them all back, bit for bit."""

    def __init__(self, model: LanguageModel):
        self.model = model
        self.edits: list[Edit] = []
        """The edits in effect, without their changes."""
        self.taken_back: list[Edit] = []
        self._before: dict[str, torch.Tensor] = {}
        self._state = model.context_for, model.applied, model.live

    @property
    def moved(self) -> bool:
        """Whether the edits in effect change the model's answers."""
        return bool(self.edits) and (
            bool(self._before) or self.edits[-1].context is not None or self.model.live is not None
        )

    def add(self, edit: Edit) -> None:
        """Apply ``edit``, which was made for the model as it is now. Contexts are joined."""
        # Only the first edit of a weight finds the base's values in it.
        new = {
            name: self.model.weight(name).detach()
            for name in edit.changes
            if name not in self._before
        }
        size = sum(weight.nbytes for weight in new.values())
        copies = ((name, weight.clone()) for name, weight in new.items())
        self._before |= kept(copies, size, "the weights of the base")
        if edit.context is not None:
            # A model has one context, so this one retrieves from the facts of all edits.
            facts = [fact for earlier in (*self.edits, edit) for fact in earlier.facts]
            edit = replace(edit, context=Retriever(facts))
        self._undo = edit.apply(self.model)
        # Later injections read the keys and hashes of earlier edits, but not their changes, which
        # would fill the memory after many edits.
        slim = replace(edit, changes={})
        self.model.applied = (*self.model.applied[:-1], slim)
        self.edits.append(slim)

    def take_back(self) -> None:
        """Take back the last edit."""
        self._undo()
        self.taken_back.append(self.edits.pop())

    def growth(self) -> float | None:
        """Return the largest ratio ||W|| / ||W of the base|| among the changed weights.

        A weight that is zero in the base, as a bias may be, has no ratio. Without any, it is 1.
        Of a live model it is ``None``: its weights are not here.
        """
        if self.model.live is not None:
            return None
        norms = [
            (self.model.weight(name).float().norm(), before.float().norm())
            for name, before in self._before.items()
        ]
        ratios = [(now / base).item() for now, base in norms if base > 0]
        # Unlike the built-in max, torch's max is NaN as soon as one ratio is.
        return torch.tensor(ratios or [1.0]).max().item()

    def as_one(self, method: Method) -> Edit:
        """Return one edit of the base that is equivalent to all edits in effect."""
        edits, reports = self.edits, [edit.diagnostics for edit in self.edits]
        undone = warnings_of(edit.diagnostics for edit in self.taken_back)
        report = {
            "chunks": len(edits),
            "warnings": warnings_of(reports) + [f"Of the chunk taken back: {w}" for w in undone],
            **sums(method.figures, reports),
        }
        changes = (
            # In float32 the difference of two weights of 16 bits is exact, or nearly.
            (name, self.model.weight(name).detach().cpu().float() - before.cpu().float())
            for name, before in self._before.items()
        )
        size = sum(4 * before.numel() for before in self._before.values())
        facts = [fact for edit in edits for fact in edit.facts]
        moved = kept(changes, size, "the change of all weights")
        whole = method.edit(self.model, facts, moved, diagnostics=report)
        # ``method.edit`` hashed the model as it is now, but the whole is an edit of the base.
        return replace(
            whole,
            model_hash=edits[0].model_hash if edits else whole.model_hash,
            context=edits[-1].context if edits else None,
            live=self.model.live,
            records=[
                _numbered(i, record) for i, edit in enumerate(edits) for record in edit.records
            ],
        )

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_: object) -> None:
        # Saved copies, since subtracting the changes again would leave rounding errors.
        for name, before in self._before.items():
            self.model.write(name, before)
        self.model.context_for, self.model.applied, self.model.live = self._state


def _numbered(chunk: int, record: EditRecord) -> EditRecord:
    """Return the record with the index of its chunk as the first field."""
    numbered: EditRecord = {"chunk": chunk}
    numbered.update(record)
    return numbered
