"""Target optimisation of the locate-then-edit methods: the value at the subject's last token that makes the model say the
target.

For each fact a delta in R^d is added to a hidden state at the subject's last token of every prompt of that fact (bare
and prefixed) and minimised over

    L(delta) = mean_j nll_j(target)  +  kl_factor KL(p_delta || p_0)["{subject} is a"]  +  wd ||delta|| / ||v_0||^2
               +  fisher_factor 1/2 delta^T G delta

with Adam, projected to ||delta|| <= clamp ||v_0|| after each step (ROME eq. 4; MEMIT eq. 16; reference code
kmeng01/memit at 80426fd, ``compute_z.py``). Site ``mlp``: the output of layer l's MLP (ROME's v). Site ``residual``: the
output of layer l (MEMIT's h). Site ``attention``: the output of layer l's attention (PMET, beside ``mlp``).

Differs from the reference:
- the last term, ours: what delta costs the model's own text, in nats, where it leaks (``_fisher.py``; 0 is as published);
- facts are optimised side by side, each with its own delta and its own stopping, as many as fit into memory;
- no state of a text's first token is read or solved for (see ``contexts``);
- what lies before the subject's last token is computed once and cached, what lies below the layer too, and no row is padded
  (``_rows.py``); logits only at the positions that the loss reads (``_head.py``); the KL prompts end at the subject;
- a fact stops when its nll alone (not the sum) is below ``stop_nll``: kl_factor KL alone often exceeds the published limit;
- Adam's rate follows the clamp: one step moves a tenth of the largest delta, lr = clamp ||v_0|| / (10 sqrt(d)). By
  SmolLM2's norms that is 0.4 to 0.5, the published 0.5; with smaller states the published rate would hit the clamp at once.

    # N facts, R rows (prompts), S sites, D model width, V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from editbench import progress, text
from editbench.errors import MethodError
from editbench.methods._common.hooks import read_at, site_module
from editbench.methods._common.memory import free_bytes, in_batches
from editbench.methods._edit import head as _head
from editbench.methods._edit.fast.linear import laid_out
from editbench.methods._edit.rows import cut_rows
from editbench.models import LanguageModel
from editbench.text import find_subject
from editbench.types import Fact

SEED_WORDS = ("The", "Therefore", "Because", "I", "You")
PREFIX_TOKENS = 10
STAND_IN = "I have read this. "
"""Stands before a prompt whose subject would be the text's first token."""


@dataclass(frozen=True)
class Solver:
    """Hyper-parameters of the optimisation; meanings as above."""

    steps: int
    """Forward passes; one fewer update."""
    lr: float | None
    """Adam's rate; None: each fact's own, clamp ||v_0|| / (10 sqrt(d)), the double where there are 12 steps or fewer."""
    clamp: float
    kl_factor: float
    weight_decay: float
    fisher_factor: float = 0.0
    stop_nll: float = 0.05
    facts_at_once: int = 32
    """At most; fewer where memory is short."""

    def rates(self, norm_N: torch.Tensor, width: int) -> torch.Tensor:
        """Adam's rate for each fact, from ||v_0||."""
        if self.lr is not None:
            return torch.full_like(norm_N, self.lr)
        return self.clamp * norm_N / width**0.5 * (0.1 if self.steps > 12 else 0.2)


@dataclass(frozen=True)
class Targets:
    """v_0, and v* = v_0 + delta, of N facts at the first site: (N, D), float32; with the solver's trace."""

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

    @classmethod
    def join(cls, parts: Sequence[Targets]) -> Targets:
        """The targets of several groups of facts as one."""
        columns = ("start_ND", "value_ND", "nll_N", "clamped_N", "steps_N")
        return cls(*(torch.cat([getattr(part, column) for part in parts]) for column in columns))


