"""PMET: MEMIT on the MLP's own output, with the attention optimised too but never written.

The target optimisation adds one delta to the attention's output and one to the MLP's output at the
last edited layer, so that what the attention can explain is not forced into the MLP. Only the MLP's
value is written, and layer i of 1 ... m takes

    R_l = (V - V_cur) / sqrt(m - i + 1)

of the residual there. Li et al. 2024, "PMET: Precise Model Editing in a Transformer", arXiv
2308.08742, eqs. 11-17; reference code xpq-tech/PMET at c9a39ff, ``compute_zs.py``.

Differences from the reference: keys, C, lambda and the solve are MEMIT's. So is the KL weight,
which is 1 for GPT-J in the reference (``recipe=paper``). A fact stops when its nll or, with
``stop=loss``, its loss is small. In the reference it also stops when its target is the most
probable token and its KL is small, and until then such a target's nll counts a tenth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from editbench.methods.memit import PUBLISHED_BATCH, Memit
from editbench.plugin import LogUniform, Space


@dataclass(frozen=True)
class Pmet(Memit):
    """Precise Model Editing in a Transformer."""

    name: ClassVar[str] = "pmet"
    version: ClassVar[int] = 9
    summary: ClassVar[str] = "memit on the MLP's output, with the attention optimised too"
    paper: ClassVar[str] = "arXiv 2308.08742"
    sites: ClassVar[tuple[str, ...]] = ("mlp", "attention")
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        # edit/hparams/PMET/EleutherAI_gpt-j-6B.json
        "paper": {
            **PUBLISHED_BATCH,
            "v_lr": 0.2,
            "kl_factor": 1.0,
            "steps": 30,
            "lam": 6_000.0,
        }
    }
    space: ClassVar[Space] = {**Memit.space, "clamp": LogUniform(0.5, 6.0)}

    clamp: float = 1.5
    """Largest ||delta|| as a multiple of ||v_0||, for each of the two deltas."""

    def share(self, residual_dN: torch.Tensor, layers_left: int) -> torch.Tensor:
        # MEMIT divides by ``layers_left`` itself.
        return residual_dN / float(layers_left**0.5)
