"""The parameters that a trainer changes: all weights, or low-rank adapters added to them.

Either way the model is bit for bit as before once the ``with`` ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch

from editbench.edit import Change
from editbench.errors import MethodError
from editbench.models import LanguageModel


class Trainable(Protocol):
    """A set of parameters to train, and how their change becomes an edit."""

    parameters: dict[str, torch.nn.Parameter]
    before: Mapping[str, torch.Tensor]
    """Copies of the parameters at the start; empty if they are not the model's own."""
    warnings: list[str]
    """What to know about weights that are not trained, in plain sentences."""

    def constrain(self) -> None:
        """Project the parameters onto the allowed subspace. The loop calls this after each step."""

    def changes(self) -> dict[str, Change]:
        """Return the change of each weight of the model, float32, on the CPU."""

    def interpolate(self, share: float) -> None:
        """Go back on the straight line to the base, to ``share`` of the change."""

    def restore(self) -> None:
        """Restore the model as it was."""


class FullWeights:
    """All parameters of the model.

    Raises:
        MethodError: if a parameter is stored in half precision.
    """

    def __init__(self, model: LanguageModel):
        self.parameters: dict[str, torch.nn.Parameter] = dict(model.model.named_parameters())
        for name, p in self.parameters.items():
            if p.dtype not in (torch.float32, torch.float64):
                raise MethodError(
                    f"{model.name} is stored in {p.dtype} ({name}), and rounding would swallow "
                    "most of a training step. Load it in float32 "
                    "(from_pretrained(..., dtype=torch.float32)), or train adapters (lora=16)."
                )
        self.before: Mapping[str, torch.Tensor] = {
            name: p.detach().clone() for name, p in self.parameters.items()
        }
        self.warnings: list[str] = []

    def constrain(self) -> None:
        """Do nothing: all weights are free."""

    @torch.no_grad()
    def changes(self) -> dict[str, Change]:
        """Return the change of each weight, float32, on the CPU."""
        return {
            name: (p.detach() - self.before[name]).float().cpu()
            for name, p in self.parameters.items()
        }

    @torch.no_grad()
    def interpolate(self, share: float) -> None:
        """Set each weight to theta_0 + share (theta - theta_0)."""
        for name, p in self.parameters.items():
            p.lerp_(self.before[name], 1 - share)

    @torch.no_grad()
    def restore(self) -> None:
        """Copy the original weights back."""
        for name, p in self.parameters.items():
            # A copy, because subtracting the change would round.
            p.copy_(self.before[name])


@contextmanager
def trainable(
    model: LanguageModel, rank: int | None, null_space: float | None, seed: int
) -> Iterator[Trainable]:
    """Yield the parameters to train, with ``requires_grad`` set.

    Weights, ``requires_grad`` flags and modules are restored at the end.

    Args:
        rank: rank of the low-rank adapters; None trains all weights.
        null_space: as ``Trainer.null_space``.
        seed: seed of the adapters' first values.
    """
    # PEFT renames modules and freezes the base weights, so note names and flags before it runs.
    parameters = dict(model.model.named_parameters())
    wanted_grad = {name: p.requires_grad for name, p in parameters.items()}
    trained: Trainable
    if rank is None:
        trained = FullWeights(model)
    else:
        from editbench.methods._train.adapters import Adapters  # peft takes seconds to import

        trained = Adapters(model, rank, null_space, seed)
    try:
        for p in trained.parameters.values():
            p.requires_grad_(True)
        yield trained
    finally:
        trained.restore()
        for name, p in parameters.items():
            p.requires_grad_(wanted_grad[name])
            p.grad = None
