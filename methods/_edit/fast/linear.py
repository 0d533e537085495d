"""Float32 products on a CPU with weights that do not change.

torch multiplies float32 states by a weight as it lies in memory, and the library underneath packs
that weight into blocks again for every product. With a weight that oneDNN laid out in blocks once,
the same product ran at 220 instead of 170 to 190 GFLOP/s for SmolLM2's layers, and at 180 instead
of 100 to 135 for its head (hundreds of rows, AMD EPYC, two cores). In bfloat16 both ways are
equally fast.

    # i inputs, o outputs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property

import torch
from torch import nn
from torch.autograd.function import FunctionCtx

from editbench.memory import free_bytes, gibibytes
from editbench.models import LanguageModel, computing
from editbench.outline import Outline

COPIES = 4 * 2**30
"""Bytes of copies up to which weights are laid out: those of 0.5 billion weights. It is fixed,
since the two ways round differently, and an edit must not depend on what else runs here."""


class LaidOut:
    """Copies of a model's linear weights, laid out when a product first needs them, and then kept.

    There are none where the model computes in another precision or on a GPU, or where the two
    copies of each weight, one of them for gradients, take more than ``COPIES``. If there is no room
    for them, the user is told.
    """

    def __init__(self, model: LanguageModel):
        self.model = model

    @cached_property
    def layers(self) -> list[Laid]:
        """The layers that multiply by copies."""
        linears: list[nn.Linear] = []
        if self.model.precision == "float32":
            linears = [
                module
                for module in self.model.model.modules()
                if isinstance(module, nn.Linear) and _is_plain(module)
            ]
        # Two copies of each weight: one for the product, one for its gradient.
        needed = 2 * sum(linear.weight.nbytes for linear in linears)
        if not linears or needed > COPIES or not works():
            return []
        if needed > free_bytes(self.model.device):
            self.model.batches.note(
                f"The memory that is free now has no room for copies of the weights "
                f"({gibibytes(needed)}) that make the solver faster. Without them the edit differs "
                "by rounding."
            )
            return []
        return [Laid(linear) for linear in linears]

    @contextmanager
    def used(self) -> Iterator[None]:
        """Inside, let the layers multiply by the copies. No weight may change or get a gradient."""
        with ExitStack() as stack:
            for laid in self.layers:
                laid.forget_old()
                stack.enter_context(computing(laid.linear, laid))
            yield


def laid_out_bytes(model: Outline) -> int:
    """Return the bytes of the copies that ``LaidOut`` makes of the weights of ``model``."""
    needed = 2 * 4 * sum(inputs * outputs for inputs, outputs in model.linear)
    plain = model.precision == "float32" and model.device.type == "cpu"
    return needed if plain and needed <= min(COPIES, model.free) else 0


def _is_plain(module: nn.Module) -> bool:
    """Return whether this is torch's linear layer in float32 on a CPU, with its own forward."""
    # A subclass may compute something else, and so may a forward that somebody has replaced.
    if type(module) is not nn.Linear or "forward" in module.__dict__:
        return False
    return module.weight.device.type == "cpu" and module.weight.dtype == torch.float32


class Laid:
    """The forward pass of a linear layer whose weight is laid out when it is first needed."""

    def __init__(self, linear: nn.Linear):
        self.linear = linear
        self.version = linear.weight._version

    def forget_old(self) -> None:
        """Drop the copies if the weight was written since they were made."""
        if self.version != self.linear.weight._version:
            self.version = self.linear.weight._version
            for copy in ("weight_oi", "weight_io"):
                self.__dict__.pop(copy, None)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return product(states, self)

    @cached_property
    def weight_oi(self) -> torch.Tensor:
        return lay(self.linear.weight.detach())

    @cached_property
    def weight_io(self) -> torch.Tensor:
        return lay(self.linear.weight.detach().T.contiguous())


class _Context(FunctionCtx):
    """What ``Product`` keeps between its passes."""

    laid: Laid


class Product(torch.autograd.Function):
    """x W^T + b (..., o), differentiable by x (..., i)."""

    @staticmethod
    def forward(ctx: _Context, states: torch.Tensor, laid: Laid) -> torch.Tensor:
        ctx.laid = laid
        return multiply(states, laid.weight_oi, laid.linear.bias)

    @staticmethod
    def backward(ctx: _Context, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        # dx = dy W; the transposed copy makes it the same call.
        return multiply(gradient, ctx.laid.weight_io, None), None


# torch does not annotate ``Function.apply``
product: Callable[[torch.Tensor, Laid], torch.Tensor] = Product.apply


def lay(weight: torch.Tensor) -> torch.Tensor:
    """Return a copy in oneDNN's layout. torch's compiler uses the same call for frozen weights."""
    laid: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    return laid


def multiply(states: torch.Tensor, laid: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return x W^T + b for a weight that ``lay`` returned."""
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, laid, bias, "none", [], "")
    return result


@cache
def works() -> bool:
    """Return whether this torch has both calls and they give the same as a plain product.

    It tries a small product.
    """
    states, bias = torch.arange(6.0).view(2, 3), torch.arange(4.0)
    weight = torch.arange(12.0).view(4, 3) - 5
    try:
        return torch.allclose(
            multiply(states, lay(weight), bias), nn.functional.linear(states, weight, bias)
        )
    # A torch without oneDNN lacks the calls, and another release may have changed them.
    except (AttributeError, RuntimeError, TypeError):
        return False
