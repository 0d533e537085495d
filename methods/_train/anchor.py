"""Terms that hold a trainer near the base model: the field's remedies against forgetting.

Any trainer can add them to its loss:

    replay  weight * NLL of the model's own texts and answers   (experience replay)
    kl      weight * KL(p_base || p_theta) on such texts        (learning without forgetting)
    l2      weight * ||theta - theta_0||^2                      (L2-SP)
    ewc     weight * sum_j F_j (theta_j - theta_0j)^2           (elastic weight consolidation;
                                                                F scaled to mean 1)

The base is the model as the training finds it, and it writes the texts. On top of earlier edits
these are the edited model's, so that replay and kl keep what those edits taught. A text that ends
at ``LENGTH`` tokens has no end token, so it is never trained as a finished one.

Both sides of kl are renormalized over the base's ``TEACHER_TOP_K`` most probable tokens, so kl does
not see the probability that p_theta gives to other tokens. l2 and ewc are added to the gradients
directly, in closed form.

    # N label positions of a batch, n of one text, V vocabulary, K the base's top k
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from editbench import processes
from editbench.fisher import diagonal_fisher
from editbench.methods._train.divergence import divergence
from editbench.models import LanguageModel, batched
from editbench.own_text import own_answers, own_tasks, own_texts
from editbench.text import pad_left

FREE, ANSWERS, INSTRUCTED = 64, 64, 128
"""Number of free texts, of answers to the model's own questions, and of answers to instructions of
many kinds (``own_text.TASKS``). With the instructions in place of half of the others ``sft`` on 24
dev facts kept .81 of following instructions where it had kept .46, and .97 of reading where it had
kept .82 (``benchmarks/frontier.py``)."""
LENGTH = 32
"""Most tokens of one text."""
AT_ONCE = 8
"""Texts in one step."""
READ_AT_ONCE = 16
"""Texts that the base reads in one forward pass, before training."""
TEACHER_TOP_K = 256
"""Most probable tokens of the base over which its KL is taken. The logits of the whole vocabulary
would take gigabytes."""
FISHER_TEXTS = 64
"""Texts on which the Fisher information is measured."""


class Anchor:
    """The base model as it was before training.

    Create it while the model still has the base's weights.
    """

    def __init__(
        self, model: LanguageModel, *, replay: float, kl: float, l2: float, ewc: float, seed: int
    ):
        self.model, self.replay, self.kl, self.l2, self.ewc = model, replay, kl, l2, ewc
        self._order = random.Random(seed)
        self._queue: list[int] = []
        # Those of the first process, so that all have the same ones whatever rounding does.
        self.texts = processes.first(_texts(model, seed)) if replay or kl or ewc else []
        if kl:
            # Kept by text: the loss meets them in other batches at each step.
            self.base = [
                one
                for chosen in batched(range(len(self.texts)), READ_AT_ONCE)
                for one in self._top(chosen)
            ]
        self.fisher: dict[str, torch.Tensor] = {}
        if ewc:
            self.fisher = _scaled_fisher(model, self.texts)

    def loss(self) -> torch.Tensor | None:
        """Return the sum of ``replay`` and ``kl`` on the next few texts; None if both are off."""
        if not (self.replay or self.kl):
            return None
        # A new pass over the texts; the few that are left of the last pass are dropped.
        if len(self._queue) < AT_ONCE:
            self._queue = list(range(len(self.texts)))
            self._order.shuffle(self._queue)
        chosen = [self._queue.pop() for _ in range(min(AT_ONCE, len(self._queue)))]
        weight = 1.0
        if processes.count() > 1:
            # The mean over the tokens of this process's texts, weighted so that the average over
            # the processes is the mean over all tokens.
            own = processes.share(chosen)
            tokens = sum(len(self.texts[i][1]) for i in chosen)
            weight = processes.count() * sum(len(self.texts[i][1]) for i in own) / tokens
            chosen = own or chosen[:1]
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
            # The ids are already the base's top K, so divergence() takes all K (k is None).
            total = total + self.kl * divergence(
                base_NK, logits_NV.gather(-1, ids_NK), None, "forward"
            )
        return total * weight if processes.count() > 1 else total

    @property
    def order(self) -> list[Any]:
        """How the next texts are drawn: the generator's state and the rest of this pass."""
        version, numbers, gauss = self._order.getstate()
        return [version, list(numbers), gauss, list(self._queue)]

    @order.setter
    def order(self, order: list[Any]) -> None:
        version, numbers, gauss, queue = order
        self._order.setstate((version, tuple(numbers), gauss))
        self._queue = list(queue)

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
                # The loss does not reach this parameter, but its distance to the base counts.
                p.grad = torch.zeros_like(p)
            # d/dp of l2 ||p - p_0||^2 is 2 l2 (p - p_0); ewc multiplies it by F.
            if self.l2:
                p.grad.add_(moved, alpha=2 * self.l2)
            if self.ewc:
                p.grad.addcmul_(self.fisher[name], moved, value=2 * self.ewc)

    def cut(self, share: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Keep this process's ``share`` of what is as large as the weights."""
        for name in self.fisher:
            self.fisher[name] = share(self.fisher[name])

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
    def _top(self, chosen: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return ids (n, K) and logits (n, K) of the model's most probable tokens, text by text."""
        with self.model.compute(weights_fixed=True):
            logits_NV = self._logits(chosen)
        values_NK, ids_NK = logits_NV.topk(min(TEACHER_TOP_K, logits_NV.shape[-1]), dim=-1)
        lengths = [len(self.texts[i][1]) for i in chosen]
        return list(zip(ids_NK.split(lengths), values_NK.split(lengths), strict=True))


def _texts(model: LanguageModel, seed: int) -> list[tuple[list[int], list[int]]]:
    """Return the texts that the model writes: the ids of each opening and of what follows.

    A model without a chat template writes free texts in place of the answers.
    """

    def free(n: int, seed: int) -> list[tuple[list[int], list[int]]]:
        return [pair for block in own_texts(model, n * LENGTH, seed, LENGTH) for pair in block]

    answers = own_answers(model, ANSWERS, seed, LENGTH) + own_tasks(model, INSTRUCTED, seed, LENGTH)
    # Of another seed, so that no free text comes twice.
    return free(FREE, seed) + (answers or free(ANSWERS + INSTRUCTED, seed + 1))


def _scaled_fisher(
    model: LanguageModel, texts: Sequence[tuple[list[int], list[int]]]
) -> dict[str, torch.Tensor]:
    """Return the diagonal Fisher information of each parameter, scaled to mean 1 over all."""
    # Every n-th text, so that free texts and answers both take part.
    fisher = diagonal_fisher(model, texts[:: max(1, len(texts) // FISHER_TEXTS)])
    total = sum(f.sum().item() for f in fisher.values())
    mean = total / sum(f.numel() for f in fisher.values())
    return {name: f.div_(max(mean, 1e-30)) for name, f in fisher.items()}
