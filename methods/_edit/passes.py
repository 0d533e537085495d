"""Fast or plain: the one place that decides how an editor's forward passes run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from editbench.methods._edit import fast
from editbench.methods._edit.fast.linear import laid_out
from editbench.methods._edit.fast.packed import PackedRows, can_pack
from editbench.methods._edit.rows import PaddedRows, Rows, WholeRows
from editbench.models import LanguageModel


def cut_rows(
    model: LanguageModel, rows: Sequence[list[int]], cuts: Sequence[int], resume: int
) -> Rows:
    """Return rows that are packed where ``model`` allows it, else padded, else whole."""
    if not model.keeps_tokens:
        return WholeRows(model, rows, cuts, resume)
    packed = fast.enabled() and can_pack(model, max(map(len, rows)))
    return (PackedRows if packed else PaddedRows)(model, rows, cuts, resume)


def products(model: LanguageModel) -> AbstractContextManager[None]:
    """Return a context in which linear layers multiply as fast as they can."""
    return laid_out(model) if fast.enabled() else nullcontext()
