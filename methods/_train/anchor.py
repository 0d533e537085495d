"""Terms that hold a trainer near the base model: the field's remedies against forgetting.

They are added to the loss of any trainer:

    replay  weight * NLL of the model's own texts and answers   (experience replay)
    kl      weight * KL(p_base || p_theta) on such texts        (learning without forgetting)
    l2      weight * ||theta - theta_0||^2                      (L2-SP)
    ewc     weight * sum_j F_j (theta_j - theta_0j)^2           (elastic weight consolidation;
                                                                F scaled to mean 1)

Both sides of kl are renormalized over the base's ``TEACHER_TOP_K`` most probable tokens. What
p_theta gives to other tokens is free. l2 and ewc act on the gradients directly.

    # N label positions of a batch, V vocabulary, K the base's top k
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from editbench.fisher import diagonal_fisher
from editbench.methods._train.divergence import divergence
from editbench.models import LanguageModel
from editbench.own_text import own_answers, own_texts
from editbench.text import pad_left

TOKENS = 8192
"""Tokens of the model's own text, all texts together."""
LENGTH = 32
"""Tokens of one text."""
AT_ONCE = 8
"""Texts in one step."""
TEACHER_TOP_K = 256
"""Most probable tokens of the base over which its KL is taken. All of them would be gigabytes of
logits."""
FISHER_TEXTS = 64
"""Texts on which the Fisher information is measured."""


class Anchor:
    """The base model as it was before training. Make it while the model has the base's weights."""

    def __init__(
        self, model: LanguageModel, *, replay: float, kl: float, l2: float, ewc: float, seed: int
    ):
        self.model, self.replay, self.kl, self.l2, self.ewc = model, replay, kl, l2, ewc
        self._order = random.Random(seed)
        self._queue: list[int] = []
        self.texts = _texts(model, seed) if replay or kl or ewc else []
        if kl:
            self.base = [self._top([i]) for i in range(len(self.texts))]
        if ewc:
            self.fisher = _scaled_fisher(model, self.texts)

    def loss(self) -> torch.Tensor | None:
        """Return ``replay`` and ``kl`` on the next few texts; None if neither is asked for."""
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
        """Add the gradients of ``l2`` and ``ewc`` to those of ``parameters``."""
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

    def _logits(self, chosen: Sequence[int]) -> torch.Tensor:
        """Return the logits (N, V) of all written tokens of the chosen texts, text after text."""
        pairs = [self.texts[i] for i in chosen]
        ids_BT, mask_BT = pad_left(
            [opening + written for opening, written in pairs], self.model.device
        )
        hidden_BTD = self.model.hidden(ids_BT[:, :-1], mask_BT[:, :-1])
        return self.model.logits(
            torch.cat([hidden_BTD[b, -len(written) :] for b, (_, written) in enumerate(pairs)])
        )

    @torch.no_grad()
    def _top(self, chosen: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids (N, K) and logits (N, K) of the model's most probable tokens."""
        with self.model.compute(weights_fixed=True):
            logits_NV = self._logits(chosen)
        values_NK, ids_NK = logits_NV.topk(min(TEACHER_TOP_K, logits_NV.shape[-1]), dim=-1)
        return ids_NK, values_NK


def _texts(model: LanguageModel, seed: int) -> list[tuple[list[int], list[int]]]:
    """Return ``TOKENS`` tokens that the model writes: of each text the opening and what follows.

    Half of them are answers to its own questions, if it has a chat template.
    """
    texts = [pair for block in own_texts(model, TOKENS // 2, seed, LENGTH) for pair in block]
    missing = TOKENS // LENGTH - len(texts)
    return texts + (
        own_answers(model, missing, seed, LENGTH)
        or [
            pair
            for block in own_texts(model, TOKENS - TOKENS // 2, seed + 1, LENGTH)
            for pair in block
        ]
    )


def _scaled_fisher(
    model: LanguageModel, texts: Sequence[tuple[list[int], list[int]]]
) -> dict[str, torch.Tensor]:
    """Return the diagonal Fisher information of each parameter, scaled to mean 1 over all."""
    fisher = diagonal_fisher(model, texts[:: len(texts) // FISHER_TEXTS])
    total = sum(f.sum().item() for f in fisher.values())
    mean = total / sum(f.numel() for f in fisher.values())
    return {name: f.div_(max(mean, 1e-30)) for name, f in fisher.items()}
