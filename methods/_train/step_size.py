"""How far training moves the model on text of its own: the step size is fitted by it.

AdamW's first step moves every weight by the learning rate, whatever the size of its gradient. What
such a step does to the model depends on the model: KL on own text grows with the square of the
rate, by a factor that differs a hundredfold between models. The rule:

    lr = the rate at which one step on the facts moves the model by KL(base || model) = STEP_KL
         on its own text

    # N positions of a few texts, K the base's most probable tokens, V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from editbench.errors import MethodError
from editbench.methods._train.weights import Trainable
from editbench.models import LanguageModel, NotFiniteError, batched
from editbench.own_text import own_texts
from editbench.text import pad_left

STEP_KL = 1e-3
"""Nats a token by which the first step at the fitted rate moves the model on its own text."""
FIRST_TRY = 1e-5
"""Rate of the first probe step."""
TRIES = 6
"""Most probe steps. A probe's rate is at most ``FARTHEST`` times that of the one before, or its
inverse."""
FARTHEST = 30.0
NEAR = 4.0
"""The square law is trusted for a KL that is within this factor of ``STEP_KL``."""
FAR = 0.15
"""Nats a token on own text above which a training gets a warning. Of the rows of
``benchmarks/results/kgfact_test.json`` those at .11 or less keep 93 % or more of the base's
retention (mean ratio of eleven tasks), and those at .30 or more at most 85 %; none lies between."""
TOKENS, LENGTH = 512, 32
"""Tokens of own text, and of one text."""
SEED = 1_000_003
"""Seed of the texts. The rate does not depend on the seed of the training, and the texts are not
those of an anchor."""
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
        self.model = model
        self.texts = [pair for block in own_texts(model, TOKENS, seed, LENGTH) for pair in block]
        tops = [logp_NV.topk(min(TOP_K, logp_NV.shape[-1]), -1) for logp_NV in self._logp()]
        self.ids = [top.indices for top in tops]
        self.base = [_with_rest(top.values) for top in tops]

    @torch.no_grad()
    def kl(self) -> float:
        """Return KL(model then || model now), in nats a token.

        Tokens outside the top ``TOP_K`` are one event, so it is at most the KL over the whole
        vocabulary, and hardly less.
        """
        total, positions = 0.0, 0
        for ids_NK, base_NK, logp_NV in zip(self.ids, self.base, self._logp(), strict=True):
            now_NK = _with_rest(logp_NV.gather(-1, ids_NK))
            total += (base_NK.exp() * (base_NK - now_NK)).sum().item()
            positions += len(base_NK)
        return total / positions

    def _logp(self) -> Iterator[torch.Tensor]:
        """Yield the log-probabilities (N, V) at the written tokens of a few texts at a time."""
        for some in batched(self.texts, AT_ONCE):
            ids_BT, mask_BT = pad_left([a + b for a, b in some], self.model.device)
            written = len(some[0][1])  # the same for all texts
            # Not in model.compute(): rounding to bfloat16 would move as much as a probe step.
            hidden_BTD = self.model.hidden(ids_BT[:, :-1], mask_BT[:, :-1])
            yield self.model.logits(hidden_BTD[:, -written:].flatten(0, 1)).log_softmax(-1)


def fitted_lr(own: OwnText, trained: Trainable, step: Callable[[float], object]) -> float:
    """Return the learning rate of the rule above, and leave the parameters as they were.

    Args:
        step: makes one first step of AdamW on facts, at a given rate.

    Raises:
        MethodError: if no rate was found, for example since the weights get no gradient.
    """
    rate = FIRST_TRY
    for _ in range(TRIES):
        try:
            step(rate)
            kl = own.kl()
        except NotFiniteError:
            kl = math.inf
        finally:
            trained.start_again()
        # KL grows with the square of the rate.
        factor = math.sqrt(STEP_KL / kl) if kl > 0 else FARTHEST
        if not factor >= 1 / FARTHEST:  # nan too
            factor = 1 / FARTHEST
        rate *= min(factor, FARTHEST)
        if STEP_KL / NEAR <= kl <= STEP_KL * NEAR:
            # Two digits, so that the rate can be given as an option.
            return float(f"{rate:.2g}")
    raise MethodError(
        f"No learning rate was found at which one step moves {own.model.name} by {STEP_KL} nats a "
        f"token on its own text: at {rate:.2g} it moves by {kl:.2g}. Give lr."
    )


def moved_far(kl: float | None) -> list[str]:
    """Return a warning if the model moved far on its own text."""
    # nan is far, too
    if kl is None or kl <= FAR:
        return []
    return [
        f"The model moved far on text of its own (KL above {FAR} nats a token), so other abilities "
        "have probably suffered. kl=1 holds it near the base; a smaller lr or fewer epochs help "
        "as well."
    ]


def _with_rest(logp_NK: torch.Tensor) -> torch.Tensor:
    """Append the log-probability of all other tokens; return (N, K + 1)."""
    rest_N1 = (1 - logp_NK.exp().sum(-1, keepdim=True)).clamp(min=1e-6).log()
    return torch.cat([logp_NK, rest_N1], -1)
