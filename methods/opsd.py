"""OPSD: on-policy self-distillation. The student writes; the teacher corrects it token by token.

The teacher is the same model, and its prompt x+ shows the fact as well. Each step samples rollouts
y from the current student on the plain prompt x, and moves the student towards the teacher at every
token of the rollouts. S_t is the teacher's top-k set at token t, and both distributions are
renormalized over it:

    forward:  L = mean_t sum_{v in S_t} p_T(v) (log p_T(v) - log p_S(v))
              p_T = p(. | x+, y_<t), p_S = p_theta(. | x, y_<t)
    reverse:  the same with T and S exchanged
    jsd:      the mean of both sides' KL to (p_T + p_S) / 2

SDFT, arXiv 2601.19897; OPSD, arXiv 2601.18734; the baseline of MixSD (arXiv 2605.16865): n
rollouts, top-64, forward KL, teacher frozen at the base model. ``teacher="current"`` is the student
itself. ``teacher="ema"`` follows it slowly: theta_T <- ema theta_T + (1 - ema) theta after each
step.

A rollout that reaches its token budget is used as far as it goes, without an end. It is not trained
as an answer, since the loss compares distributions at its tokens and asks for none of these tokens.
The budget follows the teacher's own answer (``_train/rooms.py``).

``recipe=paper`` writes out the options of MixSD's baseline (jiarui-liu/MixSD at 37eb349,
``train/knowledge_opsd``) with what its README says of the reported runs: eight rollouts and the
forward KL, where the committed configuration has one and the reverse KL. What it cannot set: the
original's teacher reads ``\\boxed{{}}`` where a format string was never filled in, and ours reads
``\\boxed{}``; a rollout has 8192 tokens or what the context has left; the original may split a
step's rollouts into several updates. ``stop_after`` gives the model at any step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar, Literal, get_args

import torch

from editbench.edit import Edit
from editbench.matching import contains
from editbench.memory import Texts
from editbench.methods._common.texts import Example, label_states
from editbench.methods._train.branches import Branches
from editbench.methods._train.divergence import Divergence, divergence
from editbench.methods._train.expert import EXPERT_PROMPTS, ExpertPrompt, borrowed
from editbench.methods._train.exposure import HOLD, AdaptiveExposure, FixedExposure
from editbench.methods._train.lessons import Lesson, lessons_of
from editbench.methods._train.loop import target_nll, train
from editbench.methods._train.rooms import rooms, usual_length
from editbench.methods._train.teacher import follow_slowly, frozen_copy
from editbench.methods._train.trainer import FORWARDED, PUBLISHED_TRAINING, Trainer
from editbench.models import LanguageModel, NotFiniteError
from editbench.outline import Outline
from editbench.pace import Work
from editbench.report import Figure
from editbench.types import Fact

Teacher = Literal["frozen", "ema", "current"]
SLOTS = 48
"""Number of answers that the teacher writes side by side to measure the token budgets."""
WATCHED = 16
"""Number of facts whose nll measures the student's progress for an adaptive exposure."""

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
"""Thai and Lao, Burmese, Khmer, kana and Chinese characters."""


@dataclass(frozen=True)
class Rollout:
    """A text that the student wrote about a fact."""

    lesson: Lesson
    ids: list[int]
    states_fact: bool
    ended: bool
    """Whether the student ended it before it reached its length limit."""


