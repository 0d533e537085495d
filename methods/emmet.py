"""EMMET: ROME for a batch. One layer, every fact's value an equality constraint.

    Delta = R D^-1 K^T C^-1,   D = K^T C^-1 K + epsilon I

is the least change of W, in the norm of C, with (W + Delta) K = W K + R (for epsilon = 0). For one
fact it is ROME's update, and it is MEMIT's in the limit lambda -> 0: MEMIT trades the facts against
C, EMMET does not. Gupta, Sajnani and Anumanchipalli 2024, "A Unified Framework for Model Editing",
arXiv 2403.14236, eqs. 9-13.

While earlier edits are applied, their keys join K with R = 0: their values are constraints too.

Difference from the authors' code, scalable-model-editing/unified-model-editing at 23d72b5: epsilon
is relative to the mean of D's diagonal. ``slack`` sets it as it is there: 0.1 for GPT-J, and 0.1
next to a C that is scaled by 1000, so 100, for GPT-2 XL. In EasyEdit's settings C is scaled by 1e5,
and about half of each constraint is lost. A single fact has no slack there. More than f facts
cannot all hold, so they are fitted by least squares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from editbench.methods._edit.layers import single_layer
from editbench.methods.memit import PUBLISHED_BATCH, BatchEditor, memit_solve
from editbench.methods.statistics import Moment
from editbench.plugin import LogUniform, Space
from editbench.report import Figure

# N facts, M earlier facts, f MLP inner width


@dataclass(frozen=True)
class Emmet(BatchEditor):
    """Equality-constrained Mass Model Editing in a Transformer."""

    name: ClassVar[str] = "emmet"
    version: ClassVar[int] = 9
    summary: ClassVar[str] = "equality-constrained batch update of one MLP"
    paper: ClassVar[str] = "arXiv 2403.14236"
    kept_by: ClassVar[str] = "epsilon"
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        # hparams/EMMET/EleutherAI_gpt-j-6B.json
        "paper": {
            **PUBLISHED_BATCH,
            "slack": 0.1,
        }
    }
    alternatives: ClassVar[Mapping[str, str]] = {"slack": "epsilon"}
    figures: ClassVar[Mapping[str, Figure]] = {
        **BatchEditor.figures,
        "epsilon": Figure("Slack of the constraints, as a share of the mean of k^T C^-1 k."),
        "slack": Figure("The option slack, where it is set instead of epsilon."),
    }
    space: ClassVar[Space] = {**BatchEditor.space, "epsilon": LogUniform(1e-4, 1.0)}

    epsilon: float = 1e-3
    """Slack of the constraints, as a share of the mean of k^T C^-1 k."""
    slack: float | None = None
    """Instead of epsilon: the slack as it enters D (0.1 in the authors' code for GPT-J)."""

    def rule(self, depth: int) -> tuple[int, ...]:
        return (single_layer(depth),)

    def directions(
        self, moment: Moment, k_fN: torch.Tensor, earlier_fM: torch.Tensor
    ) -> torch.Tensor:
        slack = self.slack
        if slack is None:
            # The mean of K^T C^-1 K's diagonal.
            scale = (k_fN * moment.solve(k_fN)).sum(0).mean().item()
            slack = self.epsilon * scale
        # By the push-through identity, D^-1 K^T C^-1 is MEMIT's solution with lambda = the slack.
        return memit_solve(moment, k_fN, slack, earlier_fM)

    def settings(self, moments: Mapping[int, Moment]) -> dict[str, object]:
        return {"epsilon": self.epsilon} if self.slack is None else {"slack": self.slack}
