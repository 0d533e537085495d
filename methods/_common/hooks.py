"""Read an activation, or continue a forward pass from the middle, inside a ``with``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from editbench.layout import hidden_of, replace_hidden
from editbench.methods._common.memory import in_batches
from editbench.models import LanguageModel
from editbench.text import pad_left


class Captured(Exception):
    """Raised to end a forward pass once the wanted activation is there."""


def site_module(model: LanguageModel, layer: int, site: str) -> nn.Module:
    """The module whose output is ``site``: ``residual``, ``mlp`` or ``attention``."""
    if site == "residual":
        return model.layout.layer(model.model, layer)
    if site == "mlp":
        return model.layout.mlp_module(model.model, layer)
    return model.layout.layer(model.model, layer).get_submodule(model.layout.attention)


@torch.no_grad()
def read_at(
    model: LanguageModel,
    module: nn.Module,
    side: str,
    rows: Sequence[Sequence[int]],
    positions: Sequence[int],
    batch_size: int = 64,
) -> torch.Tensor:
    """The ``input`` or ``output`` of ``module`` at one position of each row: (len(rows), width), in the stored precision.

    The forward pass ends at the module, and the rows at their positions: what follows cannot reach back.

    Raises:
        MethodError: no memory for even one row.
    """
    seen: list[torch.Tensor] = []

    def capture(_module: nn.Module, args: Any, output: Any = None) -> None:
        seen.append(hidden_of(args if side == "input" else output))
        raise Captured

    def read(chunk: list[int]) -> torch.Tensor:
        ids_BT, mask_BT = pad_left([rows[i][: positions[i] + 1] for i in chunk], model.device)
        try:
            model.hidden(ids_BT, mask_BT)
        except Captured:
            pass
        # OPT flattens (B, T) before its MLP
        return seen.pop().reshape(*ids_BT.shape, -1)[:, -1]

    hook = (
        module.register_forward_pre_hook(capture)
        if side == "input"
        else module.register_forward_hook(capture)
    )
    order = sorted(range(len(rows)), key=lambda i: positions[i])
    try:
        batches = in_batches(
            order,
            lambda waiting, size: waiting[:size],
            batch_size,
            read,
            lambda i: f"read a text of {positions[i] + 1} tokens",
        )
        found = [states for _, states in batches]
    finally:
        hook.remove()
    return torch.cat(found)[torch.tensor(order).argsort()]


@contextmanager
def resumed_above(
    model: LanguageModel, layer: int, hidden_BTD: torch.Tensor, wrapped: bool
) -> Iterator[None]:
    """Inside, layers 0..``layer`` compute nothing: the pass continues from ``hidden_BTD``, the output of ``layer``.

    ``layer`` = -1 skips nothing. ``wrapped``: this model's layers return a tuple (GPT-J), not the hidden states alone.
    """
    skipped = [model.layout.layer(model.model, i) for i in range(layer + 1)]

    def skip(module: nn.Module) -> Callable:
        def forward(hidden_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> Any:
            hidden = hidden_BTD if module is skipped[-1] else hidden_states
            return (hidden, None) if wrapped else hidden

        return forward

    with ExitStack() as stack:
        for module in skipped:
            stack.enter_context(computing(module, skip(module)))
        yield


@contextmanager
def only_at(module: nn.Module, index_K: torch.Tensor) -> Iterator[None]:
    """Inside, the module computes these tokens of all, counted row by row, and gives 0 for the others; all of them where it is
    called with more than the states."""
    whole = module.forward

    def forward(*args: Any, **named: Any) -> Any:
        if len(args) != 1 or named:  # what goes with the states, Bloom's residual, has all tokens
            return whole(*args, **named)
        (states,) = args
        chosen_KD = states.reshape(-1, states.shape[-1])[index_K]
        output = whole(chosen_KD if states.dim() == 2 else chosen_KD[None])
        found_KD = hidden_of(output).reshape(len(index_K), -1)
        everywhere = found_KD.new_zeros(states.shape[:-1].numel(), found_KD.shape[-1])
        return replace_hidden(
            output, everywhere.index_copy(0, index_K, found_KD).view(*states.shape[:-1], -1)
        )

    with computing(module, forward):
        yield


@contextmanager
def computing(module: nn.Module, forward: Callable) -> Iterator[None]:
    """Inside, the module computes ``forward``; then again what it did, be it its class's or somebody's replacement."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextmanager
def added(module: nn.Module, index_R: torch.Tensor, delta_RD: torch.Tensor) -> Iterator[None]:
    """Adds ``delta_RD`` to the module's output at these tokens of all, counted row by row."""

    def add(_module: nn.Module, _args: Any, output: Any) -> Any:
        return replace_hidden(output, plus(hidden_of(output), index_R, delta_RD))

    hook = module.register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


def plus(states: torch.Tensor, index_R: torch.Tensor, delta_RD: torch.Tensor) -> torch.Tensor:
    """``states`` (..., D) with ``delta_RD`` added at some of its rows; OPT flattens (B, T) before its MLP."""
    return (
        states.reshape(-1, states.shape[-1])
        .index_add(0, index_R, delta_RD.to(states.dtype))
        .view(states.shape)
    )
