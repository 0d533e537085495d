"""What the locate-then-edit methods share: their options, the rules that set what the user does not, and one injection's
bench: prefixes, statistics, targets, keys, the writer, and the report.

Rules for a model nobody configured (evidence: ``benchmarks/weight_editors.md``):

- MEMIT's layers: five around a fifth of the depth (4-8 of 28 to 32 layers, as published); ROME's: a sixth of the depth;
- the loss is read at the last layer, always;
- lambda: a third of the MLP width f, since k^T C^-1 k, which it stands against, is f on average over ordinary keys;
- the rate of the target optimisation: see ``_value.py``.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import torch

from editbench.edit import Edit
from editbench.errors import MethodError
from editbench.layout import mlp_gain
from editbench.methods._common.context import check_context
from editbench.methods._common.hooks import read_at, site_module
from editbench.methods._common.memory import check_memory
from editbench.methods._edit.fisher import state_fisher
from editbench.methods._edit.refine import TEXT_TOKENS, Written, refine
from editbench.methods._edit.value import (
    STAND_IN,
    Solver,
    Targets,
    context_prefixes,
    contexts,
    key_rows,
    optimize,
)
from editbench.methods.statistics import Moment, second_moments, source_files, source_texts
from editbench.methods.trace import layer_curve
from editbench.models import LanguageModel
from editbench.plugin import Choice, LogUniform, Method, Space
from editbench.text import find_subject, places
from editbench.types import Fact

# N facts, d residual width, f MLP inner width

AUTO = "auto"
AUTO_FACTS = 20
LONG_TARGET = 16
UNSOLVED = 1.0
"""Nats per token: a target whose nll ends above it will hardly be said."""
DISABLING = 0.25
"""||term of one fact|| / ||W|| above which it damages all other text (a "disabling edit", Gupta et al. 2024, arXiv 2401.07453).
``rome``, 190 facts on SmolLM2: 188 at most .16; the chunks of the other two, .30 and .63, made the model's own text 1.07 and
1.5 times as perplexing (``benchmarks/harness.md``)."""
ALIKE = 0.9
"""Cosine in the metric of C^-1 above which two keys can hardly have two values. SmolLM2, layer 4, questions about invented
people: .99 of one subject, .04 of two; memit said 3 of 100 such facts (``benchmarks/distillation.md``)."""


@dataclass(frozen=True)
class WeightEditor(Method):
    """Options that the locate-then-edit methods share."""

    kind: ClassVar[str] = "weight editor"
    needs_covariance: ClassVar[bool] = True
    version: ClassVar[int] = 9
    sites: ClassVar[tuple[str, ...]]
    """Where the target optimisation adds its deltas; the first one's value is what is written."""
    of_one_key: ClassVar[str] = "what is written is a compromise"
    """What becomes of facts with one key and several targets."""
    space: ClassVar[Space] = {
        "kl_factor": LogUniform(0.01, 1.0),
        "fisher_factor": Choice((0.0, 0.5, 1.0, 2.0)),
    }
    """The rate is not searched: it follows the clamp."""

    quick: bool = False
    """12 double steps and no prefixes: several times faster, a little less general."""
    steps: int | None = None
    """Forward passes of the target optimisation; one fewer update. None: 25, quick 12."""
    v_lr: float | None = None
    """Adam's rate for the target optimisation. None: from the clamp, see ``_value.py``."""
    kl_factor: float = 0.0625
    """Weight of the KL at "{subject} is a", as published."""
    v_weight_decay: float = 1e-3
    """Of ||delta|| / ||v_0||^2. EasyEdit's for Llama; ROME's own settings have 0.5."""
    fisher_factor: float = 0.0
    """Weight of what a target's delta would cost the model's own text, in nats; see ``_fisher.py``. 0, as published: carry-over
    to other wordings first; 1 or 2: gentler on all other text."""
    prefixes: int | None = None
    """Generated texts before the prompt, so that the fact holds in more than one context. None: 5, quick 0."""
    covariance: str = "self"
    """What C is measured on: ``self`` (the model's own text), a text or JSONL file, a hub data set; several between commas.
    ``identity``: C = I, as EasyEdit's ROME settings have it."""
    covariance_tokens: int = 20_000
    """About so many: own text is counted to the end of a batch. Of 40,000 or more fewer, where the update direction is stable
    before."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None and self.steps < 2:
            raise ValueError("steps must be at least 2")
        if self.v_lr is not None and self.v_lr <= 0:
            raise ValueError("v_lr must be above 0")
        if self.prefixes is not None and self.prefixes < 0:
            raise ValueError("prefixes must be at least 0")
        for name in (
            "fisher_factor",
            "kl_factor",
            "v_weight_decay",
            "epsilon",
        ):  # of those that have it
            if not getattr(self, name, 0.0) >= 0:
                raise ValueError(f"{name} must be at least 0")
        for name in ("clamp", "lam", "l2"):
            if not (getattr(self, name, None) is None or getattr(self, name) > 0):
                raise ValueError(f"{name} must be above 0")
        if self.covariance_tokens < 2:
            raise ValueError("covariance_tokens must be at least 2")

    @abstractmethod
    def usual_layers(self, model: LanguageModel) -> tuple[int, ...]:
        """The layers that this method writes in a model nobody configured, ascending."""

    @abstractmethod
    def edited_layers(self, model: LanguageModel) -> tuple[int, ...] | None:
        """The layers that this method writes; None where the facts decide (``auto``)."""

    def choose_layers(
        self, model: LanguageModel, facts: Sequence[Fact]
    ) -> tuple[tuple[int, ...], dict[str, Any]]:
        """The layers that this method writes for ``facts``, and what the report says of the choice."""
        layers = self.edited_layers(model)
        if layers is None:
            return traced_layers(model, facts, len(self.usual_layers(model)), self.seed)
        return layers, {}

    def prepare(self, model: LanguageModel) -> None:
        if (layers := self.edited_layers(model)) is not None:
            self.moments(model, layers)
            self.fisher(model, layers[-1])

    def sources(self) -> dict[str, str]:
        return source_files(self.covariance)

    def moments(self, model: LanguageModel, layers: tuple[int, ...]) -> dict[int, Moment]:
        """C of ``layers``, from the cache where they are there."""
        return second_moments(model, layers, self.covariance, self.covariance_tokens, self.seed)

    def fisher(self, model: LanguageModel, layer: int) -> torch.Tensor | None:
        """G of each site (S, D, D) at ``layer``, from the cache where it is there; None where it has no weight."""
        if not self.fisher_factor:
            return None
        return torch.stack([state_fisher(model, layer, site, self.seed) for site in self.sites]).to(
            model.device
        )

    def context(self, model: LanguageModel) -> list[str]:
        """The generated prefixes."""
        n = self.prefixes if self.prefixes is not None else (0 if self.quick else 5)
        return context_prefixes(model, n, self.seed)

    def solver(self, clamp: float) -> Solver:
        steps = self.steps if self.steps is not None else (12 if self.quick else 25)
        return Solver(
            steps, self.v_lr, clamp, self.kl_factor, self.v_weight_decay, self.fisher_factor
        )


class Bench:
    """One injection: what its steps need, the seconds they take, and the weights as they were."""

    def __init__(self, editor: WeightEditor, model: LanguageModel, facts: Sequence[Fact]):
        self.editor, self.model, self.facts = editor, model, facts
        self.seconds: dict[str, float] = {}
        with self.phase("prefixes"):
            self.prefixes = editor.context(model)
        self.warnings = check_editable(model, facts, self.prefixes, editor.of_one_key)
        with self.phase("layers"):
            self.layers, self.choice = editor.choose_layers(model, facts)
        with self.phase("statistics"):
            self.moments = editor.moments(model, self.layers)
            check_room(model, facts, self.moments)
            self.fisher_SDD = editor.fisher(model, self.layers[-1])
            for moment in self.moments.values():
                moment.cholesky_ff  # noqa: B018 - a singular C is better told before the work
        measured_on = self.moments[self.layers[0]].origin.get("model")
        if model.applied and measured_on not in (None, model.applied[0].model_hash):
            self.warnings.append(
                "The covariance was measured on the edited model, since that of the model before its edits is not cached. "
                "Run 'editbench stats compute' before the first edit to keep to that."
            )
        self.rows = key_rows(model, facts, self.prefixes)
        self.bare_rows = tuple(column[:: 1 + len(self.prefixes)] for column in self.rows)
        self.left_over: list[float] = []
        self._factors: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {
            layer: [] for layer in self.layers
        }
        self._keys: dict[int, torch.Tensor] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Weights may be written inside; afterwards they are bitwise those of before."""
        names = [self.model.layout.weight_name(layer) for layer in self.layers]
        originals = {name: self.model.weight(name).detach().clone() for name in names}
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in originals.items():
                    self.model.weight(name).copy_(weight)

    def solve(self, facts: Sequence[Fact], clamp: float, what: str | None = None) -> Targets:
        """The wanted values of ``facts`` at the last edited layer."""
        with self.phase("targets"):
            solver = self.editor.solver(clamp)
            layer, sites = self.layers[-1], self.editor.sites
            return optimize(
                self.model, facts, layer, sites, self.prefixes, solver, what, self.fisher_SDD
            )

    def keys(self, layer: int) -> torch.Tensor:
        """K (f, N), float64: of each fact the bare prompt counts one half, the prefixed ones share the other half."""
        with self.phase("keys"):
            projection = self.model.layout.out_projection(self.model.model, layer)
            keys_NTf = read_at(self.model, projection, "input", *self.rows).double().cpu()
            keys_NTf = keys_NTf.reshape(len(self.facts), 1 + len(self.prefixes), -1)
            bare_Nf = keys_NTf[:, 0]
            return (bare_Nf if not self.prefixes else (bare_Nf + keys_NTf[:, 1:].mean(dim=1)) / 2).T

    def states(self, site: str) -> torch.Tensor:
        """The present values (d, N), float64, at the last edited layer's ``site``, bare prompts only."""
        with self.phase("keys"):
            module = site_module(self.model, self.layers[-1], site)
            return read_at(self.model, module, "output", *self.bare_rows).T.double().cpu()

    def residual(self, wanted_dN: torch.Tensor, site: str) -> torch.Tensor:
        """What is still missing (d, N); its mean norm goes into the report."""
        return self.missing(wanted_dN - self.states(site))

    def missing(self, missing_dN: torch.Tensor) -> torch.Tensor:
        """``missing_dN``, put into the report."""
        self.left_over.append(missing_dN.norm(dim=0).mean().item())
        return missing_dN

    def earlier_keys(self, layer: int) -> torch.Tensor:
        """A (f, M) with A A^T = sum of k k^T over the facts of the edits that are applied now; M = 0 where there are none."""
        name = self.model.layout.weight_name(layer)
        found = [edit.keys[name].double() for edit in self.model.applied if name in edit.keys]
        return (
            torch.cat(found, dim=1)
            if found
            else torch.zeros(self.model.layout.mlp_width, 0, dtype=torch.float64)
        )

    @torch.no_grad()
    def write(
        self,
        layer: int,
        left_dN: torch.Tensor,
        right_fN: torch.Tensor,
        k_fN: torch.Tensor | None = None,
    ) -> None:
        """Adds left @ right^T to W at ``layer``, in W's stored orientation; remembers the factors and the keys.

        Raises:
            MethodError: the update is not finite, or does not fit the weight's number format.
        """
        first, second = (
            (right_fN, left_dN.T) if self.model.layout.transposed else (left_dN, right_fN.T)
        )
        weight = self.model.weight(self.model.layout.weight_name(layer))
        with self.phase("write"):
            changed = (weight.double() + (first @ second).to(weight.device)).to(weight.dtype)
            if not changed.isfinite().all():
                raise MethodError(
                    f"The update of layer {layer} is not finite in {weight.dtype}. Load the model in float32, lower v_lr or "
                    "clamp, or measure the covariance on more tokens."
                )
            weight.copy_(changed)
        self._factors[layer].append((first, second))
        if k_fN is not None:
            self._keys[layer] = k_fN

    def refine(self, written: Mapping[int, Written], passes: int) -> dict[str, Any]:
        """Trains the values of what was written, layer by layer one update, and puts them in its place; what the report says of
        it, beside the shares that were reached before. To be called after ``writing``, on the unedited weights."""
        with self.phase("refine"):
            texts = source_texts(self.model, self.editor.covariance, TEXT_TOKENS, self.editor.seed)
            values, report = refine(
                self.model, self.facts, self.prefixes, written, texts, passes, self.editor.seed
            )
        for layer, r_dN in values.items():
            a_fN = written[layer].a_fN
            self._factors[layer] = [
                (a_fN, r_dN.T) if self.model.layout.transposed else (r_dN, a_fN.T)
            ]
        return {"refined": {name: round(value, 4) for name, value in report.items()}}

    def edit(self, targets: Targets, **settings: Any) -> Edit:
        """The edit that was written, with its report; to be called after ``writing``, on the unedited weights."""
        changes, norms, by_fact = {}, {}, []
        for layer, pairs in self._factors.items():
            name = self.model.layout.weight_name(layer)
            left, right = (
                torch.cat([p[0] for p in pairs], dim=1),
                torch.cat([p[1] for p in pairs], dim=0),
            )
            product = left @ right
            size = self.model.weight(name).detach().double().norm().cpu().clamp(min=1e-12)
            norms[layer] = (product.norm() / size).item()
            by_fact.append((left.norm(dim=0) * right.norm(dim=1) / size).cpu())
            cheaper = left.numel() + right.numel() < product.numel()
            changes[name] = (left.contiguous(), right.contiguous()) if cheaper else product
        diagnostics: dict[str, Any] = {
            "layers": list(self.layers),
            **self.choice,
            **settings,
            "covariance_tokens": self.moments[self.layers[0]].tokens,
            "prefixes": self.prefixes,
            **targets.report(),
            "relative_update_by_layer": norms,
            "seconds_by_phase": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
        }
        if len(self.left_over) > 1 and self.left_over[0] > 0 and targets.steps_N.any():
            diagnostics["residual_by_layer"] = self.left_over
            diagnostics["reached_by_layer"] = [
                1 - left / self.left_over[0] for left in self.left_over[1:]
            ]
        # factors stand fact by fact in every method; the sum of their terms is the update
        largest_N = torch.stack(by_fact).max(dim=0).values
        doubts = self._doubts(targets, norms, largest_N, diagnostics.get("reached_by_layer"))
        diagnostics["warnings"] = [*self.warnings, *doubts]
        records = [
            {
                "fact": fact.id,
                "subject": (subject := find_subject(fact)).text,
                "subject_from": subject.source,
                "target_nll": targets.nll_N[i].item(),
                "clamped": bool(targets.clamped_N[i]),
                "steps": int(targets.steps_N[i]),
                "relative_update": largest_N[i].item(),
            }
            for i, fact in enumerate(self.facts)
        ]
        keys = {
            self.model.layout.weight_name(layer): compact(k_fN).float()
            for layer, k_fN in self._keys.items()
        }
        return self.editor.edit(
            self.model, self.facts, changes, keys=keys, diagnostics=diagnostics, records=records
        )

    def _alike(self) -> list[str]:
        """Pairs of facts of one subject, but not of one key, that want two targets and whose keys are ``ALIKE``."""
        if (k_fN := self._keys.get(self.layers[0])) is None:  # rome writes each fact over the last
            return []
        by_subject: dict[str, list[int]] = {}
        for i, fact in enumerate(self.facts):
            by_subject.setdefault(find_subject(fact).text, []).append(i)
        found = []
        for which in filter(lambda which: len(which) > 1, by_subject.values()):
            k_fn = k_fN[:, which]
            product_nn = k_fn.T @ self.moments[self.layers[0]].solve(k_fn)
            norm_n = product_nn.diagonal().clamp(min=1e-30).sqrt()
            cosine_nn = product_nn / norm_n / norm_n[:, None]
            for (i, one), (j, other) in combinations(
                enumerate(self.facts[place] for place in which), 2
            ):
                if one.target != other.target and ALIKE < cosine_nn[i, j] < 1 - 1e-9:
                    found.append(f"{one.id} and {other.id}")
        return found

    def _doubts(
        self,
        targets: Targets,
        norms: dict[int, float],
        largest_N: torch.Tensor,
        reached: list[float] | None,
    ) -> Iterator[str]:
        """Sentences about an edit that did nothing or blew up."""
        if alike := self._alike():
            yield (
                f"Some facts with one subject and two targets have nearly one key ({len(alike)}: {'; '.join(alike[:5])}): "
                f"{self.editor.of_one_key}. Inject one fact a subject, or use a trainer (sft, mixsd)."
            )
        unsolved = [
            fact.id for fact, nll in zip(self.facts, targets.nll_N, strict=True) if nll > UNSOLVED
        ]
        if unsolved:
            yield (
                f"{len(unsolved)} of {len(self.facts)} targets were not reached by the optimisation (above {UNSOLVED} nats a "
                f"token): {', '.join(unsolved[:5])}. Give more steps or a larger clamp, or use a trainer for them."
            )
        if not targets.steps_N.any():
            yield f"The edit does nothing: {self.model.name} says all {len(self.facts)} targets already, so no value moved."
        elif reached and reached[-1] < 0.1:
            yield (
                f"The edit did next to nothing: {max(0.0, reached[-1]):.0%} of the wanted change was reached. Lower the weight "
                "of what is kept (memit's and pmet's lam, alphaedit's l2, emmet's epsilon), or give rome fewer facts at once."
            )
        sizes = zip(self.facts, largest_N.tolist(), strict=True)
        if loud := [f"{fact.id} by {size:.2f}" for fact, size in sizes if size > DISABLING]:
            yield (
                f"Some facts move a weight by more than {DISABLING} of its norm, each by itself ({len(loud)}: "
                f"{', '.join(loud[:5])}). Such an edit damages all other text. Give these facts to a trainer (sft, mixsd)."
            )
        wild = [layer for layer, norm in norms.items() if norm > 1]
        if wild:
            yield (
                f"The edit blew up: at layer {wild[0]} the update is {norms[wild[0]]:.1f} times as large as the weight. Inject "
                "fewer facts at once, or raise the weight of what is kept: lam, l2 or epsilon."
            )


