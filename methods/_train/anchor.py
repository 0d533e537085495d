"""What holds a trainer near the base model: the remedies against forgetting that the field uses, for any trainer's loss.

    replay  weight * NLL of the model's own texts and answers       (experience replay, pseudo-rehearsal)
    kl      weight * KL(p_base || p_theta) on such texts            (learning without forgetting)
    l2      weight * ||theta - theta_0||^2                          (L2-SP)
    ewc     weight * sum_j F_j (theta_j - theta_0j)^2               (elastic weight consolidation; F scaled to mean 1)

Both sides of kl are renormalised over the base's ``TEACHER_TOP_K`` most probable tokens: what p_theta gives to others is free.
The last two act on the gradients directly.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from editbench.fisher import diagonal_fisher
from editbench.methods._train.divergence import divergence
from editbench.models import LanguageModel
from editbench.own_text import own_answers, own_texts
from editbench.text import pad_left

TOKENS = 8192
LENGTH = 32
"""Of one text."""
AT_ONCE = 8
"""Texts in a step."""
TEACHER_TOP_K = 256
"""The base's most probable tokens, over which its KL is taken: all of them would be gigabytes of logits."""
FISHER_TEXTS = 64


class Anchor:
    """The base model as it was before training: to be made on the base's own weights."""

    def __init__(
        self, model: LanguageModel, *, replay: float, kl: float, l2: float, ewc: float, seed: int
    ):
        self.model, self.replay, self.kl, self.l2, self.ewc = model, replay, kl, l2, ewc
        self._order = random.Random(seed)
        self._queue: list[int] = []
        self.texts: list[tuple[list[int], list[int]]] = []
        if replay or kl or ewc:
            self.texts = [
                pair for block in own_texts(model, TOKENS // 2, seed, LENGTH) for pair in block
            ]
            more = TOKENS // LENGTH - len(self.texts)
            self.texts += own_answers(model, more, seed, LENGTH) or [
                pair
                for block in own_texts(model, TOKENS - TOKENS // 2, seed + 1, LENGTH)
                for pair in block
            ]
        if kl:
            self.base = [self._top([i]) for i in range(len(self.texts))]
        if ewc:
            found = diagonal_fisher(model, self.texts[:: len(self.texts) // FISHER_TEXTS])
            mean = sum(f.sum().item() for f in found.values()) / sum(
                f.numel() for f in found.values()
            )
            self.fisher = {name: f.div_(max(mean, 1e-30)) for name, f in found.items()}

    def loss(self) -> torch.Tensor | None:
        """``replay`` and ``kl`` on the next few texts; None where neither is asked for."""
        if not (self.replay or self.kl):
            return None
        if len(self._queue) < AT_ONCE:
            self._queue = list(range(len(self.texts)))
            self._order.shuffle(self._queue)
        chosen = [self._queue.pop() for _ in range(min(AT_ONCE, len(self._queue)))]
        logits_NV = self._logits(chosen)
        total = torch.zeros((), device=logits_NV.device)
        if self.replay:
            labels_N = torch.tensor(
                [t for i in chosen for t in self.texts[i][1]], device=logits_NV.device
            )
            total = total + self.replay * F.cross_entropy(logits_NV, labels_N)
        if self.kl:
            ids_NK = torch.cat([self.base[i][0] for i in chosen])
            base_NK = torch.cat([self.base[i][1] for i in chosen])
            total = total + self.kl * divergence(
                base_NK, logits_NV.gather(-1, ids_NK), None, "forward"
            )
        return total

    @torch.no_grad()
    def pull(
        self, parameters: Mapping[str, torch.nn.Parameter], before: Mapping[str, torch.Tensor]
    ) -> None:
        """Adds the gradients of ``l2`` and ``ewc``."""
        if not (self.l2 or self.ewc):
            return
        for name, p in parameters.items():
            moved = p - before[name]
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            if self.l2:
                p.grad.add_(moved, alpha=2 * self.l2)
            if self.ewc:
                p.grad.addcmul_(self.fisher[name], moved, value=2 * self.ewc)

    def _logits(self, chosen: list[int]) -> torch.Tensor:
        """Logits (N, V) that predict what was written in the chosen texts, text after text."""
        pairs = [self.texts[i] for i in chosen]
        ids_BT, mask_BT = pad_left(
            [opening + written for opening, written in pairs], self.model.device
        )
        hidden_BTD = self.model.hidden(ids_BT[:, :-1], mask_BT[:, :-1])
        return self.model.logits(
            torch.cat([hidden_BTD[b, -len(written) :] for b, (_, written) in enumerate(pairs)])
        )

    @torch.no_grad()
    def _top(self, chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        with self.model.compute(weights_fixed=True):
            logits_NV = self._logits(chosen)
        values_NK, ids_NK = logits_NV.topk(min(TEACHER_TOP_K, logits_NV.shape[-1]), dim=-1)
        return ids_NK, values_NK
