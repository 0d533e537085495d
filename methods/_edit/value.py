"""Target optimisation: the value at the subject's last token that makes the model say the target.

For each fact a delta in R^d is added to a hidden state at the subject's last token of every prompt
of that fact, bare and prefixed, and minimised over

    L(delta) = mean_j nll_j(target)  +  kl_factor KL(p_delta || p_0)["{subject} is a"]
               +  wd ||delta|| / ||v_0||^2  +  fisher_factor 1/2 delta^T G delta

with Adam, projected to ||delta|| <= clamp ||v_0|| after each step (ROME eq. 4; MEMIT eq. 16;
reference code kmeng01/memit at 80426fd, ``compute_z.py``). Site ``mlp`` is the output of layer l's
MLP (ROME's v), ``residual`` the output of layer l (MEMIT's h), ``attention`` the output of layer
l's attention (PMET, together with ``mlp``).

Differences from the reference:
- The last term is ours: what delta costs the model's own text, in nats, where it leaks
  (``fisher.py``). 0 is as published.
- Facts are optimised side by side, each with its own delta and its own stopping. How many is a
  matter of the model and the facts (``side_by_side``); the report says it.
- No state of a text's first token is read or solved for (``PreparedFact.has_stand_in``).
- The tokens before the subject's last one and the layers below are computed once and cached
  (``rows.py``). Logits are computed only at the positions that the loss reads
  (``head.py``). The KL prompts end at the subject.
- A fact stops when its nll alone is below ``stop_below``: kl_factor KL alone often exceeds the
  published limit. ``stop=loss`` stops at the sum, as published.
- Adam's rate follows the clamp: one step moves a tenth of the largest delta,
  lr = clamp ||v_0|| / (10 sqrt(d)). With SmolLM2's norms that is 0.4 to 0.5; 0.5 is published.
  With smaller states the published rate would reach the clamp at once.

    # N facts, R rows (prompts), S sites, D model width, V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from editbench import progress
from editbench.batching import in_batches
from editbench.errors import MethodError
from editbench.layout import Layout
from editbench.memory import free_bytes
from editbench.methods._common.hooks import read_at, site_module
from editbench.methods._edit import head
from editbench.methods._edit.passes import Passes
from editbench.methods._edit.prepare import PREFIX_TOKENS, PreparedFact
from editbench.models import LanguageModel
from editbench.text import pad_left

FACTS = "facts to solve"
FACTS_AT_ONCE = 32
"""Most facts that are optimised side by side, unless ``--batch-size`` says how many."""
SIDE_BY_SIDE = 16 * 2**30
"""Bytes that they may need by ``fact_bytes``. It is fixed, since an edit differs by rounding with
the facts that are solved beside each other: it must not depend on what else runs on the machine."""


@dataclass(frozen=True)
class Solver:
    """Settings of the optimisation, with the meanings above."""

    steps: int
    """Forward passes, one more than there are updates."""
    lr: float | None
    """Adam's rate. None: derived for each fact as above, and twice that for 12 steps or fewer."""
    clamp: float
    kl_factor: float
    weight_decay: float
    fisher_factor: float = 0.0
    stop: Literal["nll", "loss"] = "nll"
    """What must fall below ``stop_below``: the nll alone, or L."""
    stop_below: float = 0.05
    """Nats per token below which a fact stops."""

    def rates(self, norm_N: torch.Tensor, width: int) -> torch.Tensor:
        """Return Adam's rate for each fact, from ||v_0||."""
        if self.lr is not None:
            return torch.full_like(norm_N, self.lr)
        # Adam moves every coordinate by about its rate, so a step is about lr sqrt(d) long.
        return self.clamp * norm_N / float(width**0.5) * (0.1 if self.steps > 12 else 0.2)


