"""AlphaEdit: MEMIT whose update is projected onto the null space of what the model keeps.

P = U_0 U_0^T, with U_0 the eigenvectors of C that ordinary keys hardly use, so that Delta k = 0 for
keys in the span of the others. With the keys K_p of earlier edits:

    Delta_l = R_l K_l^T P (K_l K_l^T P + K_p K_p^T P + l2 I)^-1

Fang et al. 2025, "AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models", arXiv
2410.02355, eqs. 10-14; reference code jianghoucheng/AlphaEdit at f5248d3.

Differences from the reference:
- U_0 is the ``null_space`` share of directions with the least second moment. The paper's absolute
  ``threshold`` (0.02, as in ``recipe=paper``) depends on the scale of a model's activations, and
  keeps about 70 % of the directions on Llama 3.
- l2 is relative to tr(P C), the mean square of ordinary keys in the null space, for the same
  reason. The reference has 10 itself (``ridge``).
- K_p is read from the edits that are applied now, not from a global that outlives them. The
  equations are solved in float64, on the smallest of the three sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from editbench.errors import MethodError
from editbench.methods.memit import PUBLISHED_BATCH, BatchEditor
from editbench.methods.statistics import Moment
from editbench.plugin import LogUniform, Space, Uniform
from editbench.report import Figure

# N facts, M earlier facts, A = N + M, f MLP inner width, U width of the null space


@dataclass(frozen=True)
class AlphaEdit(BatchEditor):
    """Null-space constrained editing."""

    name: ClassVar[str] = "alphaedit"
    version: ClassVar[int] = 9
    summary: ClassVar[str] = "memit projected onto the null space of ordinary keys"
    paper: ClassVar[str] = "arXiv 2410.02355"
    kept_by: ClassVar[str] = "l2"
    matrices: ClassVar[int] = BatchEditor.matrices + 1
    """Its eigenvectors besides."""
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        # hparams/AlphaEdit/EleutherAI_gpt-j-6B.json
        "paper": {
            **PUBLISHED_BATCH,
            "threshold": 0.02,
            "ridge": 10.0,
        }
    }
    alternatives: ClassVar[Mapping[str, str]] = {"threshold": "null_space", "ridge": "l2"}
    figures: ClassVar[Mapping[str, Figure]] = {
        **BatchEditor.figures,
        "l2": Figure("The option l2: ridge as a multiple of tr(P C)."),
        "null_space": Figure("Share of the directions that could be written."),
        "threshold": Figure("Largest second moment of a direction that could be written."),
        "null_width_by_layer": Figure("How many directions could be written, by layer."),
        "l2_by_layer": Figure("The ridge as it enters the equations, by layer."),
    }
    space: ClassVar[Space] = {
        **BatchEditor.space,
        "null_space": Uniform(0.4, 0.95),
        "l2": LogUniform(0.05, 5.0),
    }

    null_space: float = 0.7
    """Share of the f directions that may be written: those with the least second moment."""
    threshold: float | None = None
    """Instead of the share: the largest second moment of a direction that may be written (0.02 in
    the paper)."""
    l2: float = 0.5
    """As a multiple of tr(P C), the mean square of an ordinary key in the null space."""
    ridge: float | None = None
    """Instead of l2: the ridge as it enters the equations (10 in the paper's code)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.null_space <= 1:
            raise ValueError("null_space must be above 0 and at most 1")
        if self.threshold is not None and not self.threshold > 0:
            raise ValueError("threshold must be above 0")

    def directions(
        self, moment: Moment, k_fN: torch.Tensor, earlier_fM: torch.Tensor
    ) -> torch.Tensor:
        width, l2 = self.null(moment)
        return alphaedit_solve(moment.eigen[1][:, :width], k_fN, l2, earlier_fM)

    def null(self, moment: Moment) -> tuple[int, float]:
        """Return how many directions may be written, and l2 as it enters the equations."""
        values_f = moment.eigen[0]
        width = null_width(values_f, self.null_space, self.threshold)
        if self.ridge is not None:
            return width, self.ridge
        # Eigenvalues ascend, so this is the sum over the null space, tr(P C).
        return width, self.l2 * values_f[:width].sum().item()

    def settings(self, moments: Mapping[int, Moment]) -> dict[str, object]:
        limit = (
            {"null_space": self.null_space}
            if self.threshold is None
            else {"threshold": self.threshold}
        )
        null = {layer: self.null(moment) for layer, moment in moments.items()}
        return {
            **({"l2": self.l2} if self.ridge is None else {}),
            **limit,
            "null_width_by_layer": {layer: width for layer, (width, _) in null.items()},
            "l2_by_layer": {layer: l2 for layer, (_, l2) in null.items()},
        }


def null_width(values_f: torch.Tensor, share: float, threshold: float | None) -> int:
    """Return how many of the ascending eigenvalues belong to the null space.

    Raises:
        MethodError: None does.
    """
    width = round(share * len(values_f)) if threshold is None else int((values_f < threshold).sum())
    if width == 0:
        raise MethodError(
            f"alphaedit: none of {len(values_f)} directions is in the null space (threshold "
            f"{threshold}, share {share}). The least second moment is {values_f[0]:.2g}. Raise "
            "alphaedit.threshold or alphaedit.null_space."
        )
    return width


def alphaedit_solve(
    null_fU: torch.Tensor, k_fN: torch.Tensor, l2: float, earlier_fM: torch.Tensor
) -> torch.Tensor:
    """Return (P K K^T + P K_p K_p^T + l2 I)^-1 P K, (f, N), float64.

    It is solved in the coordinates of the null space, where P is the identity, and there on the
    smaller side.
    """
    n = k_fN.shape[1]
    # Coordinates in the null space. Earlier keys have R = 0, so only K's columns are kept.
    all_UA = null_fU.T @ torch.cat([k_fN.double(), earlier_fM], dim=1)
    u, a = all_UA.shape
    solved_UN: torch.Tensor
    if a > u:
        solved_UN = torch.linalg.solve(
            all_UA @ all_UA.T + l2 * torch.eye(u, dtype=torch.float64), all_UA[:, :n]
        )
    else:
        # Push-through, as in ``memit_solve``.
        gram_AA = all_UA.T @ all_UA + l2 * torch.eye(a, dtype=torch.float64)
        solved_UN = torch.linalg.solve(gram_AA, all_UA, left=False)[:, :n]
    return null_fU @ solved_UN
