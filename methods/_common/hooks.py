"""Read an activation, change one, or continue a forward pass from the middle, inside a ``with``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from editbench.batching import in_batches
from editbench.layout import Output, hidden_of, replace_hidden
from editbench.models import LanguageModel, computing

READ_AT_ONCE = 64
"""Texts that are read together, by default."""


class Captured(Exception):
    """Raised to end a forward pass once the wanted activation has been read."""


def site_module(model: LanguageModel, layer: int, site: str) -> nn.Module:
    """Return the module whose output is ``site``: ``residual``, ``mlp`` or ``attention``."""
    if site == "residual":
        return model.layout.layer(model.model, layer)
    # The output of W itself, since an MLP may return more than that: Bloom's adds the residual.
    if site == "mlp":
        return model.layout.out_projection(model.model, layer)
    return model.layout.attention_module(model.model, layer)


@torch.no_grad()
def read_at(
    model: LanguageModel,
    module: nn.Module,
    side: str,
    rows: Sequence[Sequence[int]],
    positions: Sequence[int],
) -> torch.Tensor:
    """Return the ``input`` or ``output`` of ``module`` at one position of each row.

    The result is (len(rows), width), in the stored precision. The forward pass stops at the
    module, and rows are cut behind their positions: attention is causal, so what follows is not
    needed.

    Raises:
        ModelError: The memory does not suffice for one row.
    """
    model.check_head()  # it runs forward passes, which must not meet the hook
    seen: list[torch.Tensor] = []

    def capture(_module: nn.Module, args: Output, output: Output | None = None) -> None:
        # A hook before the module has no output yet; its arguments hold the states.
        seen.append(hidden_of(args if output is None else output))
        raise Captured

    def read(chunk: list[int]) -> torch.Tensor:
        cut = [rows[i][: positions[i] + 1] for i in chunk]
        ids_BT, mask_BT, own_BT = model.in_one_pass(cut)
        try:
            model.hidden(ids_BT, mask_BT)
        except Captured:
            pass
        # OPT flattens (B, T) before its MLP.
        states_BTD = seen.pop().reshape(*ids_BT.shape, -1)
        # the first place at which all of a row's tokens have been counted
        last_B = own_BT.cumsum(-1).argmax(-1)
        # The states may lie on another device than the ids, where a model is spread over several.
        last_B = last_B.to(states_BTD.device)
        return states_BTD[torch.arange(len(cut), device=states_BTD.device), last_B]

    def describe(i: int) -> str:
        return f"read a text of {positions[i] + 1} tokens"

    hook = (
        module.register_forward_pre_hook(capture)
        if side == "input"
        else module.register_forward_hook(capture)
    )
    # By length, so that a batch holds little padding. The last line restores the order.
    order = sorted(range(len(rows)), key=lambda i: positions[i])
    try:
        batches = in_batches(
            model.batches, "texts to read", order, READ_AT_ONCE, read, model.device, describe
        )
        states = [states for _, states in batches]
    finally:
        hook.remove()
    return torch.cat(states)[torch.tensor(order).argsort()]


@contextmanager
def resumed_above(
    model: LanguageModel, layer: int, hidden_BTD: torch.Tensor, wrapped: bool
) -> Iterator[None]:
    """Inside, continue each pass from ``hidden_BTD``, the output of ``layer``; skip what is below.

    ``layer`` = -1 skips nothing. ``wrapped``: this model's layers return a tuple (GPT-J), not the
    hidden states alone.
    """
    skipped = [model.layout.layer(model.model, i) for i in range(layer + 1)]

    def skip(module: nn.Module) -> Callable[..., object]:
        def forward(hidden_states: torch.Tensor, *_args: object, **_named: object) -> object:
            # Skipped layers pass their input on, and the last of them puts in the stored states.
            hidden = hidden_BTD if module is skipped[-1] else hidden_states
            return (hidden, None) if wrapped else hidden

        return forward

    with ExitStack() as stack:
        for module in skipped:
            stack.enter_context(computing(module, skip(module)))
        yield


@contextmanager
def added(module: nn.Module, index_R: torch.Tensor, delta_RD: torch.Tensor) -> Iterator[None]:
    """Inside, add ``delta_RD`` to the module's output at these tokens, counted over B x T."""

    def add(_module: nn.Module, _args: object, output: Output) -> Output:
        changed: Output = replace_hidden(output, plus(hidden_of(output), index_R, delta_RD))
        return changed

    hook = module.register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


def plus(states: torch.Tensor, index_R: torch.Tensor, delta_RD: torch.Tensor) -> torch.Tensor:
    """Return ``states`` (..., D) with ``delta_RD`` added at some of its rows.

    OPT flattens (B, T) before its MLP, so the rows are counted over all leading dimensions.
    """
    return (
        states.reshape(-1, states.shape[-1])
        .index_add(0, index_R.to(states.device), delta_RD.to(states))
        .view(states.shape)
    )
