"""Fast or plain: the one place that decides how an editor's forward passes run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

from editbench.methods._edit import fast
from editbench.methods._edit.fast.linear import LaidOut
from editbench.methods._edit.fast.packed import PackedRows, attention_is_known, packs
from editbench.methods._edit.rows import PaddedRows, Rows, WholeRows
from editbench.models import LanguageModel


class Passes:
    """How passes through a model run. What is tried or laid out for it serves all injections."""

    def __init__(self, model: LanguageModel):
        self.model = model
        self.laid = LaidOut(model)
        self.continues: bool | None = None
        """Whether a cut text gives what it gives whole; None: not tried (``value._Batch``)."""

    @cached_property
    def packs(self) -> bool:
        """Whether packed rows give what whole rows give."""
        return packs(self.model)

    def rows(self, rows: Sequence[list[int]], cuts: Sequence[int], resume: int) -> Rows:
        """Return rows that are packed where the model allows it, else padded, else whole."""
        if not self.model.keeps_tokens or self.continues is False:
            return WholeRows(self.model, rows, cuts, resume)
        known = fast.enabled() and attention_is_known(self.model, max(map(len, rows)))
        kind = PackedRows if known and self.packs else PaddedRows
        return kind(self.model, rows, cuts, resume)

    def products(self) -> AbstractContextManager[None]:
        """Return a context in which linear layers multiply as fast as they can."""
        return self.laid.used() if fast.enabled() else nullcontext()