@dataclass(frozen=True)
class Targets:
    """v_0 and v* = v_0 + delta of N facts at the first site, with how the solver ended."""

    start_ND: torch.Tensor
    """v_0, float32."""
    value_ND: torch.Tensor
    """v*, float32."""
    nll_N: torch.Tensor
    """Nats per token of the target, in the last forward pass."""
    clamped_N: torch.Tensor
    """Whether the last step was cut to the clamp."""
    steps_N: torch.Tensor
    """Updates that were made."""
    beside_N: torch.Tensor
    """How many facts were solved together, this one among them."""

    def report(self) -> dict[str, float]:
        """Return the means and extremes for the edit's report."""
        return {
            "target_nll_mean": self.nll_N.mean().item(),
            "target_nll_max": self.nll_N.max().item(),
            "clamped_share": self.clamped_N.float().mean().item(),
            "mean_steps": self.steps_N.float().mean().item(),
            "facts_at_once": int(self.beside_N.max()),
        }

    def row(self, i: int) -> Targets:
        """Return the targets of fact ``i`` alone."""
        return Targets(*(column[i : i + 1] for column in self.columns()))

    def columns(self) -> tuple[torch.Tensor, ...]:
        """Return the fields in order."""
        return (
            self.start_ND,
            self.value_ND,
            self.nll_N,
            self.clamped_N,
            self.steps_N,
            self.beside_N,
        )

    @classmethod
    def join(cls, parts: Sequence[Targets]) -> Targets:
        """Return the targets of several groups of facts as one."""
        return cls(*map(torch.cat, zip(*(part.columns() for part in parts), strict=True)))


def optimize(
    model: LanguageModel,
    prepared: Sequence[PreparedFact],
    layer: int,
    sites: tuple[str, ...],
    solver: Solver,
    title: str | None = None,
    fisher_SDD: torch.Tensor | None = None,
    passes: Passes | None = None,
) -> Targets:
    """Return the target value of each fact at ``layer`` and the first of ``sites``.

    Deltas at further sites are optimised along with it and then dropped. ``title`` names a progress
    bar. ``fisher_SDD`` is G of each site; without it the loss lacks that term. ``passes`` are those
    of earlier calls for ``model``, if there were any. Weights, hooks and gradients of ``model``
    stay unchanged.

    Raises:
        MethodError: A state is zero or not finite.
        ModelError: The memory does not suffice for one fact.
    """
    used = passes or Passes(model)
    # Facts of like length go together, so that little of a batch is padding.
    length = [_length(each) for each in prepared]
    waiting = sorted(range(len(prepared)), key=lambda i: (length[i], len(prepared[i].fact.prompt)))
    solved: list[Targets | None] = [None] * len(prepared)

    def take(waiting: list[int], most: int) -> list[int]:
        # The last one waiting is the longest, so no batch is larger than its facts allow.
        return waiting[: _facts_at_once(model, prepared[waiting[-1]], layer, most, len(waiting))]

    def solve(chunk: list[int]) -> Targets:
        batch = _Batch(model, [prepared[i] for i in chunk], layer, sites, used)
        with model.compute(weights_fixed=True):
            return batch.solve(solver, bar, fisher_SDD)

    def describe(i: int) -> str:
        return f"solve for even one fact ({prepared[i].fact.id!r})"

    with (
        progress.task(title, len(prepared), "facts") if title else nullcontext() as bar,
        used.products(),
    ):
        batches = in_batches(
            model.batches, FACTS, waiting, FACTS_AT_ONCE, solve, model.device, describe, take
        )
        for chunk, targets in batches:
            for row, i in enumerate(chunk):
                # Batches are sorted by length; results keep the order of the facts.
                solved[i] = targets.row(row)
    targets = Targets.join([each for each in solved if each is not None])
    _check_finite(model, prepared, layer, targets)
    return targets


def _check_finite(
    model: LanguageModel, prepared: Sequence[PreparedFact], layer: int, targets: Targets
) -> None:
    """Make sure that the solver had states to start from and ended at finite ones.

    Raises:
        MethodError: A state is zero, or not finite.
    """
    still = (targets.start_ND == 0).all(-1).nonzero()[:, 0].tolist()
    if still:
        raise MethodError(
            f"The state that the target of fact {prepared[still[0]].fact.id!r} starts from is zero "
            f"at layer {layer} of {model.name} ({len(still)} facts in all), and how far it may go "
            "is a multiple of its norm. Edit another layer."
        )
    bad = (~targets.value_ND.isfinite().all(-1)).nonzero()[:, 0].tolist()
    if bad:
        raise MethodError(
            f"The states of {model.name} overflow in {next(model.model.parameters()).dtype} for "
            f"fact {prepared[bad[0]].fact.id!r} ({len(bad)} facts in all). Load the model in "
            "float32 or bfloat16."
        )


