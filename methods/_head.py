"""Losses of single positions, read through the model's head a few positions at a time.

A position's loss depends on that position's state alone, so its gradient is found beside it, by the formula for the logits
z, and no array of all positions times the vocabulary is held or walked through again:

    nll = -log softmax(z)[label]            d nll / d z = p - onehot(label)
    KL(p || q) = sum p (log p - log q)      d KL / d z = p (log p - log q - KL)

    # K positions, D model width, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from editbench.models import LanguageModel

LOGITS_AT_ONCE = 2**23


def nll(model: LanguageModel, states_KD: torch.Tensor, label_K: torch.Tensor) -> torch.Tensor:
    """-log p(label), (K,), of last hidden states; differentiable by them, once."""

    def loss(logp_kV: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        label_k1 = label_K[part, None]
        found_k = -logp_kV.gather(-1, label_k1)[:, 0]
        return found_k, logp_kV.exp_().scatter_add_(-1, label_k1, logp_kV.new_full(label_k1.shape, -1.0))

    return Headed.apply(states_KD, model, loss)


def divergence(model: LanguageModel, states_KD: torch.Tensor, base_KV: torch.Tensor) -> torch.Tensor:
    """KL(p || q) in nats, (K,), of last hidden states; ``base_KV``: log q."""

    def loss(logp_kV: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        p_kV, apart_kV = logp_kV.exp(), logp_kV - base_KV[part]
        kl_k = (p_kV * apart_kV).sum(-1)
        return kl_k, p_kV * (apart_kV - kl_k[:, None])

    return Headed.apply(states_KD, model, loss)


class Headed(torch.autograd.Function):
    """The loss (K,) of each state; ``loss`` gives it and its gradient by the logits."""

    @staticmethod
    def forward(ctx, states_KD: torch.Tensor, model: LanguageModel, loss: Callable) -> torch.Tensor:
        found, gradients = [], []
        size = max(1, LOGITS_AT_ONCE // model.model.config.get_text_config().vocab_size)
        for start in range(0, len(states_KD), size):
            part = slice(start, start + size)
            with torch.enable_grad():
                states_kD = states_KD[part].detach().requires_grad_(True)
                logits_kV = model.logits(states_kD)
            found_k, gradient_kV = loss(logits_kV.detach().log_softmax(-1), part)
            found.append(found_k)
            gradients += torch.autograd.grad(logits_kV, states_kD, gradient_kV) if states_KD.requires_grad else []
            del logits_kV, gradient_kV
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(found)

    @staticmethod
    def backward(ctx, gradient_K: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (by_state_KD,) = ctx.saved_tensors
        return gradient_K[:, None] * by_state_KD, None, None
