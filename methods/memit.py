"""MEMIT: many facts at once, by a closed-form update of the MLPs of several layers.

For the facts' keys K (f x N, the MLP's inner activations at the subject's last token), the residual
R = Z - Z_cur (d x N) between the wanted and the present hidden states at the last edited layer, and
the second moment C of ordinary keys:

    for i = 1 ... m, layer l = l_i:
        Delta_l = R_l K_l^T (lambda C_l + K_l K_l^T)^-1,   R_l = (Z - Z_cur) / ((m - i + 1) g_l)

g_l is the constant with which the MLP's output enters the residual stream, 1 in most models. Keys
and Z_cur are read anew after each layer has been written. Meng et al. 2023, "Mass-Editing Memory in
a Transformer", arXiv 2210.07229, eqs. 14-20, algorithm 1; reference code kmeng01/memit at 80426fd.

Differences from the reference:
- lambda follows the MLP width. It is weighed against k^T C^-1 k, which is f on average over
  ordinary keys, so lambda is f / 3. The usual 15000 belongs to f = 16384 and edits hardly anything
  on a small model. ``recipe=paper`` has it nevertheless, with all else as published.
- The solve is done in float64 on the smaller side, facts x facts or f x f, by the push-through
  identity K^T (lambda C + K K^T)^-1 = (lambda I + K^T C^-1 K)^-1 K^T C^-1.
- While earlier edits are applied, their keys K_p are added to C: lambda C + K_p K_p^T (the
  sequential form of AlphaEdit's authors, arXiv 2410.02355). So an edit in a sequence also keeps the
  facts written before it. C and the prefixes remain those of the model before all edits; the values
  Z, and the text of ``refine``, are the edited model's.
- ``shrink``, off by default, gives each fact's values the least factor at which it is still said
  (``_edit/shrink.py``).
- ``refine``, off by default, trains the values R_l of all facts together once they are written
  (``_edit/refine.py``).
- ``fact_token=auto`` writes facts that share a subject at the last word of their prompts, in other
  layers, with all facts in the same equations: a fact that is not written at a layer has R = 0
  there. By default every key is the subject's, as published. At their subjects SmolLM2 says .02 of
  100 such facts. At the last word it says .35 of 60, at a KL of .09 on own text (kgfact's dev
  world, ``last_layers`` 8 to 16, ``clamp=1.5``, ``lam=50``, ``prefixes=0``): better, and not
  enough. ``memit+mixsd`` teaches them.
- ``_edit/value.py`` says how the target optimisation differs, and ``statistics.py`` how C does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from editbench import errors
from editbench.edit import Edit
from editbench.errors import MethodError
from editbench.methods._edit.again import Kept
from editbench.methods._edit.alone import each_alone
from editbench.methods._edit.batch import BatchBench, additive_gains
from editbench.methods._edit.checks import NAMED, same_keys
from editbench.methods._edit.layers import check_layers, default_layers, middle_layers, nearest
from editbench.methods._edit.options import PUBLISHED, WeightEditor
from editbench.methods._edit.refine import TEXT_TOKENS, Written, refine
from editbench.methods._edit.shared import Shared
from editbench.methods._edit.shrink import shrink
from editbench.methods.statistics import Moment, source_texts
from editbench.models import LanguageModel
from editbench.outline import Outline
from editbench.plugin import Choice, LogUniform, Space
from editbench.report import Figure
from editbench.types import Fact

# N facts, M earlier facts, A = N + M, d residual width, f MLP inner width


PUBLISHED_BATCH: Mapping[str, object] = {
    **PUBLISHED,
    "fact_token": "subject_last",
    "steps": 25,
    "clamp": 0.75,
    "prefixes": 5,
    "refine": 0,
    "shrink": 0.0,
}
"""What MEMIT's settings for GPT-J and those of the methods built on it have in common."""


