"""How far a training moves the model on its own text: measured, and for one step chosen.

# N positions of all texts, K the base's most probable tokens, V vocabulary
"""

from __future__ import annotations

import torch

from editbench.models import LanguageModel, batched
from editbench.own_text import own_texts
from editbench.text import pad_left

TOKENS, LENGTH = 512, 32
"""Tokens of own text, and of one text."""
AT_ONCE = 8
"""Texts in one forward pass."""
TOP_K = 256
"""Most probable tokens of the base that are kept apart. The others count as one event, since the
log-probabilities of a whole vocabulary would take hundreds of megabytes."""


class OwnText:
    """Texts that the model wrote, and its next-token distributions on them, both as it is now."""

    @torch.no_grad()
    def __init__(self, model: LanguageModel, seed: int):
        self.model = model
        self.texts = [pair for block in own_texts(model, TOKENS, seed, LENGTH) for pair in block]
        parts = [logp_NV.topk(min(TOP_K, logp_NV.shape[-1])) for logp_NV in self._logp()]
        self.ids = [part.indices for part in parts]
        self.base = [_with_rest(part.values) for part in parts]

    @torch.no_grad()
    def kl(self) -> float:
        """Return KL(model then || model now), in nats a token.

        Tokens outside the top ``TOP_K`` are one event, so this is slightly less than the KL over
        the whole vocabulary.
        """
        total = positions = 0.0
        for ids_NK, base_NK, logp_NV in zip(self.ids, self.base, self._logp(), strict=True):
            now_NK = _with_rest(logp_NV.gather(-1, ids_NK))
            total += (base_NK.exp() * (base_NK - now_NK)).sum().item()
            positions += len(base_NK)
        return total / positions

    def _logp(self):
        """Yield the log-probabilities (N, V) at the written tokens, a few texts at a time."""
        for some in batched(self.texts, AT_ONCE):
            ids_BT, mask_BT = pad_left([a + b for a, b in some], self.model.device)
            written = len(some[0][1])
            with self.model.compute(weights_fixed=True):
                hidden_BTD = self.model.hidden(ids_BT[:, :-1], mask_BT[:, :-1])
                yield self.model.logits(hidden_BTD[:, -written:].flatten(0, 1)).log_softmax(-1)


def _with_rest(logp_NK: torch.Tensor) -> torch.Tensor:
    """Append the log-probability of all other tokens; return float64 (N, K + 1)."""
    logp_NK = logp_NK.double()
    rest_N1 = (1 - logp_NK.exp().sum(-1, keepdim=True)).clamp(min=1e-9).log()
    return torch.cat([logp_NK, rest_N1], -1)
