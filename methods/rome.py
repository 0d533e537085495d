"""ROME: one fact at a time, a rank-one update of one MLP's output projection W (d x f).

With the key k_* (the MLP's inner activation at the subject's last token), the wanted value v_* and
the second moment C of ordinary keys:

    W' = W + (v_* - W k_*) (C^-1 k_*)^T / ((C^-1 k_*)^T k_*)

so that W' k_* = v_*, and keys that are C-orthogonal to k_* keep their values. Meng et al. 2022,
"Locating and Editing Factual Associations in GPT", arXiv 2202.05262, eqs. 2-4; reference code
kmeng01/rome at 0874014.

Differences from the reference:
- One key throughout, that of the bare prompt ("consistent" key: p-ROME of arXiv 2403.07175, whose
  r-ROME uses the mean over prefixed prompts throughout). The reference solves for that mean but
  divides by the bare key, and collapses when the two disagree; ``key=original`` does the same.
- 5 prefixes of 10 tokens and 25 steps. The reference has 10 of 5 and 10 of 10 tokens, and 20
  steps (``prefix_style=rome``, ``prefixes=20``, ``steps=20``).
- Several facts are written one after the other, each on the model edited so far, as in the
  reference. Edits of single facts (the regime ``single``) have their values found side by side.
- ``recipe=paper`` sets what differs here and in ``_edit/value.py`` as published. C remains ours
  (``statistics.py``), and no first token is edited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from editbench import progress
from editbench.edit import Edit
from editbench.methods._common.hooks import read_at
from editbench.methods._edit.again import Kept
from editbench.methods._edit.alone import each_alone
from editbench.methods._edit.bench import Bench
from editbench.methods._edit.layers import check_layers, single_layer
from editbench.methods._edit.options import PUBLISHED, WeightEditor
from editbench.methods._edit.prepare import PreparedFact, context_prefixes, key_rows
from editbench.methods._edit.shared import Shared
from editbench.methods._edit.value import Targets
from editbench.models import LanguageModel
from editbench.outline import Outline
from editbench.plugin import LogUniform, Space
from editbench.report import Figure
from editbench.types import Fact

# d residual width, f MLP inner width


@dataclass(frozen=True)
class Rome(WeightEditor[Bench]):
    """Rank-One Model Editing."""

    name: ClassVar[str] = "rome"
    version: ClassVar[int] = 9
    summary: ClassVar[str] = "rank-one update of one MLP, fact after fact"
    paper: ClassVar[str] = "arXiv 2202.05262"
    sites: ClassVar[tuple[str, ...]] = ("mlp",)
    one_by_one: ClassVar[bool] = True
    of_one_key: ClassVar[str] = "the last one written wins"
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        # hparams/ROME/EleutherAI_gpt-j-6B.json
        "paper": {
            **PUBLISHED,
            "steps": 20,
            "clamp": 4.0,
            "prefixes": 20,
            "prefix_style": "rome",
            "key": "original",
        }
    }
    figures: ClassVar[Mapping[str, Figure]] = {
        **WeightEditor.figures,
        "key": Figure("The option key: which key the update was solved for."),
    }
    space: ClassVar[Space] = {**WeightEditor.space, "clamp": LogUniform(1.0, 8.0)}

    layer: int | Literal["auto"] | None = None
    """Edited layer. None: a sixth of the depth; ``auto``: by a causal trace of the prompts."""
    clamp: float = 4.0
    """Largest ||delta|| as a multiple of ||v_0||."""
    key: Literal["consistent", "original"] = "consistent"
    """``consistent``: the bare prompt's key everywhere. ``original``: the mean over prompts in
    C^-1 k, as published."""
    prefix_style: Literal["memit", "rome"] = "memit"
    """``memit``: prefixes of 10 tokens that begin with The, Therefore, Because, I or You, as in
    MEMIT's code. ``rome``: half of 5 and half of 10 tokens, from the start of a document, as in
    ROME's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prefix_style not in ("memit", "rome"):
            raise ValueError("prefix_style must be memit or rome")
        if self.key not in ("consistent", "original"):
            raise ValueError("key must be consistent or original")

    def rule(self, depth: int) -> tuple[int, ...]:
        return (single_layer(depth),)

    def edited_layers(self, model: LanguageModel | Outline) -> tuple[int, ...] | None:
        if self.layer == "auto":
            return None
        if self.layer is None:
            return self.usual_layers(model)
        return check_layers(model, (self.layer,))

    def new_prefixes(self, model: LanguageModel, n: int) -> list[str]:
        return context_prefixes(model, n, self.seed, self.prefix_style)

    def bench(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        kept: Mapping[str, Kept],
        shared: Shared | None = None,
    ) -> Bench:
        return Bench(self, model, facts, kept=kept, shared=shared)

    def inject_each(self, model: LanguageModel, facts: Sequence[Fact]) -> Iterator[Edit]:
        return each_alone(self, model, facts, self.clamp)

    def write(self, bench: Bench) -> Edit:
        (layer,) = bench.layers
        solved: list[Targets] = []
        missing: list[torch.Tensor] = []
        n = len(bench.facts)
        with bench.writing(), progress.task("rome: writing facts", n, "facts") as bar:
            for fact in bench.prepared:
                # Eq. 4: v_*, on the model that already holds the facts before this one.
                target = bench.solve([fact], self.clamp)
                # Eq. 3: k_*
                k_star_f, w_k_d, solved_for_f = self.read(bench, layer, fact)
                with bench.phase("solve"):
                    # Eq. 2: W' = W + Lambda u^T with u = C^-1 k_*,
                    # Lambda = (v_* - W k_*) / (u^T k_*)
                    u_f = bench.moments[layer].solve(solved_for_f[:, None])[:, 0]
                    missing_d = target.value_ND[0].double() - w_k_d
                    left_d = missing_d / (u_f @ k_star_f)
                bench.write(layer, left_d[:, None], u_f[:, None])
                solved.append(target)
                missing.append(missing_d)
                bar.advance()
            targets = Targets.join(solved)
            bench.noted(torch.stack(missing, dim=1))
            # Zero for a single fact. Of several, the later ones may have moved the earlier values.
            bench.residual(targets.value_ND.T.double(), "mlp")
        return bench.edit(targets, key=self.key)

    def read(
        self, bench: Bench, layer: int, fact: PreparedFact
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return k_*, W k_* and the key that C^-1 k is solved for, float64."""
        model = bench.model
        projection = model.layout.out_projection(model.model, layer)
        bare = key_rows(fact.prompts[:1])
        chosen = key_rows(fact.prompts) if self.key == "original" else bare
        with bench.phase("keys"):
            solved_for_f = read_at(model, projection, "input", *chosen).cpu().double().mean(dim=0)
            k_star_f = read_at(model, projection, "input", *bare)[0].cpu().double()
            # Read, not multiplied out, so that a bias of the projection is included.
            w_k_d = read_at(model, projection, "output", *bare)[0].cpu().double()
        return k_star_f, w_k_d, solved_for_f
