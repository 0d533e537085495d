"""Supervised fine-tuning (SFT): all weights, on the canonical targets, each ended by EOS.

    L(theta) = - (1 / sum_i |y_i|) sum_i sum_t log p_theta(y_it | x_i, y_i<t)

x is the prompt as it will be asked; its tokens carry no loss. y is the fact's demonstration
(default: its target) with the token that ends an answer. Training runs in mini-batches over several
epochs.

Yang et al. 2025 (arXiv 2509.22072) show that the naive fine-tuning baselines of editing papers
lacked three things: mini-batches, epochs and EOS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from editbench.edit import Edit
from editbench.methods._train.lessons import lessons_of
from editbench.methods._train.loop import train_on_examples
from editbench.methods._train.trainer import Trainer
from editbench.models import LanguageModel
from editbench.types import Fact


@dataclass(frozen=True)
class Sft(Trainer):
    """Plain fine-tuning, done properly."""

    name: ClassVar[str] = "sft"
    summary: ClassVar[str] = "full fine-tuning on the targets, EOS-terminated"
    paper: ClassVar[str] = "arXiv 2509.22072"
    version: ClassVar[int] = 2

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """Fine-tune on the canonical targets of ``facts`` and return the change as an edit."""
        self.check_work(model, len(facts))
        # Loss on y alone: canonical() keeps the prompt apart from the answer and its closing token.
        examples = [lesson.canonical() for lesson in lessons_of(model, facts, self.rewordings)]
        changes, report = train_on_examples(self, model, examples)
        return self.edit(model, facts, changes, diagnostics=report)