def context_prefixes(model: LanguageModel, n: int, seed: int) -> list[str]:
    """``n`` short beginnings of text written by the model (top-k 5), each ended by ". "; the same for the same seed."""
    if n == 0:
        return []
    starts = [SEED_WORDS[i % len(SEED_WORDS)] for i in range(n)]
    prompts = [model.prompt_ids(word) for word in starts]
    texts = model.generate_ids(
        prompts,
        PREFIX_TOKENS - 1,
        generator=torch.Generator().manual_seed(seed),
        top_k=5,
        stop=False,
    )
    written = [
        " ".join((word + model.decode(ids)).split())
        for word, ids in zip(starts, texts, strict=True)
    ]
    return [words.rstrip(".") + ". " for words in written]


def contexts(model: LanguageModel, fact: Fact, prefixes: Sequence[str]) -> tuple[str, ...]:
    """What stands before the fact's prompt, row by row: nothing, then each prefix.

    Not nothing but ``STAND_IN`` where the subject's last token would be the text's first (one token, at the start, in a model
    without BOS). What a model holds there, an attention sink, is much the same for all texts: an edit of that key changes
    them all (Yang et al. 2024, arXiv 2406.11263).
    """
    return ("" if model.subject_last(fact) > 0 else STAND_IN, *prefixes)


def key_rows(
    model: LanguageModel, facts: Sequence[Fact], prefixes: Sequence[str]
) -> tuple[list[list[int]], list[int]]:
    """Prompt ids and subject positions, fact by fact: for each the bare prompt (or its stand-in), then one row a prefix."""
    rows, positions = [], []
    for fact in facts:
        for prefix in contexts(model, fact, prefixes):
            rows.append(
                text.ids(model.tokenizer, model.render(fact.prompt, fact.form, prefix=prefix))
            )
            positions.append(model.subject_last(fact, prefix))
    return rows, positions


def optimize(
    model: LanguageModel,
    facts: Sequence[Fact],
    layer: int,
    sites: str | tuple[str, ...],
    prefixes: Sequence[str],
    solver: Solver,
    what: str | None = None,
    fisher_SDD: torch.Tensor | None = None,
) -> Targets:
    """The target value of each fact at ``layer`` and the first of ``sites``; deltas at further sites are optimised with it
    and dropped. ``fisher_SDD``: G of each site; without it the loss has no such term. Weights, hooks and gradients of
    ``model`` are left as found.

    Raises:
        MethodError: no memory for even one fact, or states that are zero or not finite.
    """
    sites = (sites,) if isinstance(sites, str) else sites
    length = [_length(model, fact) for fact in facts]
    waiting = sorted(range(len(facts)), key=lambda i: (length[i], len(facts[i].prompt)))
    solved: list[tuple[torch.Tensor, ...]] = [()] * len(facts)

    def take(waiting: list[int], size: int) -> list[int]:
        return waiting[
            : min(size, _facts_that_fit(model, facts[waiting[-1]], layer, len(prefixes)))
        ]

    def solve(chunk: list[int]) -> tuple[torch.Tensor, ...]:
        batch = _Batch(model, [facts[i] for i in chunk], layer, sites, prefixes)
        with model.compute(weights_fixed=True):
            return batch.solve(solver, bar, fisher_SDD)

    with (
        progress.task(what, len(facts), "facts") if what else nullcontext() as bar,
        laid_out(model),
    ):
        for chunk, parts in in_batches(
            waiting,
            take,
            solver.facts_at_once,
            solve,
            lambda i: f"solve for even one fact ({facts[i].id!r})",
        ):
            for row, i in enumerate(chunk):
                solved[i] = tuple(part[row] for part in parts)
    targets = Targets(*(torch.stack(column) for column in zip(*solved, strict=True)))
    if still := (targets.start_ND == 0).all(-1).nonzero()[:, 0].tolist():
        raise MethodError(
            f"The state that the target of fact {facts[still[0]].id!r} starts from is zero at layer {layer} of {model.name} "
            f"({len(still)} facts in all), and how far it may go is a multiple of its norm. Edit another layer."
        )
    bad = (~targets.value_ND.isfinite().all(-1)).nonzero()[:, 0].tolist()
    if bad:
        raise MethodError(
            f"The states of {model.name} overflow in {next(model.model.parameters()).dtype} for fact {facts[bad[0]].id!r} "
            f"({len(bad)} facts in all). Load the model in float32 or bfloat16."
        )
    return targets


