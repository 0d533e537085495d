"""Target optimisation of ROME and MEMIT: the value at the subject's last token that makes the model say the target.

For each fact a delta in R^d is added to a hidden state at the subject's last token of every prompt of that fact (bare
and prefixed) and minimised over

    L(delta) = mean_j nll_j(target)  +  kl_factor KL(p_delta || p_0)["{subject} is a"]  +  wd ||delta|| / ||v_0||^2

with Adam, projected to ||delta|| <= clamp ||v_0|| after each step (ROME eq. 4; MEMIT eq. 16; reference code
kmeng01/memit at 80426fd, ``compute_z.py``). Site ``mlp``: the output of layer l's MLP (ROME's v). Site ``residual``: the
output of layer l (MEMIT's h).

Differs from the reference: facts are optimised side by side, each with its own delta and its own stopping; what lies
before the subject's last token is computed once and cached, what lies below the layer too; logits only at the positions
that the loss reads; a fact stops when its nll alone (not the sum) is below ``stop_nll``.

    # N facts, R rows (prompts), P cached tokens, S tokens from the subject's last on, D model width, V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from editbench import progress, text
from editbench.layout import hidden_of
from editbench.methods._hooks import added, read_at, resumed_above
from editbench.models import LanguageModel, batched
from editbench.text import pad_left
from editbench.types import Fact

SEED_WORDS = ("The", "Therefore", "Because", "I", "You")
PREFIX_TOKENS = 10


@dataclass(frozen=True)
class Solver:
    """Hyper-parameters of the optimisation; meanings as above."""

    steps: int
    lr: float
    clamp: float
    kl_factor: float
    weight_decay: float
    stop_nll: float = 0.05
    facts_at_once: int = 16


@dataclass(frozen=True)
class Targets:
    """v_0, and v* = v_0 + delta, of N facts: (N, D), float32; with the solver's trace."""

    start_ND: torch.Tensor
    value_ND: torch.Tensor
    nll_N: torch.Tensor
    clamped_N: torch.Tensor
    steps_N: torch.Tensor

    def report(self) -> dict[str, float]:
        return {
            "target_nll_mean": self.nll_N.mean().item(),
            "target_nll_max": self.nll_N.max().item(),
            "clamped_share": self.clamped_N.float().mean().item(),
            "mean_steps": self.steps_N.float().mean().item(),
        }


def context_prefixes(model: LanguageModel, n: int, seed: int) -> list[str]:
    """``n`` short beginnings of text written by the model (top-k 5), each ended by ". "; the same for the same seed."""
    if n == 0:
        return []
    starts = [SEED_WORDS[i % len(SEED_WORDS)] for i in range(n)]
    prompts = [model.prompt_ids(word) for word in starts]
    texts = model.generate_ids(prompts, PREFIX_TOKENS - 1, generator=torch.Generator().manual_seed(seed), top_k=5, stop=False)
    written = [" ".join((word + model.decode(ids)).split()) for word, ids in zip(starts, texts, strict=True)]
    return [words.rstrip(".") + ". " for words in written]


def key_rows(model: LanguageModel, facts: Sequence[Fact], prefixes: Sequence[str]) -> tuple[list[list[int]], list[int]]:
    """Prompt ids and subject positions, fact by fact: for each the bare prompt, then one row a prefix."""
    rows, positions = [], []
    for fact in facts:
        for prefix in ("", *prefixes):
            rows.append(text.ids(model.tokenizer, model.render(fact.prompt, fact.form, prefix=prefix)))
            positions.append(model.subject_last(fact, prefix))
    return rows, positions


def optimize(
    model: LanguageModel,
    facts: Sequence[Fact],
    layer: int,
    site: str,
    prefixes: Sequence[str],
    solver: Solver,
    what: str | None = None,
) -> Targets:
    """The target value of each fact at ``layer``; weights, hooks and gradients of ``model`` are left as found."""
    order = sorted(range(len(facts)), key=lambda i: len(facts[i].prompt))
    solved: list[tuple[torch.Tensor, ...]] = [()] * len(facts)
    with progress.task(what, len(facts), "facts") if what else nullcontext() as bar:
        for chunk in batched(order, solver.facts_at_once):
            batch = _Batch(model, [facts[i] for i in chunk], layer, site, prefixes)
            with model.compute(weights_fixed=True):
                parts = batch.solve(solver, bar)
            for row, i in enumerate(chunk):
                solved[i] = tuple(part[row] for part in parts)
    return Targets(*(torch.stack(column) for column in zip(*solved, strict=True)))


