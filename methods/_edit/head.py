"""Losses of single positions, read through the model's head many positions at a time.

A position's loss depends on that position's state alone. So its gradient is computed along with it,
by the formula for the logits z, and no array of all positions times the vocabulary is read again:

    nll = -log softmax(z)[label]            d nll / d z = p - onehot(label)
    KL(p || q) = sum p (log p - log q)      d KL / d z = p (log p - log q - KL)

Both kinds go through the head together. Its weights are the model's largest, and multiplying few
positions by them is slow. The losses are then computed a few rows at a time, so that the rows stay
in the processor's cache. Each gradient overwrites its logits.

    # K = L + M positions, D model width, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.autograd.function import FunctionCtx

from editbench.models import LanguageModel

LOGITS_AT_ONCE, LOGITS_IN_CACHE = 2**25, 2**20
"""Most logits that go through the head together (128 MiB), and most whose losses are computed
together (4 MiB)."""


def nll_and_divergence(
    model: LanguageModel, states_KD: torch.Tensor, label_L: torch.Tensor, base_MV: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return -log p(label) of the first L last hidden states, and KL(p || q) of the M after them.

    ``base_MV`` is log q, and the KL is in nats. Both are differentiable with respect to the
    states, once.
    """
    losses = headed(states_KD, model, label_L, base_MV)
    nll, kl = torch.split(losses, [len(label_L), len(base_MV)])
    return nll, kl


def nll_(logits_lV: torch.Tensor, label_l: torch.Tensor) -> torch.Tensor:
    """Return the nll (l,), and overwrite the logits with its gradient."""
    logp_lV = logits_lV.log_softmax(-1)
    # p - onehot(label)
    torch.exp(logp_lV, out=logits_lV).scatter_add_(
        -1, label_l[:, None], logp_lV.new_full((len(label_l), 1), -1.0)
    )
    return -logp_lV.gather(-1, label_l[:, None])[:, 0]


def divergence_(logits_mV: torch.Tensor, base_mV: torch.Tensor) -> torch.Tensor:
    """Return the KL (m,), and overwrite the logits with its gradient."""
    logp_mV = logits_mV.log_softmax(-1)
    p_mV, apart_mV = torch.exp(logp_mV, out=logits_mV), logp_mV.sub_(base_mV)
    kl_m = (p_mV * apart_mV).sum(-1)
    # p (log p - log q - KL)
    p_mV.mul_(apart_mV.sub_(kl_m[:, None]))
    return kl_m


class _Context(FunctionCtx):
    """What ``Headed`` keeps between its passes."""

    saved_tensors: tuple[torch.Tensor, ...]


class Headed(torch.autograd.Function):
    """The loss (K,) of each state."""

    @staticmethod
    def forward(
        ctx: _Context,
        states_KD: torch.Tensor,
        model: LanguageModel,
        label_L: torch.Tensor,
        base_MV: torch.Tensor,
    ) -> torch.Tensor:
        losses: list[torch.Tensor] = []
        gradients: list[torch.Tensor] = []
        length, vocabulary = len(label_L), base_MV.shape[-1]
        size, rows = (max(1, most // vocabulary) for most in (LOGITS_AT_ONCE, LOGITS_IN_CACHE))
        for start in range(0, len(states_KD), size):
            end = min(start + size, len(states_KD))
            with torch.set_grad_enabled(states_KD.requires_grad):
                # A graph of the head alone: it is differentiated here, chunk by chunk, and freed.
                states_kD = states_KD[start:end].detach().requires_grad_(states_KD.requires_grad)
                logits_kV = model.logits(states_kD)
            label_l = label_L[start:end]
            # The first ``length`` positions have labels, the others base distributions.
            base_mV = base_MV[max(0, start - length) : max(0, end - length)]
            labelled_lV, compared_mV = torch.split(logits_kV.detach(), [len(label_l), len(base_mV)])
            losses += map(nll_, torch.split(labelled_lV, rows), torch.split(label_l, rows))
            losses += map(divergence_, torch.split(compared_mV, rows), torch.split(base_mV, rows))
            if states_KD.requires_grad:
                # ``nll_`` and ``divergence_`` have turned these logits into d loss / d z in place.
                gradients += torch.autograd.grad(logits_kV, states_kD, logits_kV.detach())
            del logits_kV, labelled_lV, compared_mV  # the largest arrays, before the next ones
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: _Context, gradient_K: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (by_state_KD,) = ctx.saved_tensors
        # Each loss depends on its own state only, so the Jacobian is one row per state.
        return gradient_K[:, None] * by_state_KD, None, None, None


# torch does not annotate ``Function.apply``
headed: Callable[[torch.Tensor, LanguageModel, torch.Tensor, torch.Tensor], torch.Tensor] = (
    Headed.apply
)
