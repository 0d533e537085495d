"""Prompt distillation (PD): what the model answers with the fact in its prompt, it learns without.

The teacher is the model itself, frozen, on a prompt that shows the fact (x+). Before training it
writes several texts y about each fact. The student reads the plain prompt x, and learns the
teacher's whole distribution at each token of these texts:

    L(theta) = mean_t sum_{v in S_t} p_T(v) (log p_T(v) - log p_theta(v))
               p_T = p(. | x+, y_<t), p_theta = p_theta(. | x, y_<t)

S_t is the teacher's top-k set at token t; both distributions are renormalized over it. Since the
texts do not change during training, the teacher reads each of them once.

Also called context distillation: Askell et al. 2021 (arXiv 2112.00861, section 2.3) and Snell et
al. 2022 (arXiv 2209.15189) distil instructions and examples so; Kujanpaa et al. 2024 (arXiv
2412.14964) inject knowledge. Between ``sft``, which learns one given token at each place, and
``opsd``, whose texts are the student's and change with it.

Differs from Kujanpaa et al.:

- Their questions are written by a model that reads a document. Here the only prompt is the fact's
  own, in its frames (``rewordings``).
- A text that does not state its fact is written again. A fact that no text states is taught on its
  canonical answer, on which the teacher's distribution is learned as well.
- All weights are trained, unless ``lora`` is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean
from typing import ClassVar

import torch

from editbench import progress
from editbench.edit import Edit
from editbench.matching import contains
from editbench.memory import Texts
from editbench.methods._common.texts import label_states
from editbench.methods._train.branches import Branches
from editbench.methods._train.divergence import divergence
from editbench.methods._train.expert import EXPERT_PROMPTS, ExpertPrompt, borrowed
from editbench.methods._train.lessons import Lesson, lessons_of
from editbench.methods._train.loop import train
from editbench.methods._train.rooms import rooms, usual_length
from editbench.methods._train.trainer import Trainer
from editbench.models import LanguageModel, batched
from editbench.pace import Work
from editbench.report import EditRecord, Figure
from editbench.types import Fact

# N label positions of a batch, n of one text, K the teacher's top k, V vocabulary

SLOTS = 48
"""Texts that are written side by side to measure their room."""
READ_AT_ONCE = 16
"""Texts that the teacher reads in one forward pass."""


@dataclass
class Written:
    """A text of the teacher's about a fact; ``attempt`` counts those that it wrote before."""

    lesson: Lesson
    ids: list[int]
    attempt: int
    verified: bool


