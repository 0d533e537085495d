"""Texts that two branches of one model write together, token by token, and their report.

The naive branch reads the prompt alone. The expert branch reads it together with the fact. Both
continue the same text. The method decides which branch writes a token (``mixsd.py``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NotRequired, TypedDict

from editbench.methods._train.branches import Text
from editbench.methods._train.lessons import Lesson
from editbench.report import EditRecord, Figure
from editbench.types import Fact

NAIVE, EXPERT = 0, 1


class Candidate(NamedTuple):
    """A token, and its log-probability under both branches."""

    token: int
    naive_logp: float
    expert_logp: float


class State(NamedTuple):
    """What was written of a text, apart from its fact and its model."""

    ids: list[int]
    naive_picked: list[bool]
    logp: tuple[list[float], list[float]]
    best: list[Candidate]
    written: int
    verified: bool
    source: str
    attempt: int
    room: int


class MixedText(Text):
    """The tokens of a text, with the log-probability of each under both branches."""

    def __init__(self, lesson: Lesson, prompts: Sequence[Sequence[int]], attempt: int):
        self.lesson, self.prompts, self.attempt = lesson, prompts, attempt
        self.model = lesson.model
        self.ids: list[int] = []
        self.naive_picked: list[bool] = []
        """Whether the naive branch wrote each token."""
        self.logp: tuple[list[float], list[float]] = [], []
        """Log-probability of each token under the naive and under the expert branch. If one branch
        writes alone, those of the other branch are filled in at the end."""
        self.best: list[Candidate] = []
        """The expert's most probable token at each position; empty if one branch writes alone."""
        self.written = 0
        """Number of tokens written, including those that were taken back."""
        self.verified = False
        """Whether the text states its fact."""
        self.source = "mixed"
        """Whether and in which form it is trained on (``EditRecord.source``)."""

    @property
    def fact(self) -> Fact:
        return self.lesson.fact

    def add(self, chosen: Candidate, is_naive: bool, best: Candidate) -> None:
        """Append the token that was chosen from both branches."""
        self.ids.append(chosen.token)
        self.naive_picked.append(is_naive)
        self.logp[NAIVE].append(chosen.naive_logp)
        self.logp[EXPERT].append(chosen.expert_logp)
        self.best.append(best)
        self.written += 1

    def add_alone(self, token: int, is_naive: bool, logp: float) -> None:
        """Append a token of the only branch that writes."""
        self.ids.append(token)
        self.naive_picked.append(is_naive)
        self.logp[NAIVE if is_naive else EXPERT].append(logp)
        self.written += 1

    def cut(self, place: int) -> None:
        """Take back all tokens from position ``place`` on."""
        # In a text by one branch, best and the other branch's logp are still empty.
        for column in (self.ids, self.naive_picked, *self.logp, self.best):
            del column[place:]

    @property
    def ended(self) -> bool:
        """Whether the text has ended by itself (``Lesson.ended``)."""
        return self.lesson.ended(self.ids)

    def foreign(self) -> list[int]:
        """Return the positions of naive tokens that are not the expert's most probable token.

        A text by the naive branch alone never asked the expert, so all its positions count.
        """
        return [
            t
            for t, naive in enumerate(self.naive_picked)
            if naive and not (self.best and self.best[t].token == self.ids[t])
        ]

    def signal(self, share: float) -> list[int] | None:
        """Return the positions of the ``share`` of tokens on which the branches disagree most.

        Disagreement is the difference of the two log-probabilities. None stands for all positions.
        """
        if share == 1:
            return None
        gap = [abs(naive - expert) for naive, expert in zip(*self.logp, strict=True)]
        # sorted() is stable: ties go to the earlier token.
        by_gap = sorted(range(len(gap)), key=lambda t: -gap[t])
        return sorted(by_gap[: math.ceil(share * len(gap))])

    def record(self) -> EditRecord:
        """Return the row that the edit keeps about the text."""
        naive, expert = ([round(p, 4) for p in column] for column in self.logp)
        return {
            "attempt": self.attempt,
            "ids": self.ids,
            "naive_picked": self.naive_picked,
            "naive_logp": naive,
            "expert_logp": expert,
            "verified": self.verified,
            "ended": self.ended,
            "source": self.source,
        }