@dataclass(frozen=True)
class BatchEditor(WeightEditor[BatchBench]):
    """MEMIT's algorithm 1. The methods built on it differ in ``share`` and ``directions``."""

    sites: ClassVar[tuple[str, ...]] = ("residual",)
    figures: ClassVar[Mapping[str, Figure]] = {
        **WeightEditor.figures,
        "shrunk": Figure(
            "With shrink: mean, least and largest factor of a fact's values, how many facts "
            "it did not make the model say, and the rounds it took."
        ),
        "refined": Figure("With refine: nll and KL in nats a token, in the first and last steps."),
    }
    space: ClassVar[Space] = {
        **WeightEditor.space,
        "clamp": LogUniform(0.3, 3.0),
        "refine": Choice((0, 25)),
    }

    kept_by: ClassVar[str]
    """Name of the option that weighs old knowledge against the facts, for error messages."""

    layers: tuple[int, ...] | Literal["auto"] | None = None
    """Edited layers, ascending, of the facts at their subject. None: five layers around a fifth of
    the depth; ``auto``: by a causal trace of the prompts."""
    fact_token: Literal["subject_last", "last", "auto"] = "subject_last"
    """Where keys are read and values written: at the subject's last token, as published, or at the
    ``last`` word of the prompt. ``auto``: at the last word for facts that share a subject."""
    last_layers: tuple[int, ...] | None = None
    """Edited layers of the facts at their prompt's last word, ascending. None: about a third of
    the layers, centred at two fifths of the depth."""
    clamp: float = 0.75
    """Largest ||delta|| as a share of ||h_0||."""
    shrink: float = 0.0
    """Give each fact's values the least factor at which every token of its target has this
    probability (``shrink.py``). 0: factor 1, as published."""
    refine: int = 0
    """Passes of joint training of the written values (``refine.py``). 0: none, as published; 25 is
    enough."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refine < 0:
            raise ValueError("refine must be at least 0")
        if not 0 <= self.shrink < 1:
            raise ValueError("shrink is a probability: at least 0 and below 1")
        if self.shrink and self.norm_anchor:
            raise ValueError("shrink changes the norms that norm_anchor sets. Use one of them")
        if self.fact_token not in ("subject_last", "last", "auto"):
            raise ValueError("fact_token must be subject_last, last or auto")
        if self.fact_token == "subject_last" and self.last_layers is not None:
            raise ValueError("last_layers needs fact_token=last or fact_token=auto")
        if self.fact_token == "last" and self.layers is not None:
            raise ValueError("with fact_token=last the edited layers are last_layers, not layers")

    def rule(self, depth: int) -> tuple[int, ...]:
        return default_layers(depth)

    def layers_at_last(self, model: LanguageModel | Outline) -> tuple[int, ...]:
        """Return the layers that this method writes at a prompt's last word, ascending.

        Raises:
            MethodError, ModelError: As ``check_layers``.
        """
        if self.last_layers is not None:
            return check_layers(model, self.last_layers)
        return nearest(model.layout.writable, middle_layers(model.layout.depth))

    def edited_layers(self, model: LanguageModel | Outline) -> tuple[int, ...] | None:
        if self.fact_token == "last":
            return self.layers_at_last(model)
        if self.layers == "auto":
            return None
        return self.usual_layers(model) if self.layers is None else check_layers(model, self.layers)

    def bench(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        kept: Mapping[str, Kept],
        shared: Shared | None = None,
    ) -> BatchBench:
        shared = shared or Shared(self, model)
        # Before the bench measures anything.
        self.gains_of(shared)
        last = self.layers_at_last(model)
        return BatchBench(self, model, facts, self.fact_token, last, kept, shared)

    def inject_each(self, model: LanguageModel, facts: Sequence[Fact]) -> Iterator[Edit]:
        return each_alone(self, model, facts, self.clamp)

    def write(self, bench: BatchBench) -> Edit:
        site = self.sites[0]
        gains = self.gains_of(bench.shared)
        if not set(bench.layers) <= set(gains):  # auto layers, or the last word's
            gains = self.gains_of(bench.shared, bench.layers)
        # Eq. 16: every z is solved on the unedited model, before any layer is written.
        targets = bench.solve(bench.prepared, self.clamp, f"{self.name}: solving targets")
        z_dN = targets.value_ND.T.double()
        written: dict[int, Written] = {}
        with bench.writing():
            for layer in bench.layers:
                # Eq. 19: K_l, on the model with the layers below already written.
                k_fN = bench.keys(layer)
                # Eq. 20: this layer's share of what is left. The gain scales W's output afterwards.
                r_dN = self.shares(bench, layer, bench.residual(z_dN, site)) / gains[layer]
                with bench.phase("solve"):
                    a_fN = self.solved(bench, layer, k_fN)
                # Eq. 14: Delta_l = R_l A_l^T with A_l = (lambda C_l + K_l K_l^T)^-1 K_l
                bench.write(layer, r_dN, a_fN)
                written[layer] = Written(r_dN, a_fN)
            bench.residual(z_dN, site)
        done = self.shrunk(bench, written) if self.shrink else {}
        done |= self.refined(bench, written) if self.refine else {}
        return bench.edit(targets, **self.settings(bench.moments), **done)

    def shares(self, bench: BatchBench, layer: int, residual_dN: torch.Tensor) -> torch.Tensor:
        """Return R_l. Facts that are not written at ``layer`` have zeros there: they are kept."""
        r_dN = torch.zeros_like(residual_dN)
        for token, layers in bench.layers_of.items():
            if layer in layers:
                places = bench.of_token(bench.prepared, token)
                left = len(layers) - layers.index(layer)
                r_dN[:, places] = self.share(residual_dN[:, places], left)
        return r_dN

    def lighter(self, model: Outline) -> Iterator[Mapping[str, object]]:
        yield from super().lighter(model)
        layers = self.edited_layers(model) or self.usual_layers(model)
        option = "last_layers" if self.fact_token == "last" else "layers"
        for kept in dict.fromkeys((len(layers) // 2 + 1, 1)):
            if kept < len(layers):
                yield {"prefixes": 0, option: layers[-kept:]}

    def prepare(self, model: LanguageModel) -> None:
        self.gains(model)
        self.layers_at_last(model)
        super().prepare(model)

    def gains(
        self, model: LanguageModel, layers: Sequence[int] | None = None
    ) -> Mapping[int, float]:
        """Return g_l of each of ``layers``, by default the edited or the usual ones.

        Raises:
            MethodError: A layer has no such constant.
            ModelError: This method cannot write ``model``.
        """
        layers = layers or self.check_model(model)
        # PMET's values are read at the MLP itself, before such a constant applies.
        if self.sites[0] != "residual":
            return dict.fromkeys(layers, 1.0)
        return additive_gains(model, layers, self.name)

    def gains_of(
        self, shared: Shared, layers: tuple[int, ...] | None = None
    ) -> Mapping[int, float]:
        """Return ``gains`` of the model, measured once for all injections that share it."""
        if layers not in shared.gains:
            shared.gains[layers] = self.gains(shared.model, layers)
        return shared.gains[layers]

    def solved(self, bench: BatchBench, layer: int, k_fN: torch.Tensor) -> torch.Tensor:
        """Return ``directions`` at ``layer``.

        Raises:
            MethodError: The equations are singular: facts share a key and no weight tells their
                values apart.
        """
        try:
            a_fN = self.directions(bench.moments[layer], k_fN, bench.earlier_keys(layer))
            if a_fN.isfinite().all():
                return a_fN
        # Reported below, like a solution that is not finite.
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # torch does not list it
            pass
        pairs = [f"{first.id} and {fact.id}" for first, fact in same_keys(bench.prepared)]
        why = f" These facts share a key: {errors.listed(pairs, NAMED, '; ')}." if pairs else ""
        raise MethodError(
            f"{self.name}: the equations of layer {layer} are singular.{why} "
            f"Raise {self.kept_by}, or inject each key once."
        )

    def shrunk(self, bench: BatchBench, written: dict[int, Written]) -> dict[str, object]:
        """Scale each fact's values in ``written`` and in the edit, and return the figures.

        Call it after ``bench.writing``, on the unedited weights.
        """
        with bench.phase("shrink"):
            factors_N, figures = shrink(
                bench.model, bench.prepared, written, self.shrink, bench.shared.goes_on_V
            )
        for layer, update in written.items():
            written[layer] = Written(update.r_dN * factors_N, update.a_fN)
            bench.replace(layer, written[layer].r_dN, update.a_fN)
        return {"shrunk": {name: round(value, 4) for name, value in figures.items()}}

    def refined(self, bench: BatchBench, written: Mapping[int, Written]) -> dict[str, object]:
        """Train the written values together, put them into the edit, and return the figures.

        Call it after ``bench.writing``, on the unedited weights.
        """
        with bench.phase("refine"):
            # The KL is computed on the kind of text that C was measured on.
            texts = source_texts(bench.model, self.covariance, TEXT_TOKENS, self.seed)
            values, losses = refine(
                bench.model, bench.prepared, written, texts, self.refine, self.seed
            )
        for layer, r_dN in values.items():
            bench.replace(layer, r_dN, written[layer].a_fN)
        return {"refined": {name: round(value, 4) for name, value in losses.items()}}

    def share(self, residual_dN: torch.Tensor, layers_left: int) -> torch.Tensor:
        """Return R_l, the share of the residual that the next of ``layers_left`` layers takes."""
        return residual_dN / layers_left

    @abstractmethod
    def directions(
        self, moment: Moment, k_fN: torch.Tensor, earlier_fM: torch.Tensor
    ) -> torch.Tensor:
        """Return A (f, N) with Delta = R A^T, from the facts' keys and those of earlier edits."""

    @abstractmethod
    def settings(self, moments: Mapping[int, Moment]) -> dict[str, object]:
        """Return figures of derived settings. ``moments`` holds C of each edited layer."""


