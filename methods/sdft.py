"""SDFT: self-distillation fine-tuning, a preset of ``opsd``.

The student writes on the plain prompt; the teacher reads the fact as well and corrects each token.
What makes it SDFT among the settings of ``opsd`` is that the teacher follows the student slowly:

    L = mean_t KL(p_T(. | x+, y_<t) || p_theta(. | x, y_<t)),   y ~ p_theta(. | x)
    theta_T <- (1 - alpha) theta_T + alpha theta      after each step; alpha = .01 is ``ema=0.99``

Shenfeld et al. 2026, "Self-Distillation Enables Continual Learning", arXiv 2601.19897. Its equation
has the reverse KL; all its results came from the forward KL above (idanshen/Self-Distillation#5,
where the author says so). By default the KL is over the teacher's 20 most probable tokens, as in
Tinker's recipe; the authors' code takes the whole vocabulary.

``recipe=paper`` writes out the settings of the authors' ``main.py``, read in two copies of it
(MilchstraB/Self-Distillation at c88baf4, Pointer0111/Self-Distillation at bde74ab). What it cannot
set:

- The code leaves the first three tokens of a rollout out of the loss, since its teacher tends to
  open with "Based on the text". A short answer is over by then, so none is left out here.
- Its rate falls along a cosine after the warm-up; ours stays.
- Its loss is the mean over rollouts of each rollout's mean over tokens. Ours is the mean over all
  tokens of a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from editbench.methods._train.trainer import PUBLISHED_TRAINING
from editbench.methods.opsd import OPSD, Teacher
from editbench.outline import Outline


@dataclass(frozen=True)
class SDFT(OPSD):
    """On-policy self-distillation with a teacher that follows the student slowly."""

    name: ClassVar[str] = "sdft"
    summary: ClassVar[str] = "opsd whose teacher follows the student slowly"
    paper: ClassVar[str] = "arXiv 2601.19897"
    version: ClassVar[int] = 1
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {
            **PUBLISHED_TRAINING,
            "epochs": 1,
            "batch_size": 32,
            "lr": 2e-5,
            "warmup": 0.1,
            "weight_decay": 0.0,
            "expert_prompt": "sdft",
            "rollouts": 1,
            "temperature": 1.0,
            "max_new_tokens": 1024,
            "top_k": None,
            "divergence": "forward",
            "teacher": "ema",
            "ema": 0.99,
            "exposure": 1.0,
            "verified": False,
        }
    }

    teacher: Teacher = "ema"
    """``ema``: a copy that follows the student slowly; ``frozen``: the base model; ``current``: the
    student itself, without gradient."""
    ema: float = 0.99
    """Share of its own weights that an ``ema`` teacher keeps at each step, 1 - alpha."""
    top_k: int | None = 20
    """Size of the teacher's top-k set. None: the whole vocabulary."""

    def lighter(self, model: Outline) -> Iterator[Mapping[str, object]]:
        """Yield smaller parts, recomputed activations, then adapters below a frozen teacher."""
        for options in super().lighter(model):
            yield {**options, **({"teacher": "frozen"} if "lora" in options else {})}
