"""Supervised fine-tuning (SFT): all weights, on the canonical targets, each ended by EOS.

    L(theta) = - (1 / sum_i |y_i|) sum_i sum_t log p_theta(y_it | x_i, y_i<t)

with x the prompt as it will be asked (its tokens carry no loss), y the fact's demonstration (default: its target) and
the token that ends an answer, mini-batches over epochs. Yang et al. 2025 (arXiv 2509.22072) show that these three things,
mini-batches, epochs and EOS, are what naive fine-tuning baselines of editing papers lacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from editbench.edit import Edit
from editbench.methods._common.context import check_context
from editbench.methods._common.texts import Example
from editbench.methods._train.loop import Trainer, reworded, train_on_examples
from editbench.models import LanguageModel
from editbench.types import Fact


@dataclass(frozen=True)
class Sft(Trainer):
    """Plain fine-tuning, done properly."""

    name: ClassVar[str] = "sft"
    summary: ClassVar[str] = "full fine-tuning on the targets, EOS-terminated"
    paper: ClassVar[str] = "arXiv 2509.22072"
    version: ClassVar[int] = 2

    epochs: int = 14
    """Passes over the facts; with so few tokens a pass, more of them than mixsd needs."""

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        changes, log = train_on_examples(
            self, model, [canonical(model, fact) for fact in reworded(facts, self.rewordings)]
        )
        return self.edit(model, facts, changes, diagnostics=log)


def canonical(model: LanguageModel, fact: Fact) -> Example:
    """The fact's own prompt, and its demonstration or target followed by what ends an answer (EOS, or the end of a turn)."""
    prompt_ids, target_ids = model.pair_ids(
        fact.prompt, fact.demonstration or fact.target, fact.form
    )
    check_context(model, fact, len(prompt_ids) + len(target_ids) + 1)
    return Example(prompt_ids, [*target_ids, *model.closing_ids(fact.form)])