@dataclass(frozen=True)
class Memit(BatchEditor):
    """Mass-Editing Memory in a Transformer."""

    name: ClassVar[str] = "memit"
    version: ClassVar[int] = 9
    summary: ClassVar[str] = "closed-form update of several MLPs, all facts at once"
    paper: ClassVar[str] = "arXiv 2210.07229"
    kept_by: ClassVar[str] = "lam"
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        # hparams/MEMIT/EleutherAI_gpt-j-6B.json
        "paper": {
            **PUBLISHED_BATCH,
            "lam": 15_000.0,
        }
    }
    figures: ClassVar[Mapping[str, Figure]] = {
        **BatchEditor.figures,
        "lambda": Figure("Weight of C against the facts' keys."),
        "lambda_by_layer": Figure("The same by layer, where the MLPs differ in width."),
    }
    space: ClassVar[Space] = {**BatchEditor.space, "lam": LogUniform(100.0, 10_000.0)}
    """f / 3 is 512 for f = 1536, and 5461 for f = 16384."""

    lam: float | None = None
    """lambda, the weight of C against the facts' keys. None: a third of the MLP width."""

    def directions(
        self, moment: Moment, k_fN: torch.Tensor, earlier_fM: torch.Tensor
    ) -> torch.Tensor:
        return memit_solve(moment, k_fN, self.weight(len(k_fN)), earlier_fM)

    def settings(self, moments: Mapping[int, Moment]) -> dict[str, object]:
        weights = {layer: self.weight(len(moment.c_ff)) for layer, moment in moments.items()}
        first, *others = set(weights.values())
        return {"lambda_by_layer": weights} if others else {"lambda": first}

    def weight(self, f: int) -> float:
        """Return lambda for an MLP of width ``f``."""
        return self.lam if self.lam is not None else f / 3


