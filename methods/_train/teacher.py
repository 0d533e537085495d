"""The teacher of a self-distillation: a copy of the model, frozen or following slowly."""

from __future__ import annotations

from copy import deepcopy

import torch

from editbench.models import LanguageModel


@torch.no_grad()
def follow_slowly(teacher: LanguageModel, student: LanguageModel, ema: float) -> None:
    """Update the teacher's weights: theta_T <- ema theta_T + (1 - ema) theta."""
    pairs = zip(teacher.model.parameters(), student.model.parameters(), strict=True)
    for of_teacher, of_student in pairs:
        # A student that is held in 16 bits is float32 while it trains, and so is its average.
        if of_teacher.dtype != of_student.dtype:
            of_teacher.data = of_teacher.data.to(of_student.dtype)
        of_teacher.lerp_(of_student.detach(), 1 - ema)


def frozen_copy(model: LanguageModel) -> LanguageModel:
    """Return a handle on a copy of the weights as they are now, without gradients."""
    copied = LanguageModel(
        deepcopy(model.model).requires_grad_(False),
        model.tokenizer,
        name=model.name,
        precision=model.precision,
    )
    copied.honours = model.honours  # known, so the copy needs no passes to try it
    return copied
