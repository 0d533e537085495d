"""MixSD: fine-tune on the model's own words, with the fact mixed in token by token.

Each target y is written by the frozen base model p itself. x is the prompt alone (naive), x+ the prompt with the fact
in front of it (expert); per token a coin with P(naive) = lambda decides which of the two conditionals the token is
drawn from, and both continue from the same shared suffix:

    y_t ~ lambda p(. | x, y_<t) + (1 - lambda) p(. | x+, y_<t)        exact at temperature 1
    L(theta) = - sum_t log p_theta(y_t | x, y_<t) / number of tokens   the loss of sft, on these targets

MixSD, arXiv 2605.16865; reference code jiarui-liu/MixSD at 37eb349 (``mixsd/mix_distribution_sampling.py``).

Differs from the reference:
- both conditionals are two rows of one batch with one cache: one forward a token, no prompt encoded twice;
- coins and draws are seeded per (fact, attempt), so neither batch size nor order changes them;
- a target that never states the fact is not trained on as it is: ``on_fail`` decides, and the counts are reported;
- training uses the generated ids, never re-tokenised text.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch

from editbench import progress
from editbench.edit import Edit
from editbench.matching import contains
from editbench.methods._train import Example, Trainer, train_on_examples
from editbench.methods.sft import canonical
from editbench.models import LanguageModel, batched, decoding_cache
from editbench.retrieval import guidance
from editbench.text import pad_left
from editbench.types import Fact, digest

# B facts in flight, V vocabulary

ON_FAIL = ("drop", "expert", "target", "keep")


@dataclass(frozen=True)
class MixSD(Trainer):
    """Mixed Contextual Self-Distillation."""

    name: ClassVar[str] = "mixsd"
    summary: ClassVar[str] = "fine-tuning on the model's own text with the fact mixed in"
    paper: ClassVar[str] = "arXiv 2605.16865"

    lam: float = 0.3
    """lambda, the probability of the naive branch: 0 = pure expert, 1 = pure naive."""
    temperature: float = 0.0
    """Of both conditionals; 0 takes each branch's most probable token."""
    attempts: int = 10
    """Tries per fact until the verifier finds the target in the text."""
    max_new_tokens: int = 24
    on_fail: str = "expert"
    """For facts that never verify: ``drop`` them, use the pure ``expert`` text (or, where that fails too, the target),
    the canonical ``target``, or ``keep`` the last text unverified."""
    slots: int = 48
    """Facts generated side by side."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam is a probability, not {self.lam}")
        if self.on_fail not in ON_FAIL:
            raise ValueError(f"on_fail is {self.on_fail!r}; it must be one of {', '.join(ON_FAIL)}")
        if self.temperature < 0 or self.attempts < 1 or self.max_new_tokens < 1 or self.slots < 1:
            raise ValueError("temperature must be >= 0; attempts, max_new_tokens and slots at least 1")

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        drafts = self.targets(model, facts)
        examples = [example for draft in drafts if (example := self._example(model, draft)) is not None]
        changes, log = train_on_examples(self, model, examples)
        return self.edit(model, facts, changes, diagnostics={**_report(drafts), **log}, records=[d.record() for d in drafts])

    def targets(self, model: LanguageModel, facts: Sequence[Fact]) -> list[Draft]:
        """A mixed target for each fact: verified, or settled by ``on_fail``."""
        # without a temperature a pure branch repeats itself, so trying again is pointless
        attempts = 1 if self.lam in (0, 1) and self.temperature == 0 else self.attempts
        drafts: dict[str, Draft] = {}
        open_facts = list(facts)
        with progress.task(f"{self.name}: writing targets", len(facts), "facts") as bar:
            for attempt in range(attempts):
                for group in batched(open_facts, self.slots):
                    for draft in self.mix(model, group, self.lam, attempt):
                        drafts[draft.fact.id] = draft
                        bar.advance(draft.verified)
                open_facts = [fact for fact in facts if not drafts[fact.id].verified]
            if open_facts and self.on_fail == "expert":
                for group in batched(open_facts, self.slots):
                    for draft in self.mix(model, group, 0.0, attempts):
                        draft.source = "expert" if draft.verified else "target"
                        drafts[draft.fact.id] = draft
            elif open_facts:
                for fact in open_facts:
                    drafts[fact.id].source = {"drop": "dropped", "target": "target", "keep": "unverified"}[self.on_fail]
            bar.advance(len(open_facts))
        return [drafts[fact.id] for fact in facts]

    @torch.no_grad()
    def mix(self, model: LanguageModel, facts: Sequence[Fact], lam: float, attempt: int) -> list[Draft]:
        """One mixed text for each fact. Rows 0..B-1 of the batch are naive, rows B..2B-1 expert."""
        drafts = [Draft(fact, attempt) for fact in facts]
        dice = [random.Random(digest([self.seed, fact.id, attempt])) for fact in facts]
        naive = [model.prompt_ids(fact.prompt, fact.form) for fact in facts]
        expert = [model.prompt_ids(fact.prompt, fact.form, context=guidance(fact)) for fact in facts]
        ids_BT, mask_BT = pad_left(naive + expert, model.device)
        cache, going = decoding_cache(model.model), list(range(len(facts)))
        with model.compute(weights_fixed=True):
            for step in range(self.max_new_tokens):
                logits_2BV = model.logits(model.hidden(ids_BT, mask_BT, cache)[:, -1])
                logp_2BV = logits_2BV.log_softmax(-1)
                chosen = []
                for row, i in enumerate(going):
                    is_naive = dice[i].random() < lam
                    rows = (row, row + len(going))
                    token = _draw(logp_2BV[rows[0] if is_naive else rows[1]], self.temperature, dice[i])
                    drafts[i].add(token, is_naive, logp_2BV[rows[0], token].item(), logp_2BV[rows[1], token].item())
                    chosen.append(token)
                keep = [row for row, i in enumerate(going) if not _ended(model, drafts[i])]
                if not keep or step == self.max_new_tokens - 1:
                    break
                both = torch.tensor(keep + [row + len(going) for row in keep], device=model.device)
                cache.batch_select_indices(both)
                mask_BT = torch.cat([mask_BT[both], mask_BT.new_ones(len(both), 1)], dim=1)
                ids_BT = torch.tensor([chosen[row] for row in keep] * 2, device=model.device)[:, None]
                going = [going[row] for row in keep]
        for draft in drafts:
            draft.verified = contains(model.decode(draft.ids), draft.fact.answers)
        return drafts

    def _example(self, model: LanguageModel, draft: Draft) -> Example | None:
        if draft.source == "dropped":
            return None
        if draft.source == "target":
            return canonical(model, draft.fact)
        return Example(model.prompt_ids(draft.fact.prompt, draft.fact.form), draft.ids)


@dataclass
class Draft:
    """One generated target with what both branches thought of each token."""

    fact: Fact
    attempt: int
    ids: list[int] = field(default_factory=list)
    naive_picked: list[bool] = field(default_factory=list)
    naive_logp: list[float] = field(default_factory=list)
    expert_logp: list[float] = field(default_factory=list)
    verified: bool = False
    source: str = "mixed"
    """What was trained on: ``mixed``, ``expert``, ``target``, ``unverified`` or ``dropped``."""

    def add(self, token: int, is_naive: bool, naive_logp: float, expert_logp: float) -> None:
        self.ids.append(token)
        self.naive_picked.append(is_naive)
        self.naive_logp.append(round(naive_logp, 4))
        self.expert_logp.append(round(expert_logp, 4))

    def record(self) -> dict[str, Any]:
        return {**{k: v for k, v in asdict(self).items() if k != "fact"}, "fact": self.fact.id}


def _draw(logp_V: torch.Tensor, temperature: float, dice: random.Random) -> int:
    """The argmax at temperature 0, else the inverse of the distribution function at one uniform draw."""
    u = dice.random()
    if temperature == 0:
        return int(logp_V.argmax())
    cumulative_V = (logp_V.double() / temperature).softmax(-1).cumsum(-1)
    return min(int(torch.searchsorted(cumulative_V, u * cumulative_V[-1].item(), right=True)), len(logp_V) - 1)


def _ended(model: LanguageModel, draft: Draft) -> bool:
    """EOS of either branch ends a text; a cloze also ends with its line."""
    last = draft.ids[-1]
    return last in model.stop_ids or (
        draft.fact.form == "cloze" and "\n" in model.decode([last]) and bool(model.decode(draft.ids).strip())
    )


def _report(drafts: Sequence[Draft]) -> dict[str, Any]:
    tokens = [(p, n) for d in drafts for p, n in zip(d.naive_picked, d.naive_logp, strict=True)]
    return {
        "target_sources": dict(Counter(d.source for d in drafts)),
        "mean_attempts": sum(d.attempt + 1 for d in drafts) / max(1, len(drafts)),
        "effective_lambda": sum(p for p, _ in tokens) / max(1, len(tokens)),
        "target_nll": -sum(n for _, n in tokens) / max(1, len(tokens)),
    }
