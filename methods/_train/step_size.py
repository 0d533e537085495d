"""The step size of a training, fitted to the model; and how far the training moved the model.

A rate that suits one model destroys another. AdamW's first step moves each weight by the rate lr
against the sign of its gradient g, so to first order it lowers the loss L on the facts by lr |g|_1.
The rule is that it lowers it by a fixed share, ``Trainer.fall``:

    lr = fall L / |g|_1        |g|_1: sum of the absolute gradients of all trained weights

One gradient is all that this takes, and no weight moves. Models that react more strongly to a step
have larger gradients and get a smaller rate; adapters have fewer weights and get a larger one.

    # N positions of a few texts, K the base's most probable tokens, V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from weakref import WeakKeyDictionary

import torch

from editbench import processes
from editbench.errors import MethodError
from editbench.models import LanguageModel, batched
from editbench.own_text import own_texts
from editbench.report import FAR, MOVED_FAR
from editbench.text import pad_left

TOKENS, LENGTH = 256, 16
"""Tokens of own text, and of one text. Each training reads them, so they are few."""
SEED = 1_000_003
"""Seed of the texts. They are always the same ones, and not those of an anchor."""
AT_ONCE = 8
"""Texts in one forward pass."""
TOP_K = 256
"""Most probable tokens of the base that are kept apart. The others count as one event, since the
log-probabilities of a whole vocabulary would take hundreds of megabytes."""


class OwnText:
    """Texts that the model wrote, and its next-token distributions on them, as it is now.

    Raises:
        ModelError: if the model's context has no room for such text.
    """

    @torch.no_grad()
    def __init__(self, model: LanguageModel, seed: int = SEED):
        self.texts = [pair for block in own_texts(model, TOKENS, seed, LENGTH) for pair in block]
        tops = [logp_NV.topk(min(TOP_K, logp_NV.shape[-1]), -1) for logp_NV in self._logp(model)]
        self.ids = [top.indices for top in tops]
        self.base = [_with_rest(top.values) for top in tops]

    @torch.no_grad()
    def kl(self, model: LanguageModel) -> float:
        """Return KL(model then || ``model`` now), in nats a token.

        Tokens outside the top ``TOP_K`` are one event, so it is at most the KL over the whole
        vocabulary, and hardly less.
        """
        total, positions = 0.0, 0
        for ids_NK, base_NK, logp_NV in zip(self.ids, self.base, self._logp(model), strict=True):
            now_NK = _with_rest(logp_NV.gather(-1, ids_NK))
            total += (base_NK.exp() * (base_NK - now_NK)).sum().item()
            positions += len(base_NK)
        return total / positions

    def _logp(self, model: LanguageModel) -> Iterator[torch.Tensor]:
        """Yield the log-probabilities (N, V) at the written tokens of a few texts at a time."""
        for some in batched(self.texts, AT_ONCE):
            ids_BT, mask_BT = pad_left([a + b for a, b in some], model.device)
            written = len(some[0][1])  # the same for all texts
            # Not in model.compute(): rounding to bfloat16 would move as much as a probe step.
            hidden_BTD = model.hidden(ids_BT[:, :-1], mask_BT[:, :-1])
            yield model.logits(hidden_BTD[:, -written:].flatten(0, 1)).log_softmax(-1)


_LATEST: WeakKeyDictionary[LanguageModel, tuple[str, OwnText]] = WeakKeyDictionary()
"""Model -> its weights and device at the last call of ``own_text``, and what that returned."""


def own_text(model: LanguageModel) -> OwnText:
    """Return ``OwnText(model)``, written once for a model that is trained again from one base.

    Raises:
        ModelError: as ``OwnText``.
    """
    found = f"{model.fingerprint()} on {model.device}"
    if model not in _LATEST or _LATEST[model][0] != found:
        _LATEST[model] = found, OwnText(model)
    return _LATEST[model][1]


def fitted_lr(
    fall: float, loss: float, parameters: Iterable[torch.nn.Parameter], name: str
) -> float:
    """Return the learning rate of the rule above, to two digits, so that it can be given as well.

    Args:
        fall: share of the loss by which the first step lowers it.
        loss: of some facts, in nats a token.
        parameters: with the gradients of that loss.
        name: of the model.

    Raises:
        MethodError: if no weight has a gradient, or one is infinite or NaN.
    """
    slope = math.fsum(_whole(p.grad.abs().sum()).item() for p in parameters if p.grad is not None)
    if not loss > 0 or not 0 < slope < math.inf:
        raise MethodError(
            f"No learning rate could be fitted to {name}: the loss on the facts is {loss:.3g}, and "
            f"its gradient sums to {slope:.3g}. Give lr."
        )
    return float(f"{fall * loss / slope:.2g}")


def _whole(sum_: torch.Tensor) -> torch.Tensor:
    """Return a sum over a weight, of which each process has a part where the weight is sharded."""
    if processes.count() == 1:
        return sum_
    from torch.distributed.tensor import DTensor  # takes seconds to import

    return sum_.full_tensor() if isinstance(sum_, DTensor) else sum_


def moved_far(kl: float, weight: float) -> list[str]:
    """Return a warning if the model moved far on its own text.

    Args:
        kl: in nats a token.
        weight: ``Trainer.kl`` of the training.
    """
    if kl <= FAR:  # false for nan, which is far, too
        return []
    held = "kl=1" if weight < 1 else f"A kl above {weight:g}"
    return [
        f"{MOVED_FAR} {held} holds it near the base. A smaller lr helps as well, and so does a "
        "higher loss at which the training ends (enough)."
    ]


def _with_rest(logp_NK: torch.Tensor) -> torch.Tensor:
    """Append the log-probability of all other tokens; return (N, K + 1)."""
    rest_N1 = (1 - logp_NK.exp().sum(-1, keepdim=True)).clamp(min=1e-6).log()
    return torch.cat([logp_NK, rest_N1], -1)
