"""Supervised fine-tuning (SFT): all weights, on the canonical targets, each ended by EOS.

    L(theta) = - (1 / sum_i |y_i|) sum_i sum_t log p_theta(y_it | x_i, y_i<t)

x is the prompt as it will be asked; its tokens carry no loss. y is the fact's demonstration
(default: its target) with the token that ends an answer. Training runs in mini-batches over several
epochs.

Yang et al. 2025 (arXiv 2509.22072) show that the naive fine-tuning baselines of editing papers
lacked three things: mini-batches, epochs and EOS.

``recipe=paper`` writes out the options of the baseline of MixSD (arXiv 2605.16865). Its steps equal
TRL's on the same batches. ``stop_after`` gives the model at any step, where the original saves one
every 20 steps: the steps that are made keep their order and learning rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from editbench.edit import Edit
from editbench.methods._train.lessons import LOSS_ON, LossOn, check_first, lessons_of
from editbench.methods._train.loop import train_on_examples
from editbench.methods._train.trainer import FORWARDED, PUBLISHED_TRAINING, Trainer
from editbench.models import LanguageModel
from editbench.report import Figure
from editbench.types import Fact


@dataclass(frozen=True)
class Sft(Trainer):
    """Plain fine-tuning, done properly."""

    name: ClassVar[str] = "sft"
    summary: ClassVar[str] = "full fine-tuning on the targets, EOS-terminated"
    paper: ClassVar[str] = "arXiv 2509.22072"
    version: ClassVar[int] = 2
    over_processes: ClassVar[bool] = True
    added: ClassVar[frozenset[str]] = frozenset({"first"})
    figures: ClassVar[Mapping[str, Figure]] = {**Trainer.figures, "forwarded_tokens": FORWARDED}
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {**PUBLISHED_TRAINING, "loss_on": "turn"},
        # On 24 dev facts it kept following instructions and reading, and carried over as plain sft
        # does. Its rate is SmolLM2-135M's: other models may need another (benchmarks/frontier.py).
        "keep": {"lr": 5e-5, "epochs": 5, "enough": 0.0, "rewordings": 2, "kl": 4.0},
    }

    loss_on: LossOn = "answer"
    """Tokens that carry loss: those of the ``answer`` with the token that ends it, or those of the
    model's whole ``turn``, with the role header before it and what the chat template writes behind
    it. Raw text has no turn, and both are the same."""
    first: float = 1.0
    """Share of each target, from its first token, that carries loss; at least one token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_on not in LOSS_ON:
            raise ValueError(f"loss_on is {self.loss_on!r}; it must be answer or turn")
        check_first(self.first, self.loss_on)

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """Fine-tune on the canonical targets of ``facts`` and return the change as an edit."""
        self.check_work(model, len(facts))
        lessons = lessons_of(model, facts, self.rewordings)
        examples = [lesson.canonical(self.loss_on, self.first) for lesson in lessons]
        changes, report = train_on_examples(self, model, examples)
        return self.edit(model, facts, changes, diagnostics=report)