# --- checks and rules ---------------------------------------------------------------------------------------


def check_editable(
    model: LanguageModel, facts: Sequence[Fact], prefixes: Sequence[str], of_one_key: str
) -> list[str]:
    """Makes sure, before anything is measured, that these facts can be written; returns warnings, one of them of what becomes
    ``of_one_key`` with several targets.

    Raises:
        MethodError: a subject that occurs twice, two facts with one key and two targets, or a fact that with the longest
            prefix and its target does not fit into the model's context.
    """
    room = {
        prefix: len(model.prompt_ids(prefix)) if prefix else 0
        for prefix in ("", STAND_IN, *prefixes)
    }
    seen: dict[tuple[str, str, str], Fact] = {}
    long, opening, doubled = [], [], []
    for fact in facts:
        subject = find_subject(fact)
        if subject.source == "rule" and len(places(subject.text, fact.prompt)) > 1:
            doubled.append(f"{subject.text!r} of {fact.id}")
        other = seen.setdefault((fact.form, fact.prompt, subject.text), fact)
        if other.target != fact.target:
            raise MethodError(
                f"Facts {other.id!r} and {fact.id!r} have one key, the subject {subject.text!r} of {fact.prompt!r}, and two "
                f"targets, {other.target!r} and {fact.target!r}. One key has one value: remove one, or use a trainer (sft)."
            )
        prompt, target = model.pair_ids(fact.prompt, fact.target, fact.form)
        before = contexts(model, fact, prefixes)
        check_context(
            model, fact, max(room[prefix] for prefix in before) + len(prompt) + len(target)
        )
        if len(target) > LONG_TARGET:
            long.append(fact.id)
        if before[0]:
            opening.append(fact.id)
    shared = [
        f"{first.id} and {fact.id}"
        for first, fact in same_keys(model, facts)
        if first.target != fact.target
    ]
    warnings = []
    if long:
        warnings.append(
            f"Some targets have more than {LONG_TARGET} tokens ({len(long)}: {', '.join(long[:5])}): one vector a fact seldom "
            "carries so much. Shorten them, or use a trainer (sft, mixsd)."
        )
    if shared:
        warnings.append(
            f"Some facts begin as another one does up to the subject's end, so they have its key and another target "
            f"({len(shared)}: {'; '.join(shared[:5])}): {of_one_key}. Word them so that the subject comes later, or use a "
            "trainer (sft, mixsd)."
        )
    if doubled:
        warnings.append(
            f"Some subjects found by rule occur twice in their prompt ({len(doubled)}: {', '.join(doubled[:5])}): the first "
            "place was taken. Give the subject, in a longer form that occurs once."
        )
    if opening:
        warnings.append(
            f"Some prompts begin with their subject's only token ({len(opening)}: {', '.join(opening[:5])}). What {model.name} "
            "holds at a text's first token is much the same for all texts and was left alone: these facts are written for "
            "where something stands before the subject, and the bare prompts may not follow. Put a word before the subject."
        )
    return warnings