def _length(each: PreparedFact) -> int:
    """Return the tokens that the solver computes for one prompt, from the edited one on."""
    return each.bare.length - each.bare.place


def _facts_at_once(
    model: LanguageModel, longest: PreparedFact, layer: int, most: int, n: int
) -> int:
    """Return how many of ``n`` facts no longer than ``longest`` are solved together.

    Where the memory is too small for what the facts and the model say, it tells the user.
    """
    layout = model.layout
    tokens, cached = _length(longest), len(longest.bare.ids) + PREFIX_TOKENS
    if not model.keeps_tokens:  # whole texts go through the model, and nothing is cached
        tokens, cached = longest.bare.length + PREFIX_TOKENS, 0
    vocabulary = model.model.config.get_text_config().vocab_size
    # Layers below ``layer`` are not part of the graph.
    rows, depth = len(longest.prompts), layout.depth - layer
    needed = fact_bytes(rows, depth, tokens, cached, layout, vocabulary)
    wanted = min(n, most if model.batches.given else side_by_side(needed, most))
    fits = within(wanted, needed, free_bytes(model.device))
    if fits < wanted:
        model.batches.note(
            f"The memory that is free now has no room for {wanted} facts side by side, so {fits} "
            "were solved together. The edit differs from the usual one by rounding; "
            f"--batch-size {fits} gives this one wherever it runs."
        )
    return fits