def memit_solve(
    moment: Moment, k_fN: torch.Tensor, lam: float, earlier_fM: torch.Tensor | None = None
) -> torch.Tensor:
    """Return (lambda C + K_p K_p^T + K K^T)^-1 K, (f, N), float64, solved on the smaller side."""
    n = k_fN.shape[1]
    # K_p K_p^T + K K^T = A A^T for A = [K, K_p].
    all_fA = k_fN.double() if earlier_fM is None else torch.cat([k_fN.double(), earlier_fM], dim=1)
    f, a = all_fA.shape
    solved: torch.Tensor
    if a > f:
        # the ridge as in ``moment.solve``, so that both sides solve the same equations
        solved = torch.linalg.solve(lam * moment.ridged_ff + all_fA @ all_fA.T, k_fN.double())
        return solved
    # Push-through: f x f becomes A x A, and C^-1 comes from its cached factor.
    c_inverse_fA = moment.solve(all_fA)
    gram_AA = all_fA.T @ c_inverse_fA + lam * torch.eye(a, dtype=torch.float64)
    # left=False solves X (lambda I + A^T C^-1 A) = C^-1 A.
    solved = torch.linalg.solve(gram_AA, c_inverse_fA, left=False)
    # Earlier keys have R = 0: they shape the solution, and their columns write nothing.
    return solved[:, :n]