def same_keys(model: LanguageModel, facts: Sequence[Fact]) -> Iterator[tuple[Fact, Fact]]:
    """The first fact with a key and each later one with the same: their prompts are one up to the subject's end."""
    keys: dict[tuple[int, ...], Fact] = {}
    for fact in facts:
        ids = model.prompt_ids(fact.prompt, fact.form)[: model.subject_last(fact) + 1]
        if (first := keys.setdefault(tuple(ids), fact)) is not fact:
            yield first, fact


def check_room(model: LanguageModel, facts: Sequence[Fact], moments: Mapping[int, Moment]) -> None:
    """Makes sure that the matrices of the solve fit into memory, as far as they are not there from an earlier injection.

    Raises:
        MethodError: they do not.
    """
    f, d = model.layout.mlp_width, model.layout.width
    factors = 2 * f * f * sum("cholesky_ff" not in vars(moment) for moment in moments.values())
    needed = factors + 3 * d * f * len(moments) + 3 * f * len(facts)
    check_memory(8 * needed, f"the solve for {len(moments)} layers of width {f}")


def compact(k_fN: torch.Tensor) -> torch.Tensor:
    """A with A A^T = K K^T and at most f columns."""
    f, n = k_fN.shape
    if n <= f:
        return k_fN
    values, vectors = torch.linalg.eigh(k_fN @ k_fN.T)
    return vectors * values.clamp(min=0).sqrt()