class MixingReport(TypedDict, total=False):
    """What a set of mixed texts reports."""

    target_sources: dict[str, int]
    verified_at_once: float
    verified: float
    cut_off: int
    mean_attempts: float
    effective_lambda: float
    target_nll: float


class WritingReport(TypedDict):
    """What writing the texts took."""

    prompt_tokens: int
    decoded_tokens: int
    forwards_per_token: float
    reread_tokens: NotRequired[int]


MIXING_FIGURES: Mapping[str, Figure] = {
    "target_sources": Figure("Number of training texts by source (EditRecord.source)."),
    "verified_at_once": Figure(
        "Share of the mixed texts that stated their fact in a whole text at the first attempt.",
        shown="of the targets verified at the first attempt",
    ),
    "verified": Figure(
        "Share of the mixed texts that stated their fact in a whole text at any attempt.",
        shown="of the targets verified in all",
    ),
    "cut_off": Figure(
        "Number of training texts that reached their token budget before they ended; only with "
        "on_fail=keep, which puts the token that ends an answer behind them."
    ),
    "mean_attempts": Figure("Attempts per text, mean over all mixed texts."),
    "effective_lambda": Figure(
        "Share of the tokens of the mixed texts that the naive branch wrote."
    ),
    "target_nll": Figure(
        "Mean negative log-likelihood of the texts trained on under the unedited model, in nats a "
        "token."
    ),
    "prompt_tokens": Figure("Tokens of prompts that were encoded to write the texts."),
    "decoded_tokens": Figure("Tokens that went through the model one by one to write the texts."),
    "forwards_per_token": Figure(
        "Decoded tokens for each token written in all attempts: one for each branch, and those of "
        "the expert's own texts, from which the token budgets follow.",
        shown="forward passes per token",
    ),
    "reread_tokens": Figure(
        "Tokens that were encoded again, because the model's cache cannot take tokens back or "
        "cannot continue a batch. Writing is slower on such a model, and no less exact.",
        shown="tokens read again, as this model's cache takes none back",
    ),
}
"""The figures of ``MixingReport`` and ``WritingReport``."""


def report(texts: Sequence[MixedText]) -> MixingReport:
    """Return the figures of ``texts``, one text for each fact and frame."""
    # Canonical targets were written by neither branch.
    trained = [t for t in texts if t.source not in ("target", "dropped")]
    tokens = [(p, n) for t in trained for p, n in zip(t.naive_picked, t.logp[NAIVE], strict=True)]
    verified = [t for t in texts if t.source == "mixed"]
    summary: MixingReport = {
        "target_sources": dict(Counter(t.source for t in texts)),
        "verified_at_once": sum(t.attempt == 0 for t in verified) / max(1, len(texts)),
        "verified": len(verified) / max(1, len(texts)),
        "cut_off": sum(not t.ended for t in trained),
        "mean_attempts": sum(t.attempt + 1 for t in texts) / max(1, len(texts)),
    }
    if tokens:
        # It can differ from lambda, because verification selects among the texts.
        summary["effective_lambda"] = sum(picked for picked, _ in tokens) / len(tokens)
        summary["target_nll"] = -sum(logp for _, logp in tokens) / len(tokens)
    return summary


def warnings(texts: Sequence[MixedText]) -> list[str]:
    """Return a sentence for each way of handling facts that no whole text stated."""
    consequences = {
        "target": "were trained on the canonical target, as in sft",
        "dropped": "were left out of the training",
        "unverified": "were trained on as they are",
    }
    sentences = []
    for source, what in consequences.items():
        failed = [t for t in texts if t.source == source]
        cut_off = sum(not t.ended for t in failed)
        because = f"; {cut_off} of them reached their token budget (max_new_tokens)"
        if failed:
            sentences.append(
                f"{len(failed)} of {len(texts)} targets never stated their fact in a whole text "
                f"and {what} (on_fail){because if cut_off else ''}"
            )
    return sentences
