"""Divergence of a student's next-token distributions from a teacher's, over the teacher's top k.

# N label positions, V vocabulary, K the teacher's top k
"""

from __future__ import annotations

import math
from typing import Literal

import torch

Divergence = Literal["forward", "reverse", "jsd"]


def divergence(
    teacher_NV: torch.Tensor, student_NV: torch.Tensor, k: int | None, kind: str
) -> torch.Tensor:
    """Return the mean over positions of a divergence, in nats.

    Both distributions are renormalized over the teacher's ``k`` most probable tokens.

    Args:
        teacher_NV: the teacher's logits.
        student_NV: the student's logits.
        k: None takes the whole vocabulary.
        kind: ``forward`` is KL(teacher || student), ``reverse`` is KL(student || teacher), and
            ``jsd`` is the mean of both sides' KL to their average, which is at most log 2.
    """
    if k is not None and k < teacher_NV.shape[-1]:
        top_NK = teacher_NV.topk(k, dim=-1).indices
        teacher_NV, student_NV = teacher_NV.gather(-1, top_NK), student_NV.gather(-1, top_NK)
    # The softmax over the k gathered logits is the distribution renormalized over them.
    teacher, student = teacher_NV.log_softmax(-1), student_NV.log_softmax(-1)
    if kind == "jsd":
        # log((p_T + p_S) / 2), from log-probabilities.
        middle = torch.logaddexp(teacher, student) - math.log(2)
        return (_kl(teacher, middle) + _kl(student, middle)).mean() / 2
    return (_kl(teacher, student) if kind == "forward" else _kl(student, teacher)).mean()


def _kl(p_NK: torch.Tensor, q_NK: torch.Tensor) -> torch.Tensor:
    """Return KL(p || q) at each position (N,), given log-probabilities."""
    return (p_NK.exp() * (p_NK - q_NK)).sum(-1)