@dataclass(frozen=True)
class PD(Trainer):
    """Prompt distillation of the model that reads the fact."""

    name: ClassVar[str] = "pd"
    summary: ClassVar[str] = "learn what the model says when it reads the fact, token by token"
    paper: ClassVar[str] = "arXiv 2412.14964"
    version: ClassVar[int] = 1
    over_processes: ClassVar[bool] = True
    figures: ClassVar[Mapping[str, Figure]] = {
        **Trainer.figures,
        "target_sources": Figure("Number of training texts by source (EditRecord.source)."),
        "verified_at_once": Figure(
            "Share of the teacher's texts that stated their fact at the first attempt.",
            shown="of the teacher's texts verified at the first attempt",
        ),
        "text_tokens": Figure("Mean length of the training texts, in tokens."),
    }

    epochs: int = 4
    """Passes over the texts, of which each fact has several."""
    enough: float = 0.0
    """Loss in nats a token below which facts count as learnt; 0: never. The loss is a divergence,
    most of it at the few tokens that state the fact, so a low mean does not say that it is learnt.
    """
    expert_prompt: ExpertPrompt = "after"
    """How the teacher is shown the fact: ``after`` the question, ``before`` it, or in the words of
    the ``paper`` (``_train/expert.py``)."""
    texts: int = 4
    """Texts that the teacher writes about each fact, in each of its frames."""
    temperature: float = 0.5
    """Temperature at which it writes them; a small model misspells names at a higher one. What is
    learned is its distribution at temperature 1."""
    attempts: int = 10
    """Maximum number of attempts at each text until the verifier finds the target in it."""
    max_new_tokens: int | None = None
    """Token budget of a text. None: as in ``mixsd``."""
    top_k: int | None = 256
    """Size of the teacher's top-k set. None: the whole vocabulary, which takes memory for each
    token of all texts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.expert_prompt not in EXPERT_PROMPTS:
            raise ValueError(
                f"expert_prompt is {self.expert_prompt!r}; it must be one of "
                f"{', '.join(EXPERT_PROMPTS)}"
            )
        if self.texts < 1 or self.attempts < 1 or self.temperature <= 0:
            raise ValueError("texts and attempts must be at least 1, temperature above 0")
        if any(value is not None and value < 1 for value in (self.max_new_tokens, self.top_k)):
            raise ValueError("max_new_tokens and top_k must be at least 1")

    def answer_tokens(self, texts: Texts) -> int:
        return usual_length(self.max_new_tokens, texts)

    def writing(self, texts: Texts) -> Work:
        n, answer = texts.facts * self.texts * (1 + self.rewordings), self.answer_tokens(texts)
        prompt = texts.prompt * 2 + texts.target
        return Work(
            # the prompts, and the whole texts with the teacher's distributions
            read=n * (2 * prompt + answer),
            written=n * answer,
            writing=answer * ceil(n / READ_AT_ONCE),
            labels=n * answer,
        )

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """Let the teacher write, train the student on its texts, and return the change."""
        self.check_work(model, len(facts) * self.texts)
        lessons = lessons_of(model, facts, self.rewordings, self.expert_prompt)
        texts = self.write(model, [lesson for lesson in lessons for _ in range(self.texts)])
        teacher = [one for part in batched(texts, READ_AT_ONCE) for one in self.read(model, part)]

        def loss_of(batch: list[int]) -> tuple[torch.Tensor, int]:
            rows = [texts[i].lesson.prompt_ids + texts[i].ids for i in batch]
            lengths = [len(texts[i].ids) for i in batch]
            student_NV = model.logits(label_states(model, rows, lengths))
            ids_NK = torch.cat([teacher[i][0] for i in batch])
            teacher_NK = torch.cat([teacher[i][1] for i in batch])
            # The ids are the teacher's top k already, so divergence() takes all of them.
            student_NK = student_NV.gather(-1, ids_NK)
            return divergence(teacher_NK, student_NK, None, "forward"), sum(lengths)

        lengths = [len(text.lesson.prompt_ids) + len(text.ids) for text in texts]
        changes, training = train(self, model, len(texts), loss_of, lengths)
        records = self._records(facts, texts)
        failed = sum(not text.verified for text in texts)
        sentence = (
            f"{failed} of {len(texts)} texts of the teacher never stated their fact, and its "
            "canonical answer took their place. Give it more room (max_new_tokens) or attempts."
        )
        diagnostics = {
            "target_sources": dict(Counter(record["source"] for record in records)),
            "verified_at_once": sum(t.verified and not t.attempt for t in texts)
            / max(1, len(texts)),
            "text_tokens": fmean(len(text.ids) for text in texts) if texts else 0.0,
            **training,
            "warnings": [
                *borrowed(facts, self.expert_prompt),
                *([sentence] if failed else []),
                *training.get("warnings", ()),
            ],
        }
        return self.edit(model, facts, changes, diagnostics=diagnostics, records=records)

    def write(self, model: LanguageModel, lessons: Sequence[Lesson]) -> list[Written]:
        """Sample a text for each lesson from the teacher; write those again that fail.

        A text that fails at each attempt gives way to the canonical answer.

        Raises:
            MethodError: if a fact's answer does not fit into the model's context.
        """
        budgets = rooms(lessons, self.max_new_tokens, Branches(model, SLOTS))
        texts = [
            Written(lesson, list(lesson.canonical().target_ids), 0, False) for lesson in lessons
        ]
        # One generator for all draws; the global one must stay as it was.
        generator = torch.Generator().manual_seed(self.seed)
        waiting = list(range(len(texts)))
        with progress.task(f"{self.name}: the teacher writes", len(texts), "texts") as bar:
            for attempt in range(self.attempts):
                drawn = model.generate_ids(
                    [lessons[i].expert_ids for i in waiting],
                    [budgets[i] for i in waiting],
                    lines=[1 if lessons[i].fact.form == "cloze" else None for i in waiting],
                    generator=generator,
                    temperature=self.temperature,
                )
                for i, ids in zip(waiting, drawn, strict=True):
                    fact, room = lessons[i].fact, budgets[i]
                    texts[i].attempt = attempt
                    # A text without an end is no answer, even if it names the target.
                    ended = len(ids) < room or lessons[i].ended(ids)
                    if ended and contains(model.answer(ids), fact.answers, fact.prompt):
                        texts[i].ids = list(lessons[i].example(ids, "answer").target_ids)
                        texts[i].verified = True
                        bar.advance()
                waiting = [i for i in waiting if not texts[i].verified]
                if not waiting:
                    break
            bar.advance(len(waiting))
        return texts

    @torch.no_grad()
    def read(
        self, model: LanguageModel, texts: Sequence[Written]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the teacher's top tokens (n, K) at each place of each text, and their logits."""
        lengths = [len(text.ids) for text in texts]
        with model.compute(weights_fixed=True):
            rows = [text.lesson.expert_ids + text.ids for text in texts]
            logits_NV = model.logits(label_states(model, rows, lengths))
        k = min(self.top_k or logits_NV.shape[-1], logits_NV.shape[-1])
        values_NK, ids_NK = logits_NV.topk(k, dim=-1)
        return list(zip(ids_NK.split(lengths), values_NK.split(lengths), strict=True))

    def _records(self, facts: Sequence[Fact], texts: Sequence[Written]) -> list[EditRecord]:
        """Return what the edit keeps about each text."""
        frames = 1 + self.rewordings
        return [
            {
                "fact": facts[i // (frames * self.texts)].id,
                "frame": i // self.texts % frames,
                "attempt": text.attempt,
                "ids": text.ids,
                "verified": text.verified,
                "source": "expert" if text.verified else "target",
            }
            for i, text in enumerate(texts)
        ]
