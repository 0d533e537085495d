"""One injection of a weight editor: its facts, its statistics, what it wrote, and its report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from editbench.changes import Change
from editbench.edit import Edit
from editbench.errors import MethodError
from editbench.methods._common.hooks import read_at, site_module
from editbench.methods._edit.again import Kept
from editbench.methods._edit.checks import (
    check_editable,
    check_room,
    check_values,
    layer_notes,
    listed,
)
from editbench.methods._edit.norm_anchor import (
    TOO_LARGE,
    anchored,
    kept_norm,
    mean_norm,
    mlp_part,
    read_norm_facts,
)
from editbench.methods._edit.options import WeightEditor
from editbench.methods._edit.prepare import (
    FactToken,
    PreparedFact,
    kept_prefixes,
    key_rows,
    prepare_readable,
)
from editbench.methods._edit.report import Outcome
from editbench.methods._edit.rounding import taken_by_rounding
from editbench.methods._edit.shared import Shared
from editbench.methods._edit.value import Targets, optimize
from editbench.models import LanguageModel, float64_device
from editbench.types import Fact

# N facts, d residual width, f MLP inner width


class Bench:
    """The state that the steps of one injection share: facts, statistics, seconds, updates."""

    def __init__(
        self,
        editor: WeightEditor[Any],
        model: LanguageModel,
        facts: Sequence[Fact],
        at: FactToken | Literal["auto"] = "subject_last",
        last_layers: tuple[int, ...] = (),
        kept: Mapping[str, Kept] | None = None,
        shared: Shared | None = None,
    ):
        """Check ``facts`` and gather what the steps need.

        Args:
            at: At which token facts are written (``prepare_facts``).
            last_layers: The layers at which facts are written at their prompt's last token.
            kept: Values of an earlier edit, which need not be found again.
            shared: What earlier injections of ``editor`` into ``model`` have computed.

        Raises:
            MethodError: A fact cannot be written, the memory is too small, or C is singular.
            ModelError: The method cannot write this model.
        """
        self.editor, self.model = editor, model
        self.shared = shared or Shared(editor, model)
        self.seconds: dict[str, float] = {}
        self._noted = len(model.batches.notes)
        self.kept: Mapping[str, Kept] = kept or {}
        """Values that need not be found, by the id of their fact."""
        self.again = bool(kept)
        """Whether they are those of an earlier edit."""
        self.norm_facts = read_norm_facts(editor.norm_facts) if editor.norm_facts else []
        self.anchors: dict[int, float] = {}
        """With ``norm_anchor``: the norm of the values at each layer where some are wanted."""
        self.unwritten: list[str] = []
        """With ``norm_anchor``: ids of the facts whose values are too large to be written."""
        editor.check_model(model)
        with self.phase("prefixes"):
            self.prefixes = self.shared.prefixes
        self.prepared, self.warnings = prepare_readable(model, facts, self.prefixes, at)
        self.facts = [each.fact for each in self.prepared]
        # Before layers and statistics, which may take minutes.
        self.warnings += check_editable(model, self.prepared, editor.of_one_key)
        if model.applied and self.prefixes != kept_prefixes(model, len(self.prefixes)):
            self.warnings.append(
                "The prefixes were written by the edited model, since no applied edit has those "
                "of the model before its edits."
            )
        with self.phase("layers"):
            self.choice = self._choose_layers(last_layers)
        check_values(model, self.layers, self.prepared)
        with self.phase("statistics"):
            self._measure()
        self.residuals: list[float] = []
        """Mean norms of the residuals, in the order in which they were read."""
        # Several pairs in a layer where facts are written one after the other (rome).
        self._factors: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {
            layer: [] for layer in self.layers
        }

    def _choose_layers(self, last_layers: tuple[int, ...]) -> dict[str, object]:
        """Set the layers of the facts, and return figures of the choice."""
        self.layers_of: dict[FactToken, tuple[int, ...]] = {}
        """Layers at which facts are written, ascending, by the token at which they are."""
        choice: dict[str, object] = {}
        if at_subject := [each.fact for each in self.prepared if each.token == "subject_last"]:
            layers, choice = self.editor.choose_layers(self.model, at_subject)
            self.layers_of["subject_last"] = layers
            rule = self.editor.rule(self.model.layout.depth)
            self.warnings += layer_notes(self.model, layers, rule)
        if len(at_subject) < len(self.prepared):
            self.layers_of["last"] = last_layers
        self.layers = tuple(sorted({layer for some in self.layers_of.values() for layer in some}))
        return choice

    def _measure(self) -> None:
        """Get C of each layer and G of those where values are read, from the cache or measured."""
        self.moments = self.shared.moments(self.layers)
        check_room(self.model, len(self.facts), self.moments)
        self.fisher_SDD = {
            token: self.shared.fisher_SDD(layers[-1]) for token, layers in self.layers_of.items()
        }
        for moment in self.moments.values():
            moment.cholesky_ff  # noqa: B018 - a singular C is refused before the work begins
        # There is no model for C = I, which is not measured.
        measured_on = self.moments[self.layers[0]].origin.get("model")
        applied = self.model.applied
        if applied and measured_on not in (None, applied[0].model_hash):
            self.warnings.append(
                "The covariance was measured on the edited model, since that of the model before "
                "its edits is not cached. Run 'editbench stats compute' before the first edit to "
                "use the unedited model's."
            )

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to those of the phase ``name``, which may run many times."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Allow ``write`` inside; afterwards the weights are bitwise those of before."""
        # Not by subtraction, which would not restore the bits.
        self._undo: list[Callable[[], None]] = []
        try:
            yield
        finally:
            for restore in reversed(self._undo):
                restore()

    def of_token(self, prepared: Sequence[PreparedFact], token: FactToken) -> list[int]:
        """Return the places in ``prepared`` of the facts that are written at ``token``."""
        return [i for i, each in enumerate(prepared) if each.token == token]

    def solve(
        self, prepared: Sequence[PreparedFact], clamp: float, title: str | None = None
    ) -> Targets:
        """Return the wanted values, each at the last layer at which its fact is written.

        ``title`` names a progress bar.
        """
        rows: dict[int, Targets] = {}
        with self.phase("targets"):
            for token, layers in self.layers_of.items():
                places = self.of_token(prepared, token)
                rows |= {i: kept for i in places if (kept := self._kept(prepared[i], layers[-1]))}
                if not (places := [i for i in places if i not in rows]):
                    continue
                some = [prepared[i] for i in places]
                found = self._optimized(some, token, clamp, title)
                targets = self.settled(some, token, clamp, found)
                rows |= {i: targets.row(row) for row, i in enumerate(places)}
        return Targets.join([rows[i] for i in range(len(prepared))])

    def _optimized(
        self, prepared: list[PreparedFact], token: FactToken, clamp: float, title: str | None = None
    ) -> Targets:
        """Return the values that the optimisation finds, for facts written at ``token``."""
        layer, solver = self.layers_of[token][-1], self.editor.solver(clamp)
        return optimize(
            self.model,
            prepared,
            layer,
            self.editor.sites,
            solver,
            title,
            self.fisher_SDD[token],
            self.shared.passes,
        )

    def settled(
        self, prepared: list[PreparedFact], token: FactToken, clamp: float, targets: Targets
    ) -> Targets:
        """Return the values to write: with ``norm_anchor``, those found with the anchor's norm."""
        if not self.editor.norm_anchor:
            return targets
        layer = self.layers_of[token][-1]
        if layer not in self.anchors:
            self.anchors[layer] = self._anchor(prepared, token, clamp, targets)
        v0_ND = mlp_part(self.model, layer, self.editor.sites[0], prepared, targets)
        scaled, skipped_N = anchored(targets, v0_ND, self.anchors[layer])
        self.unwritten += [
            each.fact.id
            for each, skipped in zip(prepared, skipped_N.tolist(), strict=True)
            if skipped
        ]
        return scaled

    def _anchor(
        self, prepared: list[PreparedFact], token: FactToken, clamp: float, targets: Targets
    ) -> float:
        """Return the norm that values at ``token`` get: of an applied edit, else measured now."""
        layer = self.layers_of[token][-1]
        if (norm := kept_norm(self.model, self.editor.name, layer)) is not None:
            return norm
        if self.model.applied:
            self.warnings.append(
                "The norm anchor was measured on the edited model, since no applied edit of "
                f"{self.editor.name} has the unedited model's. Use norm_anchor from the first edit "
                "on."
            )
        measured = [self.prepared[i] for i in self.of_token(self.prepared, token)]
        if self.norm_facts:
            measured, _ = prepare_readable(self.model, self.norm_facts, self.prefixes, token)
        # Where facts are written one after the other, all are solved before the first is written.
        if self.norm_facts or len(measured) > len(prepared):
            prepared, targets = measured, self._optimized(measured, token, clamp, "norm anchor")
        v0_ND = mlp_part(self.model, layer, self.editor.sites[0], prepared, targets)
        return mean_norm(v0_ND + targets.value_ND - targets.start_ND, layer)

    def _kept(self, each: PreparedFact, layer: int) -> Targets | None:
        """Return the kept value of a fact, if it has one for the place where it is written."""
        kept = self.kept.get(each.fact.id)
        fits = kept is not None and (kept.layer, kept.token) == (layer, each.token)
        return kept.targets if kept is not None and fits else None

    def states(self, site: str) -> torch.Tensor:
        """Return the present values (d, N), float64, at each fact's last layer's ``site``.

        They are read in the first context of each fact, without a prefix.
        """
        states_dN = torch.zeros(self.model.layout.width, len(self.facts), dtype=torch.float64)
        with self.phase("keys"):
            for token, layers in self.layers_of.items():
                places = self.of_token(self.prepared, token)
                # As in the reference, the residual is read without prefixes, although the keys are
                # means.
                rows, positions = key_rows([self.prepared[i].prompts[0] for i in places])
                module = site_module(self.model, layers[-1], site)
                read = read_at(self.model, module, "output", rows, positions)
                states_dN[:, places] = read.T.cpu().double()
        return states_dN

    def residual(self, wanted_dN: torch.Tensor, site: str) -> torch.Tensor:
        """Return the residual (d, N), wanted minus present values, and note its mean norm."""
        return self.noted(wanted_dN - self.states(site))

    def noted(self, missing_dN: torch.Tensor) -> torch.Tensor:
        """Return ``missing_dN`` after noting its mean norm for the report."""
        self.residuals.append(missing_dN.norm(dim=0).mean().item())
        return missing_dN

    def oriented(
        self, left_dN: torch.Tensor, right_fN: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors of left @ right^T in the orientation in which W is stored."""
        # (left right^T)^T = right left^T. The layout says which; a square W would not show it.
        transposed = self.model.layout.transposed
        return (right_fN, left_dN.T) if transposed else (left_dN, right_fN.T)

    @torch.no_grad()
    def write(self, layer: int, left_dN: torch.Tensor, right_fN: torch.Tensor) -> None:
        """Add left @ right^T to W at ``layer``, and remember the factors.

        Raises:
            MethodError: The update is not finite, or does not fit the weight's number format.
        """
        first, second = self.oriented(left_dN, right_fN)
        name = self.model.layout.weight_name(layer)
        weight = self.model.weight(name)
        with self.phase("write"):
            # The sum in float64, so that a weight in bfloat16 is rounded only once.
            place = float64_device(weight.device)
            changed = (weight.to(place).double() + (first @ second).to(place)).to(weight.dtype)
            if not changed.isfinite().all():
                raise MethodError(
                    f"The update of layer {layer} is not finite in {weight.dtype}. Load the model "
                    "in float32, lower v_lr or clamp, or measure the covariance on more tokens."
                )
            restore = self.model.write(name, changed)
        if not self._factors[layer]:  # only the first update finds the weight as it was
            self._undo.append(restore)
        self._factors[layer].append((first, second))

    def replace(self, layer: int, left_dN: torch.Tensor, right_fN: torch.Tensor) -> None:
        """Make left @ right^T the whole update of ``layer`` in the edit."""
        self._factors[layer] = [self.oriented(left_dN, right_fN)]

    def edit(self, targets: Targets, **settings: object) -> Edit:
        """Return the edit that was written, with its report.

        Call it after ``writing``, on the unedited weights, whose norms the report needs.
        ``settings`` are figures that the method adds.
        """
        changes, norms, largest_N = self._changes()
        value_layers = [self.layers_of[each.token][-1] for each in self.prepared]
        again = [self._kept(*one) for one in zip(self.prepared, value_layers, strict=True)]
        outcome = Outcome(
            self.model.name,
            self.prepared,
            targets,
            value_layers,
            norms,
            largest_N,
            self.residuals,
            self.seconds,
        )
        pairs = [(each.prompts[0].ids, each.prompts[0].target_ids) for each in self.prepared]
        by_layer = {layer: changes[self.model.layout.weight_name(layer)] for layer in self.layers}
        rounding = taken_by_rounding(self.model, by_layer, pairs)
        diagnostics: dict[str, object] = {
            "layers": list(self.layers),
            **self.choice,
            **settings,
            **({"kept_values": len(again) - again.count(None)} if self.again else {}),
            "covariance_tokens": self.moments[self.layers[0]].tokens,
            "prefixes": self.prefixes,
            **outcome.figures(),
            **({"norm_anchor_by_layer": dict(self.anchors)} if self.anchors else {}),
            **rounding,
            "warnings": [
                *self.warnings,
                *dict.fromkeys(self.model.batches.notes[self._noted :]),
                *self.doubts_of_keys(),
                *self._left_unwritten(),
                *outcome.doubts(),
            ],
        }
        return self.editor.edit(
            self.model,
            self.facts,
            changes,
            keys=self.kept_keys(),
            values=targets.value_ND,
            diagnostics=diagnostics,
            records=outcome.records(),
            model_hash=self.shared.weights,
        )

    def _changes(self) -> tuple[dict[str, Change], dict[int, float], torch.Tensor]:
        """Return the changes by weight, ||Delta|| / ||W|| by layer, and each fact's largest share.

        The last is (N,): the norm of the fact's own term over that of the weight, at the layer
        where it is largest.
        """
        changes: dict[str, Change] = {}
        norms: dict[int, float] = {}
        by_fact: list[torch.Tensor] = []
        for layer, pairs in self._factors.items():
            name = self.model.layout.weight_name(layer)
            left = torch.cat([first for first, _ in pairs], dim=1)
            right = torch.cat([second for _, second in pairs], dim=0)
            product = left @ right
            # a weight of zeros would divide by zero
            weight = self.model.weight(name).detach()
            size = weight.to(float64_device(weight.device)).double().norm().cpu().clamp(min=1e-12)
            norms[layer] = (product.norm() / size).item()
            # The factors stand fact by fact in every method: each column is one fact's own term,
            # of rank one, so its norm is the product of the two vectors' norms.
            by_fact.append((left.norm(dim=0) * right.norm(dim=1) / size).cpu())
            # with about as many facts as the smaller side has, the product is cheaper to keep
            cheaper = left.numel() + right.numel() < product.numel()
            changes[name] = (left.contiguous(), right.contiguous()) if cheaper else product
        return changes, norms, torch.stack(by_fact).max(dim=0).values

    def _left_unwritten(self) -> Iterator[str]:
        """Yield a warning about facts that the norm anchor left out."""
        if self.unwritten:
            yield (
                f"Some values are more than {TOO_LARGE:g} times as large as the norm anchor, so "
                f"their facts were not written ({listed(self.unwritten)})."
            )

    def kept_keys(self) -> dict[str, torch.Tensor]:
        """Return the keys that later edits must respect, by weight; none in this class."""
        return {}

    def doubts_of_keys(self) -> list[str]:
        """Return warnings about the facts' keys; none in this class."""
        return []