def side_by_side(needed: int, most: int = FACTS_AT_ONCE) -> int:
    """Return how many facts are solved together where each needs ``needed`` bytes, at least 1."""
    return min(most, max(1, SIDE_BY_SIDE // needed))


def within(facts: int, needed: int, free: int) -> int:
    """Return ``facts``, halved until so many fit into ``free`` bytes, at least 1."""
    while facts > 1 and facts * needed > free:
        facts //= 2
    return facts


def fact_bytes(
    rows: int, depth: int, tokens: int, cached: int, layout: Layout, vocabulary: int
) -> int:
    """Return the bytes that one fact needs while it is solved.

    It counts the float32 numbers that autograd keeps, generously: ``rows`` texts of the fact, in
    ``depth`` layers, of which ``tokens`` are computed again and ``cached`` are not.
    """
    # The last term is the keys and values of the prompt and of what follows the cut.
    a_layer = (
        tokens * (16 * layout.width + 6 * layout.mlp_width) + 2 * (tokens + cached) * layout.width
    )
    return 4 * (rows * depth * a_layer + vocabulary)  # 4 bytes a number


class _Batch:
    """The prompts of a group of facts, cut at the subject's last token.

    Everything below the layer and before the cut is computed once and cached.
    """

    def __init__(
        self,
        model: LanguageModel,
        prepared: Sequence[PreparedFact],
        layer: int,
        sites: tuple[str, ...],
        passes: Passes | None = None,
    ):
        self.model, self.layer, self.sites = model, layer, sites
        passes = passes or Passes(model)
        model.check_head()  # it runs a forward pass, which must not meet the hooks of later ones
        prompts = [prompt for each in prepared for prompt in each.prompts]
        # The target's last token predicts nothing that the loss reads.
        rows = [prompt.ids + prompt.target_ids[:-1] for prompt in prompts]
        positions = [prompt.place for prompt in prompts]
        self.n, self.templates = len(prepared), len(prepared[0].prompts)
        self._label(rows, positions, [prompt.target_ids for prompt in prompts])
        # Behind the rewrite prompts stands one KL prompt per fact, read at its last token.
        kl_rows = [each.kl_ids for each in prepared]
        kl_ends = [len(each.kl_ids) - 1 for each in prepared]
        every, cuts = [*rows, *kl_rows], [*positions, *kl_ends]
        self.rows = passes.rows(every, cuts, self.resume)
        bare = slice(None, None, self.templates)
        self.start_NSD = torch.stack(
            [
                read_at(
                    model, site_module(model, layer, site), "output", rows[bare], positions[bare]
                ).float()
                for site in sites
            ],
            dim=1,
        ).to(model.device)
        self.reference_NV = self._reference()
        if passes.continues is None:
            passes.continues = self._agrees(prepared[0].kl_ids)
            if not passes.continues:
                self.rows = passes.rows(every, cuts, self.resume)
                self.reference_NV = self._reference()

    def _agrees(self, ids: list[int]) -> bool:
        """Return whether the first KL prompt, cut at its last token, gives what it gives whole.

        Otherwise this model does not continue a text as it reads one, and its texts stay whole.
        """
        with torch.no_grad(), self.model.compute():
            states_1TD = self.model.hidden(*pad_left([ids], self.model.device))
            whole_V = self.model.logits(states_1TD[0, -1]).log_softmax(-1)
        apart = (self.reference_NV[0] - whole_V).square().mean().sqrt() / whole_V.std()
        # Rounding is below 1e-4 in float32, and a few hundredths in 16 bits.
        exact = self.model.precision == "float32" and self.model.model.dtype.itemsize >= 4
        return not apart.item() > (0.02 if exact else 0.25)  # NaN has an error of its own

    @property
    def resume(self) -> int:
        """Highest layer that need not run again.

        A site inside a layer needs that layer; the residual stream needs only the layers above.
        """
        return self.layer if self.sites == ("residual",) else self.layer - 1

    def _label(self, rows: list[list[int]], positions: list[int], labels: list[list[int]]) -> None:
        """Note each label token's row, its place among the S tokens after the cut, and its id."""
        where = []
        for r, (row, position, target) in enumerate(zip(rows, positions, labels, strict=True)):
            # A label is read at the token before it: the first one at the prompt's last token.
            first = len(row) - position - len(target)
            where += [(r, first + t, token) for t, token in enumerate(target)]
        device = self.model.device
        self.label_row, self.label_place, self.label_id = (
            torch.tensor(column, device=device) for column in zip(*where, strict=True)
        )
        self.length_R = torch.tensor([len(target) for target in labels], device=device)

    def solve(
        self, solver: Solver, bar: progress.Bar | None, fisher_SDD: torch.Tensor | None
    ) -> Targets:
        """Return the targets. Adam is written out here, since each fact stops on its own."""
        adam = _Adam(self.start_NSD, solver)
        delta_NSD, norm_NS = adam.delta_NSD, adam.norm_NS
        active_N = torch.ones(self.n, dtype=torch.bool, device=delta_NSD.device)
        nll_N = torch.full((self.n,), float("inf"), device=delta_NSD.device)
        for step in range(solver.steps):
            who = active_N.nonzero()[:, 0]
            # Facts that have stopped leave the batch, and each pass gets cheaper.
            delta = delta_NSD[who].requires_grad_(True)
            last = step == solver.steps - 1
            # The last pass only reads the nll that the last update came to.
            with torch.set_grad_enabled(not last):
                nll, kl = self.loss_terms(who, delta)
                decay = solver.weight_decay * (delta.norm(dim=-1) / norm_NS[who] ** 2).sum(-1)
                loss_N = nll + solver.kl_factor * kl + decay
                if fisher_SDD is not None:
                    loss_N = loss_N + solver.fisher_factor / 2 * torch.einsum(
                        "nsd,sde,nse->n", delta, fisher_SDD, delta
                    )
                # A sum, not a mean: each fact's gradient is that of its own loss.
                loss = loss_N.sum()
            nll_N[who] = nll.detach()
            done = (nll if solver.stop == "nll" else loss_N).detach() < solver.stop_below
            if bar:
                # A fact that ends early advances the bar by all the steps that it saves.
                ended = len(who) if last else int(done.sum())
                bar.advance(ended * (1 - step / solver.steps) + (len(who) - ended) / solver.steps)
            if last or done.all():
                break
            # d||delta|| / d delta is undefined at 0, where torch gives 0
            (gradient,) = torch.autograd.grad(loss, delta)
            active_N[who[done]] = False
            adam.step(step, who[~done], gradient[~done].float())
        start_ND = self.start_NSD[:, 0]
        return Targets(
            start_ND.cpu(),
            (start_ND + delta_NSD[:, 0]).cpu(),
            nll_N.cpu(),
            adam.clamped_N.cpu(),
            adam.steps_N.cpu(),
            torch.full((self.n,), self.n),
        )

    def _reference(self) -> torch.Tensor:
        """Return log p_0 (N, V) at the KL prompts."""
        # The KL prompts stand behind all rewrite prompts.
        which_N = self.n * self.templates + torch.arange(self.n, device=self.model.device)
        nothing_NSD = torch.zeros_like(self.start_NSD)
        with torch.no_grad(), self.model.compute():
            states_ND = self.rows.run(
                which_N, self.layer, self.sites, nothing_NSD, self.rows.first(which_N)
            )
            return self.model.logits(states_ND).log_softmax(-1)

    def loss_terms(
        self, who: torch.Tensor, delta_NSD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return, for each fact in ``who``, the mean target nll over its prompts and its KL."""
        n, t = len(who), self.templates
        # ROME eq. 4: the nll is read at the rewrite prompts, the KL at the fact's own KL prompt.
        rewrites = (who[:, None] * t + torch.arange(t, device=who.device)).reshape(-1)
        delta_RSD = torch.cat([delta_NSD.repeat_interleave(t, dim=0), delta_NSD])
        which_R = torch.cat([rewrites, self.n * t + who])
        first_R = self.rows.first(which_R)
        # From a rewrite prompt's index in the batch to its place in this pass; -1: not in it.
        place = torch.full((len(self.length_R),), -1, device=who.device)
        place[rewrites] = torch.arange(n * t, device=who.device)
        kept = place[self.label_row] >= 0
        row = place[self.label_row[kept]]
        read_K = torch.cat([first_R[row] + self.label_place[kept], first_R[n * t :]])
        states_KD = self.rows.run(which_R, self.layer, self.sites, delta_RSD, read_K)
        token_nll, kl = head.nll_and_divergence(
            self.model, states_KD, self.label_id[kept], self.reference_NV[who]
        )
        # the mean over the tokens of a prompt, then over the prompts of a fact
        share = 1.0 / (self.length_R[rewrites][row] * t)
        return torch.zeros(n, device=who.device).index_add(0, row // t, token_nll * share), kl


class _Adam:
    """Adam over the deltas of N facts, each projected to its own ball after every step."""

    def __init__(self, start_NSD: torch.Tensor, solver: Solver):
        self.norm_NS = start_NSD.norm(dim=-1)
        self.rate_NS = solver.rates(self.norm_NS, start_NSD.shape[-1])
        self.limit_NS = solver.clamp * self.norm_NS
        self.delta_NSD = torch.zeros_like(start_NSD)
        self.first_NSD, self.second_NSD = torch.zeros_like(start_NSD), torch.zeros_like(start_NSD)
        n, device = len(start_NSD), start_NSD.device
        self.clamped_N = torch.zeros(n, dtype=torch.bool, device=device)
        self.steps_N = torch.zeros(n, dtype=torch.long, device=device)

    def step(self, step: int, who: torch.Tensor, gradient: torch.Tensor) -> None:
        """Move the deltas of the facts ``who`` against their gradient. ``step`` counts from 0."""
        # Adam's usual constants. All facts that are still active have made ``step`` updates, so one
        # bias correction serves them.
        first_NSD, second_NSD = self.first_NSD, self.second_NSD
        first_NSD[who] = 0.9 * first_NSD[who] + 0.1 * gradient
        second_NSD[who] = 0.999 * second_NSD[who] + 0.001 * gradient**2
        ratio = (
            first_NSD[who]
            / (1 - 0.9 ** (step + 1))
            / ((second_NSD[who] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
        )
        moved = self.delta_NSD[who] - self.rate_NS[who][..., None] * ratio
        limit, size = self.limit_NS[who], moved.norm(dim=-1)
        # The report has the first site, the one whose value is written.
        self.clamped_N[who] = (size > limit)[:, 0]
        # A delta of zero gives infinity here, which the clamp makes 1.
        self.delta_NSD[who] = moved * (limit / size).clamp(max=1.0)[..., None]
        self.steps_N[who] += 1
