"""How a training goes: the errors and warnings about its loss and its weights."""

from __future__ import annotations

from collections.abc import Sequence

from editbench.changes import Change
from editbench.errors import MethodError
from editbench.methods._train.trainer import Trainer

DIVERGED, DIVERGED_STEPS = 3.0, 8
"""Training stops with an error when the mean loss of the last ``DIVERGED_STEPS`` steps, or of all
steps of a shorter training, is ``DIVERGED`` nats above the first loss. Such a training does not
recover. A first loss less than ``DIVERGED`` below log V, the loss of a model that finds all tokens
equally probable, can hardly rise that far. The ``jsd`` of ``opsd`` is at most log 2 and never gets
there; a loss that has not fallen gives a warning instead."""
SMALL = 0.01
"""Nats. A loss that ends below it had little to fall from; the loss of ``opsd`` may start there."""


def check_diverged(options: Trainer, lr: float, losses: Sequence[float], steps: int) -> None:
    """Raise a ``MethodError`` if the loss has risen too far to come back in ``steps`` steps."""
    window = min(DIVERGED_STEPS, steps)
    # Until there are that many losses, the missing ones count as 0 and delay the verdict.
    if sum(losses[-window:]) / window > losses[0] + DIVERGED:
        raise exploded(
            options,
            lr,
            f"the loss rose from {losses[0]:.2f} to {losses[-1]:.2f} by step {len(losses)}",
        )


def exploded(options: Trainer, lr: float, what: str) -> MethodError:
    """Return the error of a training that went wrong; ``what`` says how."""
    return MethodError(f"{options.name}: {what}. Use a smaller lr than {lr}.")


def is_finite(change: Change) -> bool:
    """Return whether no entry of a change is infinite or NaN."""
    factors = change if isinstance(change, tuple) else (change,)
    return all(bool(factor.isfinite().all()) for factor in factors)


def hardly_fell(options: Trainer, lr: float, losses: Sequence[float], final: float) -> list[str]:
    """Return a warning if the loss did not fall."""
    if len(losses) == 1 or final <= max(0.99 * losses[0], SMALL, options.enough):
        return []
    return [
        f"The loss did not fall, from {losses[0]:.3g} at first to {final:.3g} in the last epoch: "
        f"the facts are hardly learned. Try another lr than {lr}, or more epochs."
    ]
