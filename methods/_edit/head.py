"""Losses of single positions, read through the model's head many positions at a time.

A position's loss depends on that position's state alone, so its gradient is found beside it, by the formula for the logits
z, and no array of all positions times the vocabulary is walked through again:

    nll = -log softmax(z)[label]            d nll / d z = p - onehot(label)
    KL(p || q) = sum p (log p - log q)      d KL / d z = p (log p - log q - KL)

Both kinds go through the head together, whose weights are the model's largest: a product with them is slow for few
positions. What follows it is done some rows at a time, which a cache holds; each gradient takes the place of its logits.

    # K = L + M positions, D model width, V vocabulary
"""

from __future__ import annotations

import torch

from editbench.models import LanguageModel

LOGITS_AT_ONCE, LOGITS_IN_CACHE = 2**25, 2**20


def nll_and_divergence(
    model: LanguageModel, states_KD: torch.Tensor, label_L: torch.Tensor, base_MV: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """-log p(label) of the first L last hidden states, and KL(p || q) in nats of the M behind them, ``base_MV``: log q;
    differentiable by the states, once."""
    return Headed.apply(states_KD, model, label_L, base_MV).split([len(label_L), len(base_MV)])


def nll_(logits_lV: torch.Tensor, label_l: torch.Tensor) -> torch.Tensor:
    """(l,); its gradient takes the place of the logits."""
    logp_lV = logits_lV.log_softmax(-1)
    torch.exp(logp_lV, out=logits_lV).scatter_add_(
        -1, label_l[:, None], logp_lV.new_full((len(label_l), 1), -1.0)
    )
    return -logp_lV.gather(-1, label_l[:, None])[:, 0]


def divergence_(logits_mV: torch.Tensor, base_mV: torch.Tensor) -> torch.Tensor:
    """(m,); its gradient takes the place of the logits."""
    logp_mV = logits_mV.log_softmax(-1)
    p_mV, apart_mV = torch.exp(logp_mV, out=logits_mV), logp_mV.sub_(base_mV)
    kl_m = (p_mV * apart_mV).sum(-1)
    p_mV.mul_(apart_mV.sub_(kl_m[:, None]))
    return kl_m


class Headed(torch.autograd.Function):
    """The loss (K,) of each state."""

    @staticmethod
    def forward(
        ctx,
        states_KD: torch.Tensor,
        model: LanguageModel,
        label_L: torch.Tensor,
        base_MV: torch.Tensor,
    ) -> torch.Tensor:
        found, gradients, length = [], [], len(label_L)
        size, rows = (
            max(1, most // base_MV.shape[-1]) for most in (LOGITS_AT_ONCE, LOGITS_IN_CACHE)
        )
        for start in range(0, len(states_KD), size):
            end = min(start + size, len(states_KD))
            with torch.set_grad_enabled(states_KD.requires_grad):
                states_kD = states_KD[start:end].detach().requires_grad_(states_KD.requires_grad)
                logits_kV = model.logits(states_kD)
            label_l, base_mV = (
                label_L[start:end],
                base_MV[max(0, start - length) : max(0, end - length)],
            )
            labelled_lV, compared_mV = logits_kV.detach().split([len(label_l), len(base_mV)])
            found += [
                nll_(*part)
                for part in zip(labelled_lV.split(rows), label_l.split(rows), strict=True)
            ]
            found += [
                divergence_(*part)
                for part in zip(compared_mV.split(rows), base_mV.split(rows), strict=True)
            ]
            if states_KD.requires_grad:
                gradients += torch.autograd.grad(logits_kV, states_kD, logits_kV.detach())
            del logits_kV, labelled_lV, compared_mV
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(found)

    @staticmethod
    def backward(ctx, gradient_K: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (by_state_KD,) = ctx.saved_tensors
        return gradient_K[:, None] * by_state_KD, None, None, None