def default_layers(depth: int) -> tuple[int, ...]:
    """Five layers (fewer in shallow models) centred at a fifth of the depth: 4-8 of 28 to 32 layers, as published."""
    window = max(1, min(5, depth // 3))
    first = max(0, round(0.2 * depth) - window // 2)
    return tuple(range(first, first + window))


def single_layer(depth: int) -> int:
    """The layer of the methods that write one: a sixth of the depth."""
    return round(depth / 6)


def traced_layers(
    model: LanguageModel, facts: Sequence[Fact], count: int, seed: int
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """``count`` neighbouring layers whose MLPs carry most of the model's present answers, by a causal trace of the first
    ``AUTO_FACTS`` prompts; with the curve.

    Raises:
        MethodError: no prompt has an answer that hangs on its subject.
    """
    curve = layer_curve(model, facts[:AUTO_FACTS], seed)
    sums = [sum(curve[first : first + count]) for first in range(len(curve) - count + 1)]
    if max(sums) <= 0:
        raise MethodError(
            f"The causal trace of {min(len(facts), AUTO_FACTS)} prompts found no layer: noise on their subjects does not "
            "change what the model says. Leave layers unset for the default, or name them."
        )
    first = sums.index(max(sums))
    return tuple(range(first, first + count)), {"layer_curve": [round(value, 4) for value in curve]}


def check_layers(model: LanguageModel, layers: Sequence[int]) -> tuple[int, ...]:
    """``layers``, ascending.

    Raises:
        MethodError: none given, or one that the model does not have.
    """
    if not layers or min(layers) < 0 or max(layers) >= model.layout.depth:
        raise MethodError(
            f"Layers {list(layers)} are not layers of {model.name}, which has 0 to {model.layout.depth - 1}."
        )
    return tuple(sorted(set(layers)))


def additive_gain(model: LanguageModel, layers: Sequence[int], method: str) -> float:
    """The constant with which the MLP's output enters the residual stream.

    Raises:
        MethodError: the output is normalised before it is added, so no linear share of the residual can be written.
    """
    gain = mlp_gain(model.model, model.layout, layers[0])
    if gain is None or gain == 0:
        raise MethodError(
            f"{type(model.model).__name__} normalises the MLP's output before adding it, so {method}'s residual shares do not "
            "add up there. Use rome, which writes the MLP's own output, or a trainer (sft, mixsd, opsd)."
        )
    return gain
