"""OPSD: on-policy self-distillation. The student writes, the teacher, which has read the fact, corrects token by token.

Each step samples rollouts y from the current student on the plain prompt x and pulls the student towards the teacher,
the same model with the fact in front of the prompt (x+), at every token of the rollout. S_t is the teacher's top-k set,
and both distributions are renormalised over it:

    forward:  L = mean_t sum_{v in S_t} p_T(v) (log p_T(v) - log p_S(v))     p_T = p(. | x+, y_<t), p_S = p_theta(. | x, y_<t)
    reverse:  the same with T and S exchanged

SDFT, arXiv 2601.19897; OPSD, arXiv 2601.18734; the baseline of MixSD (arXiv 2605.16865): n rollouts, top-64, forward KL,
teacher frozen at the base model (``teacher="current"`` lets it follow the student).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch

from editbench.edit import Edit
from editbench.methods._train import Trainer, label_states, train
from editbench.models import LanguageModel
from editbench.retrieval import guidance
from editbench.types import Fact

# N label positions of a batch, K teacher's top-k


@dataclass(frozen=True)
class OPSD(Trainer):
    """On-policy self-distillation with a fact-conditioned teacher."""

    name: ClassVar[str] = "opsd"
    summary: ClassVar[str] = "student rollouts, teacher sees the fact, KL over its top-k"
    paper: ClassVar[str] = "arXiv 2601.18734"

    rollouts: int = 2
    """Samples from the student per fact and step (n)."""
    temperature: float = 1.0
    """Of the student's rollouts."""
    max_new_tokens: int = 12
    top_k: int = 64
    divergence: str = "forward"
    """``forward`` KL(teacher || student) or ``reverse`` KL(student || teacher)."""
    teacher: str = "frozen"
    """``frozen``: the base model; ``current``: the student itself, without gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.divergence not in ("forward", "reverse"):
            raise ValueError(f"divergence is {self.divergence!r}; it must be forward or reverse")
        if self.teacher not in ("frozen", "current"):
            raise ValueError(f"teacher is {self.teacher!r}; it must be frozen or current")
        if self.rollouts < 1 or self.max_new_tokens < 1 or self.top_k < 1 or self.temperature <= 0:
            raise ValueError("rollouts, max_new_tokens and top_k must be at least 1, temperature above 0")

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        teacher = model if self.teacher == "current" or not facts else frozen_copy(model)
        naive = [model.prompt_ids(fact.prompt, fact.form) for fact in facts]
        expert = [model.prompt_ids(fact.prompt, fact.form, context=guidance(fact)) for fact in facts]
        generator = torch.Generator().manual_seed(self.seed)
        eos = model.tokenizer.eos_token_id

        def loss_of(batch: list[int]) -> tuple[torch.Tensor, int]:
            rows = [i for i in batch for _ in range(self.rollouts)]
            texts = model.generate_ids(
                [naive[i] for i in rows], self.max_new_tokens, generator=generator, temperature=self.temperature
            )
            # a rollout that ended by itself ended with EOS, which is a choice to learn from too
            texts = [y + [eos] if len(y) < self.max_new_tokens and eos is not None else y for y in texts]
            lengths = [len(y) for y in texts]
            with torch.no_grad():
                seen = [expert[i] + y for i, y in zip(rows, texts, strict=True)]
                teacher_NV = teacher.logits(label_states(teacher, seen, lengths))
            student_NV = model.logits(label_states(model, [naive[i] + y for i, y in zip(rows, texts, strict=True)], lengths))
            return top_k_divergence(teacher_NV, student_NV, self.top_k, self.divergence), sum(lengths)

        changes, log = train(self, model, len(facts), loss_of)
        return self.edit(model, facts, changes, diagnostics=log)


def top_k_divergence(teacher_NV: torch.Tensor, student_NV: torch.Tensor, k: int, direction: str) -> torch.Tensor:
    """Mean over positions of the KL divergence over the teacher's top-k tokens, both sides renormalised over them."""
    top_NK = teacher_NV.topk(min(k, teacher_NV.shape[-1]), dim=-1).indices
    log_t_NK = teacher_NV.gather(-1, top_NK).log_softmax(-1)
    log_s_NK = student_NV.gather(-1, top_NK).log_softmax(-1)
    if direction == "reverse":
        log_t_NK, log_s_NK = log_s_NK, log_t_NK
    return (log_t_NK.exp() * (log_t_NK - log_s_NK)).sum(-1).mean()


def frozen_copy(model: LanguageModel) -> LanguageModel:
    """A second handle on a copy of the weights as they are now."""
    return LanguageModel(
        deepcopy(model.model).requires_grad_(False), model.tokenizer, name=model.name, precision=model.precision
    )