class _Batch:
    """The prompts of a group of facts, cut at the subject's last token, with everything below and before cached."""

    def __init__(self, model: LanguageModel, facts: Sequence[Fact], layer: int, site: str, prefixes: Sequence[str]):
        self.model, self.layer, self.site = model, layer, site
        model.check_head()  # by a forward pass that must not meet the hooks of the later ones
        rows, positions, owner, labels = [], [], [], []
        for n, fact in enumerate(facts):
            for prefix in ("", *prefixes):
                prompt, target = model.pair_ids(fact.prompt, fact.target, fact.form, prefix=prefix)
                rows.append(prompt + target[:-1])
                positions.append(model.subject_last(fact, prefix))
                owner.append(n)
                labels.append(target)
            essence = Fact(fact.id, f"{fact.subject} is a", "x", fact.subject)
            prompt = model.prompt_ids(essence.prompt)
            position = model.subject_last(essence)
            rows.append(prompt[: position + 1])  # the KL is read at the subject's last token
            positions.append(position)
            owner.append(n)
            labels.append([])
        self.n, self.templates = len(facts), 1 + len(prefixes)
        self.owner_R = torch.tensor(owner, device=model.device)
        self._cut(rows, positions)
        self._label(rows, positions, labels)
        bare = [n * (self.templates + 1) for n in range(self.n)]
        module = model.layout.mlp_module(model.model, layer) if site == "mlp" else model.layout.layer(model.model, layer)
        self.start_ND = read_at(model, module, "output", [rows[r] for r in bare], [positions[r] for r in bare]).float()

    @torch.no_grad()
    def _cut(self, rows: list[list[int]], positions: list[int]) -> None:
        """Keys and values of the tokens before the subject's last one, and the hidden states below the layer after it."""
        model, device = self.model, self.model.device
        before = [row[:position] for row, position in zip(rows, positions, strict=True)]
        after = [row[position:] for row, position in zip(rows, positions, strict=True)]
        width = max(map(len, after))
        self.ids_RS = torch.tensor([row + [0] * (width - len(row)) for row in after], device=device)
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] | None = None
        self.mask_RT = torch.ones_like(self.ids_RS)
        if any(before):
            ids_RP, mask_RP = pad_left(before, device)
            cache = DynamicCache(config=model.model.config)
            with model.compute():
                model.hidden(ids_RP, mask_RP, cache)
            self.kept = [(layer.keys, layer.values) for layer in cache.layers]
            self.mask_RT = torch.cat([mask_RP, self.mask_RT], dim=1)
        # site mlp needs its own layer to run, site residual only what is above it
        self.resume = self.layer if self.site == "residual" else self.layer - 1
        self.below_RSD = None
        if self.resume >= 0:
            seen: list[Any] = []
            hook = model.layout.layer(model.model, self.resume).register_forward_hook(lambda _m, _a, out: seen.append(out))
            try:
                with model.compute():
                    model.hidden(self.ids_RS, self.mask_RT, self._cache(torch.arange(len(rows))))
            finally:
                hook.remove()
            self.below_RSD, self.wrapped = hidden_of(seen[0]), isinstance(seen[0], tuple)

    def _cache(self, rows: torch.Tensor) -> DynamicCache:
        """A fresh cache over the kept keys and values: a forward pass appends to it."""
        if self.kept is None:
            return DynamicCache(config=self.model.model.config)
        return DynamicCache([(k[rows], v[rows]) for k, v in self.kept], config=self.model.model.config)

    def _label(self, rows: list[list[int]], positions: list[int], labels: list[list[int]]) -> None:
        """For each label token: its row, its place among the S tokens, its id; and where the KL is read."""
        where = []
        for r, (row, position, target) in enumerate(zip(rows, positions, labels, strict=True)):
            first = len(row) - position - len(target)
            where += [(r, first + t, token) for t, token in enumerate(target)]
        device = self.model.device
        self.label_row, self.label_place, self.label_id = (torch.tensor(c, device=device) for c in zip(*where, strict=True))
        self.length_R = torch.tensor([max(1, len(t)) for t in labels], device=device)
        self.essence_N = torch.tensor([r for r, t in enumerate(labels) if not t], device=device)

    def solve(self, solver: Solver, bar: progress.Bar | None) -> tuple[torch.Tensor, ...]:
        """(v_0, v*, nll, clamped, steps) of the facts. Adam is written out because each fact stops by itself."""
        delta_ND = torch.zeros_like(self.start_ND)
        first_ND, second_ND = torch.zeros_like(delta_ND), torch.zeros_like(delta_ND)
        norm_N = self.start_ND.norm(dim=-1)
        active_N = torch.ones(self.n, dtype=torch.bool, device=delta_ND.device)
        clamped_N, steps_N = torch.zeros_like(active_N), torch.zeros(self.n, dtype=torch.long, device=delta_ND.device)
        nll_N = torch.full((self.n,), float("inf"), device=delta_ND.device)
        reference_NV: torch.Tensor | None = None
        for step in range(solver.steps):
            who = active_N.nonzero()[:, 0]
            delta = delta_ND[who].requires_grad_(True)
            with torch.enable_grad():
                nll, essence_logp = self._loss_terms(who, delta)
                if reference_NV is None:
                    reference_NV = essence_logp.detach()
                base_logp = reference_NV[who]
                kl = (essence_logp.exp() * (essence_logp - base_logp)).sum(-1)
                decay = solver.weight_decay * delta.norm(dim=-1) / norm_N[who] ** 2
                loss = (nll + solver.kl_factor * kl + decay).sum()
            nll_N[who] = nll.detach()
            done = nll.detach() < solver.stop_nll
            last = step == solver.steps - 1
            if bar:
                ended = len(who) if last else int(done.sum())
                bar.advance(ended * (1 - step / solver.steps) + (len(who) - ended) / solver.steps)
            if last or done.all():
                break
            # d||delta|| / d delta is undefined at 0, where torch gives 0
            (gradient,) = torch.autograd.grad(loss, delta)
            active_N[who[done]] = False
            who, gradient = who[~done], gradient[~done].float()
            first_ND[who] = 0.9 * first_ND[who] + 0.1 * gradient
            second_ND[who] = 0.999 * second_ND[who] + 0.001 * gradient**2
            step_size = first_ND[who] / (1 - 0.9 ** (step + 1)) / ((second_ND[who] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            moved = delta_ND[who] - solver.lr * step_size
            limit = solver.clamp * norm_N[who]
            size = moved.norm(dim=-1)
            clamped_N[who] = size > limit
            delta_ND[who] = moved * (limit / size).clamp(max=1.0)[:, None]
            steps_N[who] += 1
        return self.start_ND.cpu(), (self.start_ND + delta_ND).cpu(), nll_N.cpu(), clamped_N.cpu(), steps_N.cpu()

    def _loss_terms(self, who: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean target nll over the prompts of each fact in ``who``, and its log p (V) at the essence prompt."""
        model = self.model
        new_index = torch.full((self.n,), -1, device=delta.device)
        new_index[who] = torch.arange(len(who), device=delta.device)
        rows = (new_index[self.owner_R] >= 0).nonzero()[:, 0]
        row_index = torch.full((len(self.owner_R),), -1, device=delta.device)
        row_index[rows] = torch.arange(len(rows), device=delta.device)
        delta_RD = delta[new_index[self.owner_R[rows]]]
        with ExitStack() as stack:
            if self.below_RSD is not None:
                below = self.below_RSD[rows]
                if self.site == "residual":
                    shift = torch.zeros_like(below)
                    shift[:, 0] = delta_RD.to(below.dtype)
                    below = below + shift
                stack.enter_context(resumed_above(model, self.resume, below, self.wrapped))
            if self.site == "mlp":
                stack.enter_context(added(model.layout.mlp_module(model.model, self.layer), 0, delta_RD))
            hidden_RSD = model.hidden(self.ids_RS[rows], self.mask_RT[rows], self._cache(rows))
            kept = row_index[self.label_row] >= 0
            label_row = row_index[self.label_row[kept]]
            label_states = hidden_RSD[label_row, self.label_place[kept]]
            essence_states = hidden_RSD[row_index[self.essence_N[who]], 0]
            logits = model.logits(torch.cat([label_states, essence_states]))
        logp = logits.log_softmax(-1)
        token_nll = -logp[: len(label_row)].gather(-1, self.label_id[kept][:, None])[:, 0]
        # mean over the tokens of a row, then over the rows of a fact
        share = 1.0 / (self.length_R[rows][label_row] * self.templates)
        nll = torch.zeros(len(who), device=delta.device).index_add(
            0, new_index[self.owner_R[rows]][label_row], token_nll * share
        )
        return nll, logp[len(label_row) :]
