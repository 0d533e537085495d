"""ROME: one fact at a time, a rank-one update of one MLP's output projection W (d x f).

With the key k_* (MLP inner activation at the subject's last token), the wanted value v_* and the second moment C of
ordinary keys:

    W' = W + (v_* - W k_*) (C^-1 k_*)^T / ((C^-1 k_*)^T k_*)

so that W' k_* = v_* and keys that are C-orthogonal to k_* keep their values. Meng et al. 2022, "Locating and Editing
Factual Associations in GPT", arXiv 2202.05262, eqs. 2-4; reference code kmeng01/rome at 0874014.

Differs from the reference:
- one key throughout, that of the bare prompt ("consistent" key, R-ROME, arXiv 2403.07175). The reference solves for the
  mean over prefixed prompts and divides by the bare key, and collapses when the two disagree;
- several facts are written one after the other, each on the model edited so far, as in the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from editbench import progress
from editbench.edit import Edit
from editbench.methods._hooks import read_at
from editbench.methods._value import context_prefixes, key_rows, optimize
from editbench.methods.memit import WeightEditor, check_layers, restore, write
from editbench.models import LanguageModel
from editbench.types import Fact

# d residual width, f MLP inner width


@dataclass(frozen=True)
class Rome(WeightEditor):
    """Rank-One Model Editing."""

    name: ClassVar[str] = "rome"
    summary: ClassVar[str] = "rank-one update of one MLP, fact after fact"
    paper: ClassVar[str] = "arXiv 2202.05262"

    layer: int | None = None
    """Edited layer. None: a sixth of the depth."""
    clamp: float = 4.0
    """Largest ||delta|| as a multiple of ||v_0||."""

    def edited_layers(self, model: LanguageModel) -> tuple[int, ...]:
        return check_layers(model, [self.layer if self.layer is not None else round(model.layout.depth / 6)])

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        if not facts:
            return self.edit(model, facts)
        (layer,) = self.edited_layers(model)
        name = model.layout.weight_name(layer)
        moment = self.moments(model)[layer]
        prefixes = context_prefixes(model, self.prefixes, self.seed)
        original = model.weight(name).detach().clone()
        lefts, rights, solved = [], [], []
        try:
            with progress.task("rome: writing facts", len(facts), "facts") as bar:
                for fact in facts:
                    rows, positions = key_rows(model, [fact], [])
                    target = optimize(model, [fact], layer, "mlp", prefixes, self.solver(self.clamp))
                    v_star_d = target.value_ND[0].double()
                    projection = model.layout.out_projection(model.model, layer)
                    k_star_f = read_at(model, projection, "input", rows, positions)[0].double().cpu()
                    v_now_d = read_at(model, projection, "output", rows, positions)[0].double().cpu()
                    u_f = moment.solve(k_star_f[:, None])[:, 0]
                    left_d = (v_star_d - v_now_d) / (u_f @ k_star_f)
                    first, second = write(model, layer, left_d[:, None], u_f[:, None])
                    lefts.append(first)
                    rights.append(second)
                    solved.append(target)
                    bar.advance()
        finally:
            restore(model, {name: original})
        report = replace(
            solved[0], **{f: torch.cat([getattr(t, f) for t in solved]) for f in ("nll_N", "clamped_N", "steps_N")}
        ).report()
        factors = (torch.cat(lefts, dim=1), torch.cat(rights, dim=0))
        diagnostics = {"layer": layer, "prefixes": prefixes, "covariance_tokens": moment.tokens, **report}
        return self.edit(model, facts, {name: factors}, diagnostics=diagnostics)