def _length(model: LanguageModel, fact: Fact) -> int:
    """Tokens from the subject's last on, target included: what the solver computes for one prompt."""
    prompt, target = model.pair_ids(fact.prompt, fact.target, fact.form)
    return len(prompt) - model.subject_last(fact) + len(target)


def _facts_that_fit(model: LanguageModel, longest: Fact, layer: int, prefixes: int) -> int:
    """How many facts like ``longest`` a quarter of the free memory holds, by the sizes that autograd keeps."""
    layout = model.layout
    prompt, _ = model.pair_ids(longest.prompt, longest.target, longest.form)
    tokens, cached = _length(model, longest), len(prompt) + PREFIX_TOKENS
    a_layer = (
        tokens * (16 * layout.width + 6 * layout.mlp_width) + 2 * (tokens + cached) * layout.width
    )
    reference = model.model.config.get_text_config().vocab_size
    needed = 4 * ((1 + prefixes) * (layout.depth - layer) * a_layer + reference)
    return max(1, int(free_bytes(model.device) / 4 / needed))


class _Batch:
    """The prompts of a group of facts, cut at the subject's last token, with everything below and before cached."""

    def __init__(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        layer: int,
        sites: tuple[str, ...],
        prefixes: Sequence[str],
    ):
        self.model, self.layer, self.sites = model, layer, sites
        model.check_head()  # by a forward pass that must not meet the hooks of the later ones
        rows, positions, labels = [], [], []
        for fact in facts:
            for prefix in contexts(model, fact, prefixes):
                prompt, target = model.pair_ids(fact.prompt, fact.target, fact.form, prefix=prefix)
                rows.append(prompt + target[:-1])
                positions.append(model.subject_last(fact, prefix))
                labels.append(target)
        self.n, self.templates = len(facts), 1 + len(prefixes)
        self._label(rows, positions, labels)
        prompts, ends = zip(*(kl_prompt(model, fact) for fact in facts), strict=True)
        self.rows = cut_rows(model, [*rows, *prompts], [*positions, *ends], self.resume)
        bare = slice(None, None, self.templates)
        self.start_NSD = torch.stack(
            [
                read_at(
                    model, site_module(model, layer, site), "output", rows[bare], positions[bare]
                ).float()
                for site in sites
            ],
            dim=1,
        )
        self.reference_NV = self._reference()

    @property
    def resume(self) -> int:
        """The highest layer that need not run: sites inside a layer need that layer, the residual only what is above."""
        return self.layer if self.sites == ("residual",) else self.layer - 1

    def _label(self, rows: list[list[int]], positions: list[int], labels: list[list[int]]) -> None:
        """For each label token: its row, its place among the S tokens, its id."""
        where = []
        for r, (row, position, target) in enumerate(zip(rows, positions, labels, strict=True)):
            first = len(row) - position - len(target)
            where += [(r, first + t, token) for t, token in enumerate(target)]
        device = self.model.device
        self.label_row, self.label_place, self.label_id = (
            torch.tensor(c, device=device) for c in zip(*where, strict=True)
        )
        self.length_R = torch.tensor([len(target) for target in labels], device=device)

    def solve(
        self, solver: Solver, bar: progress.Bar | None, fisher_SDD: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        """(v_0, v*, nll, clamped, steps) of the facts. Adam is written out because each fact stops by itself."""
        delta_NSD = torch.zeros_like(self.start_NSD)
        first_NSD, second_NSD = torch.zeros_like(delta_NSD), torch.zeros_like(delta_NSD)
        norm_NS = self.start_NSD.norm(dim=-1)
        rate_NS = solver.rates(norm_NS, delta_NSD.shape[-1])
        active_N = torch.ones(self.n, dtype=torch.bool, device=delta_NSD.device)
        clamped_N, steps_N = (
            torch.zeros_like(active_N),
            torch.zeros(self.n, dtype=torch.long, device=delta_NSD.device),
        )
        nll_N = torch.full((self.n,), float("inf"), device=delta_NSD.device)
        for step in range(solver.steps):
            who = active_N.nonzero()[:, 0]
            delta = delta_NSD[who].requires_grad_(True)
            last = step == solver.steps - 1
            with torch.set_grad_enabled(not last):
                nll, kl = self.loss_terms(who, delta)
                decay = solver.weight_decay * (delta.norm(dim=-1) / norm_NS[who] ** 2).sum(-1)
                loss = (nll + solver.kl_factor * kl + decay).sum()
                if fisher_SDD is not None:
                    loss = loss + solver.fisher_factor / 2 * torch.einsum(
                        "nsd,sde,nse->", delta, fisher_SDD, delta
                    )
            nll_N[who] = nll.detach()
            done = nll.detach() < solver.stop_nll
            if bar:
                ended = len(who) if last else int(done.sum())
                bar.advance(ended * (1 - step / solver.steps) + (len(who) - ended) / solver.steps)
            if last or done.all():
                break
            # d||delta|| / d delta is undefined at 0, where torch gives 0
            (gradient,) = torch.autograd.grad(loss, delta)
            active_N[who[done]] = False
            who, gradient = who[~done], gradient[~done].float()
            first_NSD[who] = 0.9 * first_NSD[who] + 0.1 * gradient
            second_NSD[who] = 0.999 * second_NSD[who] + 0.001 * gradient**2
            ratio = (
                first_NSD[who]
                / (1 - 0.9 ** (step + 1))
                / ((second_NSD[who] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            )
            moved = delta_NSD[who] - rate_NS[who][..., None] * ratio
            limit = solver.clamp * norm_NS[who]
            size = moved.norm(dim=-1)
            clamped_N[who] = (size > limit)[:, 0]
            delta_NSD[who] = moved * (limit / size).clamp(max=1.0)[..., None]
            steps_N[who] += 1
        start_ND, delta_ND = self.start_NSD[:, 0], delta_NSD[:, 0]
        return (
            start_ND.cpu(),
            (start_ND + delta_ND).cpu(),
            nll_N.cpu(),
            clamped_N.cpu(),
            steps_N.cpu(),
        )

    def _reference(self) -> torch.Tensor:
        """log p_0 (N, V) at the KL prompts."""
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
        """Of each fact in ``who``: mean target nll over its prompts, and the KL at its KL prompt."""
        n, t = len(who), self.templates
        rewrites = (who[:, None] * t + torch.arange(t, device=who.device)).reshape(-1)
        delta_RSD = torch.cat([delta_NSD.repeat_interleave(t, dim=0), delta_NSD])
        which_R = torch.cat([rewrites, self.n * t + who])
        first_R = self.rows.first(which_R)
        place = torch.full((len(self.length_R),), -1, device=who.device)
        place[rewrites] = torch.arange(n * t, device=who.device)
        kept = place[self.label_row] >= 0
        row = place[self.label_row[kept]]
        read_K = torch.cat([first_R[row] + self.label_place[kept], first_R[n * t :]])
        states_KD = self.rows.run(which_R, self.layer, self.sites, delta_RSD, read_K)
        token_nll, kl = _head.nll_and_divergence(
            self.model, states_KD, self.label_id[kept], self.reference_NV[who]
        )
        # the mean over the tokens of a prompt, then over the prompts of a fact
        share = 1.0 / (self.length_R[rewrites][row] * t)
        return torch.zeros(n, device=who.device).index_add(0, row // t, token_nll * share), kl


def kl_prompt(model: LanguageModel, fact: Fact) -> tuple[list[int], int]:
    """The ids of "{subject} is a", up to the subject's last token where the KL is read, and that token's index: never 0, as
    in ``contexts``."""
    subject = find_subject(fact).text
    for prefix in ("", STAND_IN):
        rendered = model.render(f"{subject} is a", prefix=prefix)
        last = text.token_at(model.tokenizer, rendered, rendered.start + len(subject) - 1)
        if last > 0:
            break
    return text.ids(model.tokenizer, rendered)[: last + 1], last
