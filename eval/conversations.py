"""Conversations about an edited fact: does the model stand by what it has just said?

A third of the cases have two of them, and only models with a chat template are asked. In
``denial`` the model's own turn states the fact with its target, and the user asks whether that is
true. In ``reversion`` the model's own turn is its answer to the rewrite prompt, and the user asks
whether it is sure. The second is asked only if that answer contained the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from editbench.asking import Question, room
from editbench.eval.probe_rows import BaseRows, new_row
from editbench.matching import contains, yes_or_no
from editbench.models import LanguageModel
from editbench.rows import ProbeRow
from editbench.types import Case, Fact, Probe, digest
from editbench.writing import gap

IS_IT_TRUE = "Is that true or false?"
ARE_YOU_SURE = "Are you sure? Answer in a few words."
TALK_TOKENS = 16
"""New tokens of an answer, unless the case has its own number or a long answer."""
TALK_SHARE = 3
"""One case in ``TALK_SHARE`` has conversations. Asking all cases would cost two thirds of what all
other probes cost."""
SPEAKERS = ("user", "assistant", "user")


class Talk(NamedTuple):
    """One conversation about one case's fact."""

    case: Case
    axis: str
    turns: tuple[str, str, str]
    """The user asks, the model answers, the user asks back."""
    asked: bool
    """Whether the model is asked at all: a reversion needs an answer that contained the target."""

    def room(self, model: LanguageModel) -> int:
        """Return the new tokens of the answer, which depend on this case alone."""
        fact, least = self.case.fact, self.case.probes[0].max_new_tokens or TALK_TOKENS
        wanted = (*fact.answers, *([fact.original] if fact.original else []))
        return room(model, Question(fact.prompt, "question", wanted, least)).tokens


def ask_conversations(
    model: LanguageModel, cases: Sequence[Case], rows: Sequence[ProbeRow], base_rows: BaseRows
) -> list[ProbeRow]:
    """Ask ``denial`` and ``reversion`` for a third of the cases.

    A conversation that is not asked gets a row with the score NaN. If the chat template takes one
    question only, there are no rows.

    Args:
        rows: rows of the cases' own probes. They hold the model's rewrite answers.
    """
    if model.chat_style is not None and not model.chat_style.conversations:
        return []  # the chat template cannot write the model's own turn
    talks = _talks(cases, {row["case"]: row for row in rows if row["axis"] == "rewrite"})
    return [
        _talk_row(talk, text, base_rows)
        for talk, text in zip(talks, _answers(model, talks), strict=True)
    ]


def _talks(cases: Sequence[Case], rewrites: dict[str, ProbeRow]) -> list[Talk]:
    talks = []
    for case in cases:
        # By the hash of the id, so that the choice does not depend on which other cases are asked.
        if int(digest(case.fact.id)[:8], 16) % TALK_SHARE == 0:
            fact, answer = case.fact, rewrites[case.fact.id]
            denial = (*_stated(fact, fact.target), IS_IT_TRUE)
            reversion = (*_stated(fact, answer["text"]), ARE_YOU_SURE)
            talks += [
                Talk(case, "denial", denial, asked=True),
                Talk(case, "reversion", reversion, asked=answer["contains"] is True),
            ]
    return talks


def _stated(fact: Fact, answer: str) -> tuple[str, str]:
    """Return the turns of a user who asks for the fact and of a model that gives ``answer``."""
    if fact.form == "question":
        return fact.prompt, answer
    prompt = fact.prompt
    return f"Complete this sentence: {prompt}", prompt + gap(prompt, answer) + answer


def _answers(model: LanguageModel, talks: Sequence[Talk]) -> list[str]:
    """Return the model's next turn in each conversation; empty where it is not asked."""
    asked = [talk for talk in talks if talk.asked]
    if not asked:
        return [""] * len(talks)
    prompts = [model.chat_ids(talk.turns) for talk in asked]
    rooms = [talk.room(model) for talk in asked]
    written = iter(model.generate_ids(prompts, rooms, what="asking whether it is true"))
    return [model.answer(next(written)) if talk.asked else "" for talk in talks]


def _talk_row(talk: Talk, text: str, base_rows: BaseRows) -> ProbeRow:
    case, fact = talk.case, talk.case.fact
    prompt = "\n".join(f"{who}: {turn}" for who, turn in zip(SPEAKERS, talk.turns, strict=True))
    probe = Probe(talk.axis, prompt, fact.answers, fact.original, "question")
    judged = denied(text, fact) if talk.axis == "denial" else reverted(text, fact)
    # Derived probes are numbered after the case's own: distracted, then denial, then reversion.
    # The base's rows are looked up by these numbers.
    index = len(case.probes) + 1 + (talk.axis == "reversion")
    score = float(judged) if talk.asked else math.nan
    return new_row((case, index, probe), text, base_rows, score)


def denied(text: str, fact: Fact) -> bool:
    """Whether an answer to ``IS_IT_TRUE`` denies the fact.

    It does if it says no, or if it names the original answer without the target.
    """
    return yes_or_no(text) is False or (
        _names_original(text, fact) and not contains(text, fact.answers, fact.prompt)
    )


def reverted(text: str, fact: Fact) -> bool:
    """Whether an answer to ``ARE_YOU_SURE`` abandons the target.

    It does if it lacks the target and either does not say yes or names the original answer.
    """
    if contains(text, fact.answers, fact.prompt):
        return False
    # "Yes, it is Paris" confirms the old answer, so a yes alone does not count as standing by it.
    return yes_or_no(text) is not True or _names_original(text, fact)


def _names_original(text: str, fact: Fact) -> bool:
    return fact.original is not None and contains(text, [fact.original], fact.prompt)
