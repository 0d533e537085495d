"""The parameters that a trainer changes: all weights, or low-rank adapters added to them.

Either way the model is bit for bit as before once the ``with`` ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

from editbench.changes import Change
from editbench.models import LanguageModel
from editbench.tensors import kept

T = TypeVar("T")


class Trainable(Protocol):
    """A set of parameters to train, and how their change becomes an edit."""

    parameters: dict[str, torch.nn.Parameter]
    before: Mapping[str, torch.Tensor]
    """Copies of the parameters at the start; empty if they are not the model's own."""
    rounding_lost: float | None
    """Share of the change that ``settle`` took; None where nothing is rounded."""
    warnings: list[str]
    """What to know about weights that are not trained, in plain sentences."""

    def run(self, compute: Callable[[], T]) -> T:
        """Return what ``compute`` returns. All passes of a training go through here."""

    def shard(self, whole: torch.Tensor) -> torch.Tensor:
        """Return this process's share of a tensor that is as large as a weight."""

    def constrain(self) -> None:
        """Project the parameters onto the allowed subspace. The loop calls this after each step."""

    def changes(self) -> dict[str, Change]:
        """Return the change of each weight of the model, float32, on the CPU."""

    def interpolate(self, share: float) -> None:
        """Go back on the straight line to the base, to ``share`` of the change."""

    def settle(self) -> None:
        """Round what was trained to the type in which the model holds its weights."""

    def restore(self) -> None:
        """Restore the model as it was."""


class _Before(Mapping[str, torch.Tensor]):
    """Weights as they were, each on its own device and in at least 32 bits when it is asked for."""

    def __init__(self, held: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor]):
        self.held, self.now = held, now

    def __getitem__(self, name: str) -> torch.Tensor:
        weight = self.held[name].to(self.now[name].device)
        return weight.float() if weight.itemsize < 4 else weight

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)


class FullWeights:
    """All parameters of the model, or those that are named.

    Weights that are held in 16 bits are float32 while some are trained, since rounding would
    swallow most of a step. ``settle`` rounds them back to their type.
    """

    def __init__(self, model: LanguageModel, names: Collection[str] | None = None):
        self._all: dict[str, torch.nn.Parameter] = dict(model.model.named_parameters())
        self.parameters: dict[str, torch.nn.Parameter] = {
            name: p for name, p in self._all.items() if names is None or name in names
        }
        self._held: dict[str, torch.Tensor] = {}
        """The weights of 16 bits as they were; these very tensors come back."""
        try:
            copies = kept(self._begun(), self._copied(), "the weights as they were")
        except BaseException:  # out of memory, or Ctrl-C: leave no half-converted model behind
            self._give_back()
            raise
        self.before: Mapping[str, torch.Tensor] = _Before({**copies, **self._held}, self._all)
        self.rounding_lost: float | None = None
        self.warnings: list[str] = []

    def _copied(self) -> int:
        """Return the bytes of the trained weights that are not of 16 bits."""
        return sum(p.nbytes for p in self.parameters.values() if p.itemsize > 2)

    def _begun(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Make weights of 16 bits float32, and yield a copy of each other weight."""
        for name, p in self._all.items():
            if p.dtype in (torch.float16, torch.bfloat16):
                self._held[name] = p.data
                p.data = p.data.float()
            elif name in self.parameters:
                yield name, p.detach().clone()

    def _give_back(self) -> None:
        """Bring back the weights of 16 bits."""
        for name, held in self._held.items():
            self._all[name].grad = None  # a gradient of another type
            self._all[name].data = held

    def run(self, compute: Callable[[], T]) -> T:
        """Return what ``compute`` returns."""
        return compute()

    def shard(self, whole: torch.Tensor) -> torch.Tensor:
        """Return ``whole``: this process has all of each weight."""
        return whole

    def constrain(self) -> None:
        """Do nothing: all weights are free."""

    @torch.no_grad()
    def changes(self) -> dict[str, Change]:
        """Return the change of each weight, float32, on the CPU; large ones are in a file."""
        moved = (
            (name, (p.detach() - self.before[name]).float().cpu())
            for name, p in self.parameters.items()
        )
        size = sum(4 * p.numel() for p in self.parameters.values())
        return dict(kept(moved, size, "the change of all weights"))

    @torch.no_grad()
    def interpolate(self, share: float) -> None:
        """Set each weight to theta_0 + share (theta - theta_0)."""
        for name, p in self.parameters.items():
            p.lerp_(self.before[name], 1 - share)

    @torch.no_grad()
    def settle(self) -> None:
        """Round the weights to the type in which the model holds them."""
        if not self._held:
            return
        lost, moved = 0.0, 0.0
        for name, p in self.parameters.items():
            held = self._held.get(name)
            rounded = p if held is None else p.to(held.dtype).float()
            lost += _square(p - rounded)
            moved += _square(p - self.before[name])
            p.copy_(rounded)
        self.rounding_lost = (lost / moved) ** 0.5 if moved else 0.0

    @torch.no_grad()
    def restore(self) -> None:
        """Bring the original weights back."""
        self._give_back()
        for name, p in self.parameters.items():
            if name not in self._held:
                # A copy, because subtracting the change would round.
                p.copy_(self.before[name])


def _square(difference: torch.Tensor) -> float:
    return difference.float().square().sum().item()


@contextmanager
def trainable(
    model: LanguageModel,
    rank: int | None,
    null_space: float | None,
    seed: int,
    names: Collection[str] | None = None,
    sharded: bool = False,
) -> Iterator[Trainable]:
    """Yield the parameters to train, with ``requires_grad`` set.

    Weights, ``requires_grad`` flags and modules are restored at the end.

    Args:
        rank: rank of the low-rank adapters; None trains the weights themselves.
        null_space: as ``Trainer.null_space``.
        seed: seed of the adapters' first values.
        names: the weights to train; None: all.
        sharded: each process keeps its share of the weights (``sharded.py``). Adapters are small,
            so each process has them all.
    """
    # PEFT renames modules and freezes the base weights, so note names and flags before it runs.
    parameters = dict(model.model.named_parameters())
    wanted_grad = {name: p.requires_grad for name, p in parameters.items()}
    trained: Trainable
    if rank is None and sharded:
        # PyTorch's modules for that take time to import.
        from editbench.methods._train.sharded import ShardedWeights

        trained = ShardedWeights(model, names)
    elif rank is None:
        trained = FullWeights(model, names)
    else:
        from editbench.methods._train.adapters import Adapters  # peft takes seconds to import

        trained = Adapters(model, rank, null_space, seed)
    try:
        # No gradient is computed for a weight that is not trained.
        for p in parameters.values():
            p.requires_grad_(False)
        for p in trained.parameters.values():
            p.requires_grad_(True)
        yield trained
    finally:
        trained.restore()
        for name, p in parameters.items():
            p.requires_grad_(wanted_grad[name])
            p.grad = None