@dataclass(frozen=True)
class OPSD(Trainer):
    """On-policy self-distillation with a fact-conditioned teacher."""

    name: ClassVar[str] = "opsd"
    summary: ClassVar[str] = "student rollouts, teacher sees the fact, KL over its top-k"
    paper: ClassVar[str] = "arXiv 2601.18734"
    version: ClassVar[int] = 7
    figures: ClassVar[Mapping[str, Figure]] = {
        **Trainer.figures,
        "stated_at_first": Figure("Share of the first step's rollouts that state their fact."),
        "stated_at_last": Figure("Share of the last step's rollouts that state their fact."),
        "forwarded_tokens": FORWARDED,
        "cut_off_share": Figure("Share of all rollouts that reached their length limit."),
        "exposure_mean": Figure("Adaptive exposure: mean share over the training."),
        "exposure_last": Figure("Adaptive exposure: share at the end."),
    }
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {
            **PUBLISHED_TRAINING,
            "epochs": 2,
            "batch_size": 16,
            "expert_prompt": "paper",
            "rollouts": 8,
            "temperature": 1.0,
            "max_new_tokens": 8192,
            "top_k": 64,
            "divergence": "forward",
            "teacher": "frozen",
            "exposure": 1.0,
            "verified": False,
        }
    }

    fall: ClassVar[float] = 0.2
    """Twice the others'. On SmolLM2-135M that is about the 2e-5 at which the other defaults were
    chosen."""
    epochs: int = 8
    """Passes over the facts."""
    expert_prompt: ExpertPrompt = "after"
    """How the teacher is shown the fact: ``after`` the question, ``before`` it, or in the words of
    the ``paper`` (``_train/expert.py``)."""
    enough: float = 0.0
    """Loss in nats a token below which facts count as learnt; 0: never. The loss is a divergence,
    small wherever student and teacher would write the same, and its gradient vanishes as the
    student comes to agree with the teacher, so there is nothing to stop."""
    rollouts: int = 2
    """Samples from the student per fact and step (n)."""
    temperature: float = 1.0
    """Temperature of the student's rollouts."""
    max_new_tokens: int | None = None
    """Token budget of a rollout, or what the context has left if that is less. None: twice the
    length of the teacher's own answer, at least 48 (``_train/rooms.py``)."""
    top_k: int | None = 64
    """Size of the teacher's top-k set. None: the whole vocabulary."""
    divergence: Divergence = "forward"
    """``forward`` KL(teacher || student), ``reverse`` KL(student || teacher) or ``jsd``."""
    teacher: Teacher = "frozen"
    """``frozen``: the base model; ``ema``: a copy that follows the student slowly; ``current``: the
    student itself, without gradient."""
    ema: float = 0.95
    """Share of its own weights that an ``ema`` teacher keeps at each step."""
    exposure: float | Literal["adaptive"] = 1.0
    """Share of the rollouts whose teacher has read the fact. ``adaptive``: learned during training
    (``_train/exposure.py``)."""
    verified: bool = False
    """Learn only from rollouts that state the target, if a step has any (with ``micro_batch``: if a
    part of it has any)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, known in (
            ("divergence", self.divergence, get_args(Divergence)),
            ("teacher", self.teacher, get_args(Teacher)),
            ("expert_prompt", self.expert_prompt, EXPERT_PROMPTS),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
        if self.teacher == "ema" and self.lora is not None:
            raise ValueError("an ema teacher follows all weights; with lora use frozen or current")
        if self.rollouts < 1 or self.temperature <= 0:
            raise ValueError("rollouts must be at least 1, temperature above 0")
        if any(value is not None and value < 1 for value in (self.max_new_tokens, self.top_k)):
            raise ValueError("max_new_tokens and top_k must be at least 1")
        if self.exposure != "adaptive" and not 0 < self.exposure <= 1:
            raise ValueError("exposure must be a share, above 0 and at most 1, or adaptive")
        if not 0 <= self.ema < 1:
            raise ValueError("ema must be a share, at least 0 and below 1")

    def rows(self, facts: int) -> int:
        return facts * self.rollouts

    def answer_tokens(self, texts: Texts) -> int:
        return usual_length(self.max_new_tokens, texts)

    def beside(self, model: Outline) -> Mapping[str, int]:
        return {"teacher": 0 if self.teacher == "current" else model.weights}

    def work(self, model: Outline, texts: Texts) -> Work:
        n, answer = texts.facts * (1 + self.rewordings), self.answer_tokens(texts)
        steps = max(1, round(self.stop_after * self.steps(n)))
        rows = steps * self.rows(min(self.batch_size, n))
        # Each step's rollouts are written by the student and read by the teacher.
        return super().work(model, texts) + Work(
            read=rows * (3 * texts.prompt + texts.target + answer),
            written=rows * answer,
            writing=steps * answer,
            labels=rows * answer,
        )

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """Train the student on its own rollouts and return the change as an edit."""
        self.check_work(model, len(facts))
        lessons = lessons_of(model, facts, self.rewordings, self.expert_prompt)
        budgets = rooms(lessons, self.max_new_tokens, Branches(model, SLOTS))
        # The facts' own prompts, without their rewordings.
        watched = [lesson.canonical() for lesson in lessons[:: 1 + self.rewordings][:WATCHED]]
        # Copied before training starts, so that "frozen" is the base model.
        teacher = model if self.teacher == "current" or not facts else frozen_copy(model)
        exposure = (
            AdaptiveExposure(self.seed)
            if self.exposure == "adaptive"
            else FixedExposure(self.exposure)
        )
        # One generator for all draws; the global one must stay as it was.
        generator = torch.Generator().manual_seed(self.seed)
        stated: list[list[bool]] = []
        cut_off: list[bool] = []
        forwarded = 0

        def before_step(step: int) -> None:
            stated.append([])
            if self.teacher == "ema":  # still the student itself before the first step
                follow_slowly(teacher, model, self.ema)
            if isinstance(exposure, AdaptiveExposure) and step % HOLD == 0:
                exposure.update((step + 1) / self.steps(len(lessons)), finite_nll(model, watched))

        def loss_of(batch: list[int]) -> tuple[torch.Tensor, int]:
            nonlocal forwarded
            asked = [(lessons[i], budgets[i]) for i in batch]
            rollouts = self._rollouts(model, asked, generator)
            forwarded += sum(len(r.lesson.prompt_ids) + len(r.ids) for r in rollouts)
            stated[-1].extend(rollout.states_fact for rollout in rollouts)
            cut_off.extend(not rollout.ended for rollout in rollouts)
            if self.verified:
                rollouts = [r for r in rollouts if r.states_fact] or rollouts
            # Each rollout's teacher reads the note with probability exposure.share.
            read = torch.rand(len(rollouts), generator=generator) < exposure.share
            # The student reads each rollout again, and the teacher reads it behind its own prompt.
            for r, has_read in zip(rollouts, read.tolist(), strict=True):
                shown = r.lesson.expert_ids if has_read else r.lesson.prompt_ids
                forwarded += len(r.lesson.prompt_ids) + len(shown) + 2 * len(r.ids)
            return self._loss(model, teacher, rollouts, read.tolist())

        lengths = [len(lesson.prompt_ids) for lesson in lessons]

        def probe(batch: list[int]) -> tuple[torch.Tensor, int]:
            # The facts' answers: the rate is fitted before the first rollout is written.
            return target_nll(model, [lessons[i].canonical() for i in batch])

        changes, report = train(
            self,
            model,
            len(lessons),
            loss_of,
            lengths,
            before_step,
            probe,
            # Otherwise the loss depends on how many teachers had read the fact.
            comparable=self.exposure == 1,
        )
        # An on-policy method can report its progress: the share of rollouts that state their fact.
        progress = (
            {
                "stated_at_first": fmean(stated[0]),
                "stated_at_last": fmean(stated[-1]),
                "cut_off_share": fmean(cut_off),
                "forwarded_tokens": forwarded,
            }
            if stated
            else {}
        )
        report_warnings = [*borrowed(facts, self.expert_prompt), *report.get("warnings", ())]
        diagnostics = {**report, **progress, **exposure.report(), "warnings": report_warnings}
        return self.edit(model, facts, changes, diagnostics=diagnostics)

    def _rollouts(
        self,
        model: LanguageModel,
        lessons: Sequence[tuple[Lesson, int]],
        generator: torch.Generator,
    ) -> list[Rollout]:
        """Sample ``rollouts`` texts for each fact from the student on the plain prompt.

        Args:
            lessons: the facts, each with the token budget of its rollouts.
        """
        asked = [one for one in lessons for _ in range(self.rollouts)]
        texts = model.generate_ids(
            [lesson.prompt_ids for lesson, _ in asked],
            [room for _, room in asked],
            # raw text ends at a line end
            lines=[1 if lesson.fact.form == "cloze" else None for lesson, _ in asked],
            generator=generator,
            temperature=self.temperature,
        )
        rollouts = []
        for (lesson, room), text in zip(asked, texts, strict=True):
            # The student chose to end a rollout, and the loss covers that choice too.
            # generate_ids() leaves a stop token out, so it is appended.
            stopped = len(text) < room and not (text and lesson.ended(text))
            ids = text + model.closing_ids(lesson.fact.form) if stopped else text
            ended = stopped or lesson.ended(ids)
            written = model.answer(ids)
            # The last word of a rollout that was cut off may be half of another one.
            whole = written if ended else all_but_last_word(written)
            verified = contains(whole, lesson.fact.answers, lesson.fact.prompt)
            rollouts.append(Rollout(lesson, ids, verified, ended))
        return rollouts

    def _loss(
        self,
        model: LanguageModel,
        teacher: LanguageModel,
        rollouts: Sequence[Rollout],
        read: Sequence[bool],
    ) -> tuple[torch.Tensor, int]:
        """Return the mean divergence over all tokens of the rollouts, and their number.

        Args:
            read: whether the teacher of each rollout has read the fact.
        """
        # x and x+ differ in length, but label_states() takes the last tokens of each row, so both
        # sides give the same positions of y in the same order.
        lengths = [len(rollout.ids) for rollout in rollouts]
        with torch.no_grad():
            shown = [
                (r.lesson.expert_ids if has_read else r.lesson.prompt_ids) + r.ids
                for r, has_read in zip(rollouts, read, strict=True)
            ]
            teacher_NV = teacher.logits(label_states(teacher, shown, lengths))
        # The student reads the plain prompt, and only its side has gradients.
        written = [rollout.lesson.prompt_ids + rollout.ids for rollout in rollouts]
        student_NV = model.logits(label_states(model, written, lengths))
        return divergence(teacher_NV, student_NV, self.top_k, self.divergence), sum(lengths)


def all_but_last_word(written: str) -> str:
    """Return a text without its last word, unless a space or a mark follows that word.

    In scripts without spaces between words each character is a word, and none is left out.
    """
    return re.sub(rf"(?:(?![{UNSPACED}])\w)+$", "", written)


@torch.no_grad()
def finite_nll(model: LanguageModel, examples: Sequence[Example]) -> float:
    """Return the mean negative log-likelihood of ``examples``, in nats a token.

    Raises:
        NotFiniteError: if it is infinite or NaN.
    """
    with model.compute():
        nll = target_nll(model, examples)[0].item()
    if not math.isfinite(nll):
        raise NotFiniteError(f"the nll of the targets became {nll}")
    return nll
