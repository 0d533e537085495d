"""What a weight editor reports about an injection: figures, one record per fact, and warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from editbench import errors
from editbench.methods._edit.checks import NAMED, listed
from editbench.methods._edit.prepare import PreparedFact
from editbench.methods._edit.value import Targets
from editbench.report import EditRecord, Figure

# N facts

UNSOLVED = 1.0
"""Nats per token. A target whose nll ends above this is hardly ever said."""
DISABLING = 0.25
"""Share of a weight's norm above which one fact's term damages all other text.

Such an edit is a "disabling edit" (Gupta et al. 2024, arXiv 2401.07453). Of 190 facts that ``rome``
wrote into SmolLM2, 188 stayed at or below 0.16. The chunks of the other two, 0.30 and 0.63, made
the model's own text 1.07 and 1.5 times as perplexing (``benchmarks/harness.md``)."""
LITTLE = 0.1
"""Share of the wanted change below which an edit did next to nothing."""

FIGURES: Mapping[str, Figure] = {
    "layers": Figure("Layers that were written, ascending."),
    "layer_curve": Figure(
        "With auto layers: each layer's share, by a causal trace, of what noise on the subjects "
        "took."
    ),
    "kept_values": Figure(
        "Of an edit made again without some facts: how many values were kept from before."
    ),
    "covariance_tokens": Figure("Tokens that the covariance C was measured on."),
    "prefixes": Figure("Generated texts that stood before the prompts."),
    "target_nll_mean": Figure(
        "Mean over facts of the target's nats a token at the end of the target optimisation."
    ),
    "target_nll_max": Figure("The largest of these."),
    "clamped_share": Figure("Share of facts whose delta ended at its largest allowed norm."),
    "mean_steps": Figure("Mean number of optimisation steps a fact."),
    "norm_anchor_by_layer": Figure(
        "With norm_anchor: the norm that every written value has, by the layer of the value."
    ),
    "facts_at_once": Figure(
        "Most facts that were solved side by side. The edit differs by rounding with it."
    ),
    "relative_update_by_layer": Figure("Norm of the update as a share of the weight's, by layer."),
    "seconds_by_phase": Figure("Seconds of each phase of the injection."),
    "residual_by_layer": Figure(
        "Mean norm of what was missing from the wanted values: before the first layer was written, "
        "then after each."
    ),
    "reached_by_layer": Figure("Share of the wanted change that was reached after each layer."),
}
"""Figures that every weight editor reports."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of an injection, as its report needs it."""

    model_name: str
    prepared: Sequence[PreparedFact]
    targets: Targets
    value_layers: Sequence[int]
    """The layer at which each fact's value is wanted."""
    norm_by_layer: Mapping[int, float]
    """||Delta|| / ||W||."""
    largest_N: torch.Tensor
    """The same of each fact's own term, at the layer where it is largest."""
    residuals: Sequence[float]
    """Mean norm of the residual, before the first layer is written and after each."""
    seconds: Mapping[str, float]
    """Seconds by phase."""

    @property
    def reached(self) -> list[float]:
        """Shares of the wanted change after each layer; empty where no change was wanted."""
        # Without a step the residual is rounding, and shares of it mean nothing.
        moved = bool(self.targets.steps_N.any())
        if len(self.residuals) < 2 or self.residuals[0] <= 0 or not moved:
            return []
        return [1 - left / self.residuals[0] for left in self.residuals[1:]]

    def figures(self) -> dict[str, object]:
        """Return the figures that come from the solver and from the written weights."""
        figures: dict[str, object] = {
            **self.targets.report(),
            "relative_update_by_layer": dict(self.norm_by_layer),
            "seconds_by_phase": {name: round(value, 3) for name, value in self.seconds.items()},
        }
        if self.reached:
            figures |= {
                "residual_by_layer": list(self.residuals),
                "reached_by_layer": self.reached,
            }
        return figures

    def records(self) -> list[EditRecord]:
        """Return one record per fact."""
        targets = self.targets
        return [
            {
                "fact": each.fact.id,
                "subject": each.subject.text,
                "subject_from": each.subject.source,
                "fact_token": each.token,
                "value_layer": self.value_layers[i],
                "target_nll": targets.nll_N[i].item(),
                "clamped": bool(targets.clamped_N[i]),
                "steps": int(targets.steps_N[i]),
                "relative_update": self.largest_N[i].item(),
            }
            for i, each in enumerate(self.prepared)
        ]

    def doubts(self) -> Iterator[str]:
        """Yield warnings about an edit that did nothing or blew up."""
        yield from self._unsolved()
        yield from self._too_little()
        yield from self._too_much()

    def _unsolved(self) -> Iterator[str]:
        nlls = self.targets.nll_N
        ids = [
            each.fact.id for each, nll in zip(self.prepared, nlls, strict=True) if nll > UNSOLVED
        ]
        if ids:
            yield (
                f"{len(ids)} of {len(self.prepared)} targets "
                f"{'was' if len(ids) == 1 else 'were'} not reached by the optimisation "
                f"(above {UNSOLVED} nats a token): {errors.listed(ids, NAMED)}. Allow more steps "
                "or a larger clamp, or use a trainer for them."
            )

    def _too_little(self) -> Iterator[str]:
        if not self.targets.steps_N.any():
            yield (
                f"The edit does nothing: {self.model_name} says all {len(self.prepared)} targets "
                "already, so no value moved."
            )
        # The last entry is read after all layers have been written.
        elif self.reached and self.reached[-1] < LITTLE:
            yield (
                f"The edit did next to nothing: {max(0.0, self.reached[-1]):.0%} of the wanted "
                "change was reached. Lower the weight of what is kept (lam of memit and pmet, l2 "
                "of alphaedit, epsilon of emmet), or give rome fewer facts at once."
            )

    def _too_much(self) -> Iterator[str]:
        sizes = zip(self.prepared, self.largest_N.tolist(), strict=True)
        loud = [f"{each.fact.id} by {size:.2f}" for each, size in sizes if size > DISABLING]
        if loud:
            yield (
                f"Some facts move a weight by more than {DISABLING} of its norm, each by itself "
                f"({listed(loud)}). Such an edit damages all other text. Give these facts to a "
                "trainer (sft, mixsd)."
            )
        # Many small terms can add up to such an update.
        wild = [layer for layer, norm in self.norm_by_layer.items() if norm > 1]
        if wild:
            yield (
                f"The edit blew up: at layer {wild[0]} the update is "
                f"{self.norm_by_layer[wild[0]]:.1f} times as large as the weight. Inject fewer "
                "facts at once, or raise the weight of what is kept: lam, l2 or epsilon."
            )
