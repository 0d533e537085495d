"""How often the teacher of ``opsd`` sees the fact: for a fixed share of the rollouts, or one that adapts during training.

A teacher that sees far more than the student can say gives targets too strong to absorb (ATESD, Han et al. 2026,
arXiv 2605.11458). The adaptive share is ATESD's: drawn from a Beta distribution whose parameters follow from the state of the
training, held for a few steps, and learned by REINFORCE from the student's later progress:

    e_i ~ Beta(alpha(s_i), beta(s_i))                 s_i: share of the steps done, nll of the targets, last share
    R_i = sum_h gamma^h (nll_{i+h} - nll_{i+h+1})     progress after decision i, h = 0 .. HORIZON - 1
    w  <- w + rate (R_i - mean R) grad log Beta(e_i)

Differs from ATESD: there the share is that of a long solution, of which the teacher reads the beginning. A fact is one
sentence whose last words are the answer, and no beginning of it would ever say that; so here the teacher reads the note for
that share of the rollouts, and the plain prompt for the others, to which it says what it always said. Progress is that of the
targets' own nll on a few facts, which does not depend on what the teacher sees; the controller is linear in the state.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.distributions import Beta

HOLD = 4
"""Steps for which one share holds."""
HORIZON, GAMMA, RATE = 3, 0.7, 0.5
LEAST = 0.05
LEAST_SHAPE = 0.05
START = tuple(math.log(math.expm1(shape - LEAST_SHAPE)) for shape in (3.0, 1.0))
"""softplus^-1 of alpha and beta at first: shares of .75 on average."""


class FixedExposure:
    """Always the same share."""

    def __init__(self, share: float):
        self.share = share

    def report(self) -> dict[str, float]:
        return {}


class AdaptiveExposure:
    """The controller. ``update`` is to be called every ``HOLD`` steps, with the share of the steps done and the nll."""

    def __init__(self, seed: int):
        self._dice = np.random.default_rng(seed)
        self.weights_S2 = torch.zeros(4, 2, requires_grad=True)
        self.states: list[torch.Tensor] = []
        self.shares: list[float] = []
        self.nlls: list[float] = []
        self.rewards: list[float] = []
        self.share = 1.0

    def policy(self, state_S: torch.Tensor) -> Beta:
        alpha, beta = (
            torch.nn.functional.softplus(state_S @ self.weights_S2 + torch.tensor(START))
            + LEAST_SHAPE
        )
        return Beta(alpha, beta)

    def update(self, done: float, nll: float) -> None:
        """Learns from the decision ``HORIZON`` windows ago, then decides for the next window."""
        with torch.enable_grad():
            self.nlls.append(nll)
            if (i := len(self.nlls) - 1 - HORIZON) >= 0:
                self.rewards.append(
                    sum(
                        GAMMA**h * (self.nlls[i + h] - self.nlls[i + h + 1]) for h in range(HORIZON)
                    )
                )
                advantage = self.rewards[-1] - sum(self.rewards) / len(self.rewards)
                chance = self.policy(self.states[i]).log_prob(torch.tensor(self.shares[i]))
                (gradient,) = torch.autograd.grad(chance, self.weights_S2)
                with torch.no_grad():
                    self.weights_S2 += RATE * advantage * gradient.clamp(-1, 1)
        state_S = torch.tensor([1.0, done, min(nll, 10.0) / 10, self.share])
        with torch.no_grad():
            policy = self.policy(state_S)
            drawn = self._dice.beta(policy.concentration1.item(), policy.concentration0.item())
            self.share = min(max(drawn, LEAST), 1 - 1e-4)
        self.states.append(state_S)
        self.shares.append(self.share)

    def report(self) -> dict[str, float]:
        return {
            "exposure_mean": sum(self.shares) / max(1, len(self.shares)),
            "exposure_last": self.share,
        }
