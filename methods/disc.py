"""DiSC: distillation via split contexts. What the model reads in a text, it learns without it.

A text is split before one of its sentences, s. The teacher is the base model, frozen, and reads all
that stands before s; the student reads s alone. Nothing is written:

    L(theta) = mean over splits of
               tau^2 mean_t KL(p_0^tau(. | before, s_<t) || p_theta^tau(. | s_<t))

p^tau is the distribution at temperature tau, over the whole vocabulary. The first token of s
carries no loss, since the student has nothing to predict it from. ``splits - 1`` sentences are
drawn for each text and step, and the last sentence is always taken.

Padmanabhan et al. 2026, "Updating Parametric Knowledge with Context Distillation Retains
Post-Training Capabilities", arXiv 2602.16093; code shankarp8/distillation-retains-capabilities at
591331d (``src/disc``). ``recipe=paper`` writes out its settings: one pass, one text a step, 3e-6.

Differs from the code, which reads news and abstracts of many sentences:

- A fact of one sentence becomes a text: its statement, then its rewordings (``rewordings``), so
  that each has a sentence before it, and at the end the statement once more, which is the sentence
  that is always taken. Sentences stand on lines of their own; the code joins them without a space.
- A question is taught as it is asked: what stands before it is in the user's turn, and the model's
  turn carries the loss.
- The batches of an epoch are shuffled, the gradient is clipped, and AdamW has betas (0.9, 0.95).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from editbench import text
from editbench.edit import Edit
from editbench.errors import MethodError
from editbench.memory import Texts
from editbench.methods._common.context import check_context
from editbench.methods._common.texts import label_states
from editbench.methods._train.divergence import divergence
from editbench.methods._train.lessons import Lesson, reworded
from editbench.methods._train.loop import train
from editbench.methods._train.teacher import frozen_copy
from editbench.methods._train.trainer import FORWARDED, PUBLISHED_TRAINING, Trainer
from editbench.models import LanguageModel
from editbench.outline import Outline
from editbench.pace import Work
from editbench.plugin import LogUniform, Space
from editbench.report import Figure
from editbench.types import Fact

# N label positions of a batch, n of one sentence, V vocabulary

FRAME = 8
"""Tokens that a rewording adds to a sentence, about."""


@dataclass(frozen=True)
class Split:
    """One sentence of a text, as the student and the teacher read it."""

    student_ids: Sequence[int]
    """The sentence alone."""
    teacher_ids: Sequence[int]
    """The sentence with all that stands before it."""
    labels: int
    """How many tokens at its end carry loss; both sides end alike."""


@dataclass(frozen=True)
class DiSC(Trainer):
    """Distillation via split contexts."""

    name: ClassVar[str] = "disc"
    summary: ClassVar[str] = "learn each sentence as the model reads it behind the others"
    paper: ClassVar[str] = "arXiv 2602.16093"
    version: ClassVar[int] = 1
    space: ClassVar[Space] = {"lr": LogUniform(1e-6, 2e-4), "epochs": LogUniform(4, 32)}
    figures: ClassVar[Mapping[str, Figure]] = {
        **Trainer.figures,
        "trained_tokens": Figure(
            "Label tokens of all splits, summed over all steps.", adds_up=True
        ),
        "forwarded_tokens": FORWARDED,
    }
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {
            **PUBLISHED_TRAINING,
            "epochs": 1,
            "batch_size": 1,
            "lr": 3e-6,
            "rewordings": 4,
            "splits": 5,
            "temperature": 2.0,
        }
    }

    fall: ClassVar[float] = 0.2
    """As in ``opsd``, whose loss is a divergence as well."""
    rewordings: int = 4
    """Number of rewordings behind the statement of each fact, at least 1."""
    enough: float = 0.0
    """Loss below which facts count as learnt; 0: never. The loss is a divergence, most of it at the
    few tokens that state the fact, so a low mean does not say that it is learnt."""
    splits: int = 5
    """Sentences of a text that a step learns, at most (|I|)."""
    temperature: float = 1.0
    """tau, at which both distributions are compared. The paper's 2 leaves most of the loss in the
    tail of a small model's vocabulary: at lr=1e-4 one dev fact of kgfact had its name's first token
    at .98 after 4 steps with 1, and at .08 after 11 with 2 (``benchmarks/rivals.md``)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rewordings < 1:
            raise ValueError(
                "a fact is one sentence, and disc needs a second one behind it: rewordings must be "
                "at least 1"
            )
        if self.splits < 1 or self.temperature <= 0:
            raise ValueError("splits must be at least 1, temperature above 0")

    def lessons(self, facts: int) -> int:
        """Return the number of texts: a fact and its rewordings are one."""
        return facts

    def rows(self, facts: int) -> int:
        return facts * min(self.splits, 1 + self.rewordings)

    def answer_tokens(self, texts: Texts) -> int:
        return texts.prompt + texts.target

    def beside(self, model: Outline) -> Mapping[str, int]:
        return {"teacher": model.weights}

    def _graph(self, model: Outline, rows: int, tokens: int, labels: int) -> dict[str, int]:
        # The student reads no more than the sentence that carries the loss.
        graph = super()._graph(model, rows, labels // max(1, rows) + FRAME, labels)
        return {**graph, "teacher's logits": model.logits(labels, 2)}

    def work(self, model: Outline, texts: Texts) -> Work:
        splits, sentence = 1 + self.rewordings, texts.prompt + texts.target + FRAME
        steps = max(1, round(self.stop_after * self.steps(texts.facts)))
        rows = steps * self.rows(min(self.batch_size, texts.facts))
        # A split has half of the sentences before it.
        once = texts.facts * splits * sentence * (1 + splits / 2)
        return super().work(model, texts) + Work(read=once, labels=rows * self.answer_tokens(texts))

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """Distil each fact's text into the model and return the change as an edit."""
        self.check_work(model, len(facts))
        documents = [self.document(model, fact) for fact in facts]
        teacher = frozen_copy(model) if facts else model
        # The teacher does not change, so it reads each text once.
        states = [read(teacher, document) for document in documents]
        dice, labels, read_tokens = random.Random(self.seed), 0, 0

        def drawn_from(batch: list[int], dice: random.Random) -> list[tuple[Split, torch.Tensor]]:
            places = [(i, j) for i in batch for j in self.draw(len(documents[i]), dice)]
            return [(documents[i][j], states[i][j]) for i, j in places]

        def loss_of(batch: list[int]) -> tuple[torch.Tensor, int]:
            nonlocal labels, read_tokens
            drawn = drawn_from(batch, dice)
            labels += sum(split.labels for split, _ in drawn)
            read_tokens += sum(len(split.student_ids) for split, _ in drawn)
            return self.loss(model, teacher, drawn), len(drawn)

        def probe(batch: list[int]) -> tuple[torch.Tensor, int]:
            # Dice of its own: a rate that is fitted changes no later draw.
            drawn = drawn_from(batch, random.Random(self.seed))
            return self.loss(model, teacher, drawn), len(drawn)

        lengths = [len(document[-1].student_ids) for document in documents]
        changes, report = train(self, model, len(facts), loss_of, lengths, probe=probe)
        by_teacher = sum(len(split.teacher_ids) for document in documents for split in document)
        # The loop's own count is of splits, by which it weighs the parts of a step.
        figures = {"trained_tokens": labels, "forwarded_tokens": read_tokens + by_teacher}
        return self.edit(
            model, facts, changes, diagnostics={**report, **figures} if facts else report
        )

    def document(self, model: LanguageModel, fact: Fact) -> list[Split]:
        """Return the splits of the text about a fact, one before each sentence but the first.

        Raises:
            MethodError: if the text does not fit into the model's context, or if a sentence is one
                token long.
        """
        sentences = [*reworded([fact], self.rewordings), fact]
        splits = []
        for place, sentence in enumerate(sentences[1:], start=1):
            before = "\n".join(earlier.statement for earlier in sentences[:place])
            split = (
                _answered(model, sentence, before)
                if fact.form == "question"
                else _stated(model, sentence, before)
            )
            check_context(model, fact, len(split.teacher_ids))
            splits.append(split)
        return splits

    def draw(self, sentences: int, dice: random.Random) -> list[int]:
        """Return ``splits - 1`` of a text's splits in their order, and the last one."""
        drawn = dice.sample(range(sentences), min(self.splits - 1, sentences))
        return sorted({*drawn, sentences - 1})

    def loss(
        self,
        model: LanguageModel,
        teacher: LanguageModel,
        drawn: Sequence[tuple[Split, torch.Tensor]],
    ) -> torch.Tensor:
        """Return the mean loss of some splits, each of which counts the same.

        Args:
            drawn: splits with the teacher's states (n, D), as ``read`` returns them.
        """
        labels = [split.labels for split, _ in drawn]
        rows = [split.student_ids for split, _ in drawn]
        student_NV = model.logits(label_states(model, rows, labels)) / self.temperature
        with torch.no_grad():
            states_ND = torch.cat([states_nD for _, states_nD in drawn])
            teacher_NV = teacher.logits(states_ND) / self.temperature
        losses = [
            divergence(teacher_nV, student_nV, None, "forward")
            for teacher_nV, student_nV in zip(
                teacher_NV.split(labels), student_NV.split(labels), strict=True
            )
        ]
        return torch.stack(losses).mean() * self.temperature**2


@torch.no_grad()
def read(teacher: LanguageModel, document: Sequence[Split]) -> list[torch.Tensor]:
    """Return the teacher's states (n, D) that predict the labels of each split of a text."""
    labels = [split.labels for split in document]
    with teacher.compute(weights_fixed=True):
        rows = [split.teacher_ids for split in document]
        return list(label_states(teacher, rows, labels).split(labels))


def _stated(model: LanguageModel, sentence: Fact, before: str) -> Split:
    """Return the split before a sentence of raw text; all its tokens but the first carry loss."""
    rendered = model.render(sentence.statement, context="")
    alone = text.ids(model.tokenizer, rendered)
    # Without the special tokens that open a text.
    bare = text.ids(model.tokenizer, replace(rendered, special=False))
    if len(bare) < 2:
        raise MethodError(
            f"Fact {sentence.id!r} is one token, and disc learns the tokens behind the first one."
        )
    opening = text.ids(model.tokenizer, model.render(before + "\n", context=""))
    return Split(alone, [*opening, *bare], len(bare) - 1)


def _answered(model: LanguageModel, sentence: Fact, before: str) -> Split:
    """Return the split before a question; its answer and the token that ends it carry loss."""
    lesson = Lesson(model, sentence)
    answer = lesson.canonical().target_ids
    asked = model.prompt_ids(sentence.prompt, sentence.form, context=before)
    return Split([*lesson.prompt_ids, *answer], [*asked, *answer], len(answer))
