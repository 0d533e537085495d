"""All weights of a model, trained by several processes, each of which keeps its share of them.

It is PyTorch's FSDP2 (``torch.distributed.fsdp.fully_shard``; Zhao et al. 2023, arXiv 2304.11277).
A process keeps one n-th of the float32 weights, of their gradients and of AdamW's two moments. A
layer is put together for its own pass, forwards and backwards, and taken apart again.

The model itself is not touched. Its modules are copied without their weights, and the copies get
the shards. While they are trained, the handle holds the copies; then it gets the model back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard

from editbench import processes
from editbench.changes import Change
from editbench.models import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


class ShardedWeights:
    """All parameters of the model, or those that are named, in float32 shards.

    Parameters are cut along their first dimension; a process may get none of a small one.
    """

    def __init__(self, model: LanguageModel, names: Collection[str] | None = None):
        self.handle, self.whole = model, model.model
        self.base: dict[str, torch.nn.Parameter] = dict(self.whole.named_parameters())
        self.mesh = init_device_mesh(model.device.type, (processes.count(),))
        trained = {id(p) for name, p in self.base.items() if names is None or name in names}
        copied = _without_weights(self.whole)
        for layer in _layers(copied):
            _in_float32(layer, trained)
            fully_shard(layer, mesh=self.mesh)
        self.root = _Pass(copied)
        _in_float32(copied, trained)
        # Taken apart after each pass, as the layers are: a pass that has no backward pass would
        # otherwise leave weights behind that the next step makes old.
        fully_shard(self.root, mesh=self.mesh, reshard_after_forward=True)
        self.parameters: dict[str, torch.nn.Parameter] = {
            name: p for name, p in copied.named_parameters() if p.requires_grad
        }
        self.before: Mapping[str, torch.Tensor] = _Before(self)
        self.rounding_lost: float | None = None
        self.warnings: list[str] = []
        model.model = copied

    def run(self, compute: Callable[[], T]) -> T:
        """Return what ``compute`` returns; the model's passes inside find their weights."""
        return cast("T", self.root(compute))

    def shard(self, whole: torch.Tensor) -> DTensor:
        """Return this process's share of a weight, or of a tensor like it, in float32."""
        n, own = processes.count(), processes.rank()
        parts = whole.detach().chunk(n, dim=0)
        part = parts[own] if own < len(parts) else whole.detach()[:0]
        return DTensor.from_local(
            part.to(self.mesh.device_type, torch.float32),
            self.mesh,
            [Shard(0)],
            run_check=False,
            shape=whole.shape,
            stride=whole.contiguous().stride(),
        )

    def constrain(self) -> None:
        """Do nothing: all weights are free."""

    @torch.no_grad()
    def changes(self) -> dict[str, Change]:
        """Return the change of each weight, float32, on the CPU; the same in all processes."""
        return {
            name: _full(p.detach() - self.before[name]).cpu()  # type: ignore[arg-type]
            for name, p in self.parameters.items()
        }

    @torch.no_grad()
    def interpolate(self, share: float) -> None:
        """Set each weight to theta_0 + share (theta - theta_0)."""
        for name, p in self.parameters.items():
            _local(p).lerp_(_local(self.before[name]), 1 - share)

    @torch.no_grad()
    def settle(self) -> None:
        """Round the weights to the type in which the model holds them."""
        if all(weight.itemsize >= 4 for weight in self.base.values()):
            return
        lost, moved = 0.0, 0.0
        for name, p in self.parameters.items():
            local, before = _local(p), _local(self.before[name])
            rounded = local.to(self.base[name].dtype).float()
            lost += (local - rounded).square().sum().item()
            moved += (local - before).square().sum().item()
            local.copy_(rounded)
        lost, moved = processes.summed(lost, moved)
        self.rounding_lost = (lost / moved) ** 0.5 if moved else 0.0

    def restore(self) -> None:
        """Give the handle its model back, whose weights were never touched."""
        self.handle.model = self.whole


class _Pass(nn.Module):
    """A module whose forward pass is any computation, so that FSDP2 sees it begin and end.

    Losses call the base model and its head apart. FSDP2 puts a module's weights together when that
    module is called; this one is around both.
    """

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, compute: Callable[[], T]) -> T:
        """Return what ``compute`` returns."""
        return compute()


class _Before(Mapping[str, torch.Tensor]):
    """The shards of the weights as they were; each is cut from the model when it is asked for."""

    def __init__(self, of: ShardedWeights):
        self.of = of

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.of.shard(self.of.base[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.of.parameters)

    def __len__(self) -> int:
        return len(self.of.parameters)


def _without_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of the modules that shares the weights and buffers of ``model``."""
    return deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})


def _in_float32(module: nn.Module, trained: Collection[int]) -> None:
    """Replace the weights inside ``module`` by float32 copies, unless they are shards already.

    Args:
        trained: the ids of the weights that are to get gradients.
    """
    made: dict[int, nn.Parameter] = {}  # a weight that is used twice stays one weight
    for inner in module.modules():
        for name, p in inner.named_parameters(recurse=False, remove_duplicate=False):
            if isinstance(p, DTensor):
                continue
            if id(p) not in made:
                floating = p.is_floating_point()
                values = p.detach().float() if floating else p.detach()
                made[id(p)] = nn.Parameter(values, floating and id(p) in trained)
            inner.register_parameter(name, made[id(p)])


def _layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers that are put together one at a time, as transformers marks them.

    A layer that shares a weight with another part of the model is none of them.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer  # takes seconds to import

    uses = Counter(id(p) for p in _each_use(model))
    layers: list[nn.Module] = []
    inside: set[int] = set()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and id(module) not in inside:
            inside |= {id(inner) for inner in module.modules()}
            own = Counter(id(p) for p in _each_use(module))
            if own and all(uses[p] == n for p, n in own.items()):
                layers.append(module)
    return layers


def _each_use(module: nn.Module) -> Iterator[nn.Parameter]:
    for inner in module.modules():
        yield from inner.parameters(recurse=False)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's share of a sharded tensor."""
    assert isinstance(tensor, DTensor)
    return tensor.to_local()


def _full(tensor: DTensor) -> torch.Tensor:
    """Return the whole tensor, which all processes put together."""
    return tensor.full_tensor()
