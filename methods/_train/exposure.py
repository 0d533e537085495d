"""How often the teacher of ``opsd`` reads the fact: a fixed or a learned share of the rollouts.

A teacher that sees far more than the student can say gives targets that are too strong to absorb
(ATESD, Han et al. 2026, arXiv 2605.11458). The adaptive share is ATESD's: it is drawn from a Beta
distribution whose parameters depend on the state of the training, held for a few steps, and learned
by REINFORCE from the student's later progress:

    e_i ~ Beta(alpha(s_i), beta(s_i))                 s_i: share of the steps done, nll of the
                                                      targets, last share
    R_i = sum_h gamma^h (nll_{i+h} - nll_{i+h+1})     progress after decision i, h < HORIZON
    w  <- w + rate (R_i - mean R) grad log Beta(e_i)

Differs from ATESD:

- In ATESD the teacher reads the first part of a long solution, and the share is the length of that
  part. A fact is one sentence that ends with the answer, so no first part of it contains the
  answer. Here the teacher reads the whole note for that share of the rollouts. For the other
  rollouts it reads the plain prompt, which it answers as the base model does.
- Progress is the fall of the targets' nll on a few facts. It does not depend on what the teacher
  reads.
- The controller is linear in the state.
"""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np
import torch
from torch.distributions import Beta

HOLD = 4
"""Steps for which one share holds."""
HORIZON, GAMMA, RATE = 3, 0.7, 0.5
"""Number of decisions that a reward looks ahead, the discount per decision, and the step size of
REINFORCE."""
LEAST = 0.05
"""Smallest share."""
LEAST_SHAPE = 0.05
"""Smallest parameter of the Beta distribution."""
START = tuple(math.log(math.expm1(shape - LEAST_SHAPE)) for shape in (3.0, 1.0))
"""Inverse softplus of alpha - ``LEAST_SHAPE`` and beta - ``LEAST_SHAPE`` at the start, where alpha
is 3 and beta is 1: shares of 0.75 on average."""


class ExposureReport(TypedDict, total=False):
    """What an adaptive exposure reports."""

    exposure_mean: float
    exposure_last: float


class FixedExposure:
    """The same share at every step."""

    def __init__(self, share: float):
        self.share = share

    def report(self) -> ExposureReport:
        """Return nothing: the share is an option."""
        return {}


class AdaptiveExposure:
    """The learned share. Call ``update`` every ``HOLD`` steps."""

    def __init__(self, seed: int):
        # NumPy's, because Beta.sample() of torch draws from the global generator.
        self._dice = np.random.default_rng(seed)
        # At 0 the state does not matter yet, and START alone decides.
        self.weights_S2 = torch.zeros(4, 2, requires_grad=True)
        self.states: list[torch.Tensor] = []
        self.shares: list[float] = []
        self.nlls: list[float] = []
        self.rewards: list[float] = []
        self.share = 1.0

    def policy(self, state_S: torch.Tensor) -> Beta:
        """Return the distribution of the next share, given the state."""
        alpha, beta = (
            torch.nn.functional.softplus(state_S @ self.weights_S2 + torch.tensor(START))
            + LEAST_SHAPE
        )
        return Beta(alpha, beta)

    def update(self, done: float, nll: float) -> None:
        """Learn from the decision ``HORIZON`` windows ago, then decide for the next window.

        Args:
            done: share of the steps that are done.
            nll: of the targets now, in nats a token.
        """
        self.nlls.append(nll)
        decision = len(self.nlls) - 1 - HORIZON
        if decision >= 0:
            self._learn(decision)
        # A constant, then three numbers of about the same scale: nll is cut off at 10 nats.
        state_S = torch.tensor([1.0, done, min(nll, 10.0) / 10, self.share])
        with torch.no_grad():
            policy = self.policy(state_S)
            drawn = self._dice.beta(policy.concentration1.item(), policy.concentration0.item())
            # The log-probability of a share of 1 can be infinite.
            self.share = min(max(drawn, LEAST), 1 - 1e-4)
        self.states.append(state_S)
        self.shares.append(self.share)

    def _learn(self, i: int) -> None:
        """Make the shares of rewarded decisions more probable: one step of REINFORCE."""
        progress = (GAMMA**h * (self.nlls[i + h] - self.nlls[i + h + 1]) for h in range(HORIZON))
        self.rewards.append(sum(progress))
        # The mean reward so far is the baseline, which lowers the variance of the step.
        advantage = self.rewards[-1] - sum(self.rewards) / len(self.rewards)
        with torch.enable_grad():
            policy = self.policy(self.states[i])
            share = torch.tensor(self.shares[i])
            chance = policy.log_prob(share)
            (gradient,) = torch.autograd.grad(chance, self.weights_S2)
            with torch.no_grad():
                # Clamped, because grad log Beta is large for shares near 0 and 1.
                self.weights_S2 += RATE * advantage * gradient.clamp(-1, 1)

    def report(self) -> ExposureReport:
        """Return the mean and the last share."""
        return {
            "exposure_mean": sum(self.shares) / max(1, len(self.shares)),
            "exposure_last": self.share,
        }
