"""The verdict on an injection: were the facts taught, and is the model still whole?

The model is asked the prompt of each fact before and after, as ``compare`` asks for efficacy, and
how perplexing text is to it that it wrote before the edit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch

from editbench import progress
from editbench.asking import Question, answers
from editbench.edit import Edit
from editbench.errors import ModelError, listed
from editbench.files import ANSWERS, replacing
from editbench.matching import contains
from editbench.models import LanguageModel
from editbench.own_text import own_texts
from editbench.run.baseline import OWN_TEXT_LENGTH, OWN_TEXT_TOKENS
from editbench.run.collapse import COLLAPSE_GROWTH, COLLAPSE_PERPLEXITY
from editbench.run.life import questions_of
from editbench.stack import parts_of
from editbench.types import Case

LIMITS: Mapping[str, float] = {
    "taught": 0.8,
    "perplexity": COLLAPSE_PERPLEXITY,
    "growth": COLLAPSE_GROWTH,
}
"""What an injection must reach, or ``editbench inject`` exits with 1: the least share of facts that
are answered with their target, and what its own text and a weight may grow to, as a multiple of the
base's perplexity and norm. The last two are those at which a sequence of edits is stopped."""
NAMED = 3
"""Facts that the verdict names."""


class Answer(TypedDict):
    """What the model says to the prompt of one fact."""

    fact: str
    prompt: str
    target: str
    before: str
    after: str
    known_before: bool
    """Whether ``before`` has the target."""
    right: bool
    """Whether ``after`` has the target."""


@dataclass(frozen=True)
class Verdict:
    """What an injection did."""

    answers: Sequence[Answer]
    perplexity: float | None
    """Perplexity of text that the base wrote, under the edited model / under the base; ``None``
    where the weights are the base's, or the context is too short for such text."""
    growth: float
    """The largest ratio of the norm of a changed weight to its norm in the base."""
    kept: int = 0
    """Number of facts of the edits below, if there are any, that are answered with their target."""

    @property
    def taught(self) -> int:
        """Number of facts that are answered with their target now."""
        return sum(answer["right"] for answer in self.answers)

    @property
    def known(self) -> int:
        """Number of facts that were answered with their target before."""
        return sum(answer["known_before"] for answer in self.answers)

    def faults(self) -> list[str]:
        """Return a sentence for each of ``LIMITS`` that is missed. NaN misses."""
        n, sentences = len(self.answers), []
        if self.taught < LIMITS["taught"] * n:
            least = math.ceil(LIMITS["taught"] * n)
            needed = f"{least} {'is' if least == 1 else 'are'} needed"
            sentences.append(f"Too few facts were taught: {self.taught} of {n}, and {needed}.")
        if self.perplexity is not None and not self.perplexity < LIMITS["perplexity"]:
            sentences.append(
                f"The edit blew up: the model's own text is {self.perplexity:.3g} times as "
                "perplexing to it as to the base."
            )
        if not self.growth < LIMITS["growth"]:
            sentences.append(
                f"The edit blew up: a weight is {self.growth:.3g} times as large as in the base."
            )
        return sentences

    def missed(self) -> str:
        """Return the facts that are not taught, the first of them by name; empty if all are."""
        return listed((each["fact"] for each in self.answers if not each["right"]), NAMED)

    def write(self, folder: Path) -> Path:
        """Write the answers as JSON lines beside the edit in ``folder``, and return the file."""
        rows = [json.dumps(answer, ensure_ascii=False) + "\n" for answer in self.answers]
        with replacing(folder / ANSWERS) as new:
            new.write_text("".join(rows), encoding="utf-8", errors="replace", newline="\n")
        return folder / ANSWERS


def judge(model: LanguageModel, edit: Edit, cases: Sequence[Case]) -> Verdict:
    """Ask ``model`` with and without ``edit``, which was made for the facts of ``cases``."""
    with progress.task("asking the model before and after"):
        return _judge(model, edit, cases)


def _judge(model: LanguageModel, edit: Edit, cases: Sequence[Case]) -> Verdict:
    questions = [question(case) for case in cases]
    before = answers(model, questions)
    texts = _own_text(model) if edit.changes else []
    base_nll = _nll(model, texts)
    norms = {name: model.weight(name).norm() for name in edit.changes}
    below = [fact for part in parts_of(edit)[:-1] for fact in part.facts]
    with edit.applied(model):
        after = answers(model, questions)
        still = answers(model, list(questions_of(below).values()))
        nll = _nll(model, texts)
        ratios = [
            (model.weight(name).norm() / norm).item() for name, norm in norms.items() if norm > 0
        ]
    said = _compared(cases, before, after)
    # torch's max is NaN as soon as one ratio is.
    growth = torch.tensor(ratios or [1.0]).max().item()
    # math.exp overflows above 709; NaN stays NaN.
    perplexity = math.exp(min(nll - base_nll, 700.0)) if texts else None
    by_prompt = dict(zip(questions_of(below), still, strict=True))
    kept = sum(contains(by_prompt[fact.prompt], fact.answers, fact.prompt) for fact in below)
    return Verdict(said, perplexity, growth, kept)


def judge_removal(
    model: LanguageModel, edit: Edit, left: Edit, gone: Sequence[str]
) -> tuple[Verdict, list[Answer]]:
    """Return the verdict on ``left``, and what the model says to the facts that are ``gone``.

    Args:
        edit: the edit before these facts were taken out; ``before`` is what the model says with it.
        gone: ids of the facts.
    """
    stays = judge(model, left, [Case.build(fact) for fact in parts_of(left)[-1].facts])
    cases = [Case.build(fact) for fact in edit.facts if fact.id in set(gone)]
    questions = [question(case) for case in cases]
    with edit.applied(model, check=False):
        before = answers(model, questions)
    with left.applied(model, check=False):
        after = answers(model, questions)
    return stays, _compared(cases, before, after)


def _compared(cases: Sequence[Case], before: Sequence[str], after: Sequence[str]) -> list[Answer]:
    return [
        Answer(
            fact=case.fact.id,
            prompt=case.fact.prompt,
            target=case.fact.target,
            before=old,
            after=new,
            known_before=contains(old, case.fact.answers, case.fact.prompt),
            right=contains(new, case.fact.answers, case.fact.prompt),
        )
        for case, old, new in zip(cases, before, after, strict=True)
    ]


def question(case: Case) -> Question:
    """Return the prompt of the fact of ``case``, as ``compare`` asks it."""
    rewrite = case.probes[0]
    return Question(rewrite.prompt, rewrite.form, rewrite.answers, rewrite.max_new_tokens)


def _own_text(model: LanguageModel) -> list[tuple[list[int], list[int]]]:
    try:
        blocks = own_texts(model, OWN_TEXT_TOKENS, 0, OWN_TEXT_LENGTH)
        return [pair for block in blocks for pair in block]
    except ModelError:  # the context has no room for it
        return []


def _nll(model: LanguageModel, texts: Sequence[tuple[list[int], list[int]]]) -> float:
    """Return the mean nats per token of ``texts``; 0 without any."""
    logps = [logp for logp, _ in model.target_scores(texts)] if texts else []
    return -torch.cat(logps).double().mean().item() if logps else 0.0
