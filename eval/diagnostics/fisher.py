"""Measure the change of the weights, weighted by the Fisher information of the base.

With d the change, F the diagonal of the Fisher information and the sums over all weights j of the
model, changed or not, the alignment ratio is

    R = (sum_j F_j d_j^2 / sum_j d_j^2) / mean_j F_j

A random change e of the same size, with independent components of one variance, moves
E[sum_j F_j e_j^2] = sum_j d_j^2 mean_j F_j, so R is the movement along Fisher-sensitive directions
divided by that of a random movement of the same size. R is 1 for a random change in expectation,
above 1 for a change along sensitive weights, below 1 for one along flat weights. It does not depend
on the size of the change. MixSD (arXiv 2605.16865) reports such a ratio; its code does not compute
it, so the formula is our reading.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import torch

from editbench.eval.diagnostics._cache import LENGTH, cached, setting, texts_of
from editbench.fisher import diagonal_fisher
from editbench.models import LanguageModel

if TYPE_CHECKING:
    from editbench.changes import Change
    from editbench.edit import Edit

FISHER_TOKENS = 4096
"""Tokens of the base's own text on which F is estimated."""
SAMPLE = 2**22
"""Most entries of F from which the percentile is taken."""


class Displacement(TypedDict):
    """Size of a change d, weighted by the Fisher information F of the base."""

    displacement: float
    """sum_j F_j d_j^2."""
    squared_norm: float
    """sum_j d_j^2."""
    curvature: float | None
    """displacement / squared_norm."""
    alignment_ratio: float | None
    """R = curvature / mean of F over all weights. Older records call it
    ``relative_curvature``."""
    top_share: float | None
    """Share of squared_norm in the entries above the 99th percentile of F."""


def measure(model: LanguageModel, edit: Edit, seed: int) -> Displacement | None:
    """Weight the change with the Fisher information of ``model``, the base.

    Computes in float64 and holds one dense change at a time. ``None`` for a live edit, which has no
    weights here.
    """
    if edit.live is not None:
        return None
    if not edit.changes:
        return {
            "displacement": 0.0,
            "squared_norm": 0.0,
            "curvature": None,
            "alignment_ratio": None,
            "top_share": None,
        }
    information = fisher_information(model, edit.model_hash, seed)
    mean = sum(f.sum(dtype=torch.float64).item() for f in information.values()) / sum(
        f.numel() for f in information.values()
    )
    # Over the changed weights only: an edit of one layer is compared with that layer.
    limit = percentile_99([information[name] for name in edit.changes])
    displacement = squared_norm = top = 0.0
    for name, change in edit.changes.items():
        squared = dense_copy(change).square_()
        squared_norm += squared.sum().item()
        top += squared[information[name] > limit].sum().item()
        # Comes last, because it overwrites ``squared``.
        displacement += squared.mul_(information[name]).sum().item()
    curvature = displacement / squared_norm if squared_norm else None
    return {
        "displacement": displacement,
        "squared_norm": squared_norm,
        "curvature": curvature,
        "alignment_ratio": curvature / mean if curvature is not None and mean else None,
        "top_share": top / squared_norm if squared_norm else None,
    }


def fisher_information(model: LanguageModel, weights: str, seed: int) -> dict[str, torch.Tensor]:
    """Return F by parameter name, on the CPU, from the cache if it is there.

    Args:
        weights: fingerprint of the model's weights.
    """

    def compute() -> dict[str, torch.Tensor]:
        return diagonal_fisher(model, texts_of(model, "fisher", FISHER_TOKENS, seed))

    return cached("fisher", [weights, *setting(model), FISHER_TOKENS, LENGTH, seed], compute)


def percentile_99(tensors: Sequence[torch.Tensor]) -> float:
    """Return the value above which 1 % of all entries of ``tensors`` lie."""
    total = sum(t.numel() for t in tensors)
    values = [t.flatten() for t in tensors]
    if total > SAMPLE:
        # Each tensor gives entries in proportion to its size, drawn with replacement.
        generator = torch.Generator().manual_seed(0)
        share = SAMPLE / total
        values = [
            v[torch.randint(v.numel(), (math.ceil(share * v.numel()),), generator=generator)]
            for v in values
        ]
    together = torch.cat(values)
    return together.kthvalue(together.numel() - together.numel() // 100).values.item()


def dense_copy(change: Change) -> torch.Tensor:
    """Return a change as a new float64 tensor on the CPU, which the caller may overwrite."""
    if isinstance(change, torch.Tensor):
        return change.detach().to("cpu", torch.float64, copy=True)
    # A low-rank change is stored as its two factors.
    left, right = (factor.detach().to("cpu", torch.float64) for factor in change)
    return left @ right
