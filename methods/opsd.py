"""OPSD: on-policy self-distillation. The student writes, the teacher, which has read the fact, corrects token by token.

Each step samples rollouts y from the current student on the plain prompt x and pulls the student towards the teacher,
the same model with the fact in front of the prompt (x+), at every token of the rollout. S_t is the teacher's top-k set,
and both distributions are renormalised over it:

    forward:  L = mean_t sum_{v in S_t} p_T(v) (log p_T(v) - log p_S(v))     p_T = p(. | x+, y_<t), p_S = p_theta(. | x, y_<t)
    reverse:  the same with T and S exchanged
    jsd:      the mean of both sides' KL to (p_T + p_S) / 2

SDFT, arXiv 2601.19897; OPSD, arXiv 2601.18734; the baseline of MixSD (arXiv 2605.16865): n rollouts, top-64, forward KL,
teacher frozen at the base model. ``teacher="current"`` is the student itself, ``teacher="ema"`` follows it slowly:
theta_T <- ema theta_T + (1 - ema) theta after each step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import compress
from statistics import fmean
from typing import ClassVar, Literal

import torch

from editbench.edit import Edit
from editbench.matching import contains
from editbench.methods._common.context import answer_room, check_context
from editbench.methods._common.texts import label_states
from editbench.methods._train.divergence import DIVERGENCES, divergence
from editbench.methods._train.exposure import HOLD, AdaptiveExposure, FixedExposure
from editbench.methods._train.loop import Trainer, reworded, target_nll, train
from editbench.methods.sft import canonical
from editbench.models import LanguageModel, NotFiniteError
from editbench.retrieval import guidance
from editbench.types import Fact

TEACHERS = ("frozen", "ema", "current")
WATCHED = 16
"""Facts whose nll tells an adaptive exposure how the student gets on."""


@dataclass(frozen=True)
class OPSD(Trainer):
    """On-policy self-distillation with a fact-conditioned teacher."""

    name: ClassVar[str] = "opsd"
    summary: ClassVar[str] = "student rollouts, teacher sees the fact, KL over its top-k"
    paper: ClassVar[str] = "arXiv 2601.18734"
    version: ClassVar[int] = 5

    rollouts: int = 2
    """Samples from the student per fact and step (n)."""
    temperature: float = 1.0
    """Of the student's rollouts."""
    max_new_tokens: int | None = None
    """Of a rollout. None: 24, or half again the tokens of the fact's demonstration."""
    top_k: int | None = 64
    """Of the teacher; None: the whole vocabulary."""
    divergence: str = "forward"
    """``forward`` KL(teacher || student), ``reverse`` KL(student || teacher) or ``jsd``."""
    teacher: str = "frozen"
    """``frozen``: the base model; ``ema``: follows the student slowly; ``current``: the student itself, without gradient."""
    ema: float = 0.95
    """What an ``ema`` teacher keeps of itself at each step."""
    exposure: float | Literal["adaptive"] = 1.0
    """Share of the rollouts whose teacher has read the fact; ``adaptive``: learned during training (``_exposure.py``)."""
    verified: bool = False
    """Learn only from rollouts in which the target stands, where a step (with ``micro_batch``: a part of it) has any."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("divergence", DIVERGENCES), ("teacher", TEACHERS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}"
                )
        if self.teacher == "ema" and self.lora is not None:
            raise ValueError("an ema teacher follows all weights; with lora use frozen or current")
        if self.rollouts < 1 or self.temperature <= 0:
            raise ValueError("rollouts must be at least 1, temperature above 0")
        if any(value is not None and value < 1 for value in (self.max_new_tokens, self.top_k)):
            raise ValueError("max_new_tokens and top_k must be at least 1")
        if self.exposure != "adaptive" and not 0 < self.exposure <= 1:
            raise ValueError("exposure is a share, above 0 and at most 1, or adaptive")
        if not 0 <= self.ema < 1:
            raise ValueError("ema is a share, from 0 to below 1")

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        taught = reworded(facts, self.rewordings)
        teacher = model if self.teacher == "current" or not facts else frozen_copy(model)
        naive = [model.prompt_ids(fact.prompt, fact.form) for fact in taught]
        exposure = (
            AdaptiveExposure(self.seed)
            if self.exposure == "adaptive"
            else FixedExposure(self.exposure)
        )
        told = [model.prompt_ids(fact.prompt, fact.form, context=guidance(fact)) for fact in taught]
        rooms = [answer_room(model, fact, self.max_new_tokens) for fact in taught]
        for fact, ids, room in zip(taught, told, rooms, strict=True):
            check_context(model, fact, len(ids) + room)
        watched = [canonical(model, fact) for fact in facts[:WATCHED]]
        generator = torch.Generator().manual_seed(self.seed)
        stated: list[list[bool]] = []

        def before_step(step: int) -> None:
            stated.append([])
            if self.teacher == "ema":  # still the student itself before the first step
                follow_slowly(teacher, model, self.ema)
            if self.exposure == "adaptive" and step % HOLD == 0:
                with torch.no_grad(), model.compute():
                    nll = target_nll(model, watched)[0].item()
                if not math.isfinite(nll):
                    raise NotFiniteError(f"the nll of the targets became {nll}")
                exposure.update((step + 1) / self.steps(len(taught)), nll)

        def loss_of(batch: list[int]) -> tuple[torch.Tensor, int]:
            rows = [i for i in batch for _ in range(self.rollouts)]
            room = max(rooms[i] for i in batch)
            texts = model.generate_ids(
                [naive[i] for i in rows], room, generator=generator, temperature=self.temperature
            )
            # a rollout that ended by itself ended with this token, which is a choice to learn from too
            texts = [
                y + model.closing_ids(taught[i].form) if len(y) < rooms[i] else y[: rooms[i]]
                for i, y in zip(rows, texts, strict=True)
            ]
            right = [
                contains(model.decode(y), taught[i].answers)
                for i, y in zip(rows, texts, strict=True)
            ]
            stated[-1].extend(right)
            if self.verified and any(right):
                rows, texts = list(compress(rows, right)), list(compress(texts, right))
            lengths = [len(y) for y in texts]
            read = torch.rand(len(rows), generator=generator) < exposure.share
            with torch.no_grad():
                shown = [
                    (told[i] if it else naive[i]) + y
                    for i, y, it in zip(rows, texts, read, strict=True)
                ]
                teacher_NV = teacher.logits(label_states(teacher, shown, lengths))
            student_NV = model.logits(
                label_states(
                    model, [naive[i] + y for i, y in zip(rows, texts, strict=True)], lengths
                )
            )
            return divergence(teacher_NV, student_NV, self.top_k, self.divergence), sum(lengths)

        changes, log = train(self, model, len(taught), loss_of, list(map(len, naive)), before_step)
        if (
            self.exposure != 1
        ):  # then a loss says first of all how many of its rollouts' teachers had read the fact
            log["warnings"] = []
        # the share of the rollouts that state their fact: an on-policy method sees its own progress
        seen = (
            {"stated_at_first": fmean(stated[0]), "stated_at_last": fmean(stated[-1])}
            if stated
            else {}
        )
        return self.edit(model, facts, changes, diagnostics={**log, **seen, **exposure.report()})


@torch.no_grad()
def follow_slowly(teacher: LanguageModel, student: LanguageModel, ema: float) -> None:
    """theta_T <- ema theta_T + (1 - ema) theta."""
    for mine, other in zip(teacher.model.parameters(), student.model.parameters(), strict=True):
        mine.lerp_(other.detach(), 1 - ema)


def frozen_copy(model: LanguageModel) -> LanguageModel:
    """A second handle on a copy of the weights as they are now."""
    return LanguageModel(
        deepcopy(model.model).requires_grad_(False),
        model.tokenizer,
        name=model.name,
        precision=model.precision,
    )
