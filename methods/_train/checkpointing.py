"""Activation checkpointing: less memory for training, at the price of a second forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from editbench.errors import MethodError
from editbench.models import LanguageModel


def recomputable_layers(model: LanguageModel) -> list[torch.nn.Module]:
    """Return the layers that support checkpointing, as transformers marks them.

    Raises:
        MethodError: if the model has no such layers.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer  # takes seconds to import

    layers: list[torch.nn.Module] = [
        module for module in model.model.modules() if isinstance(module, GradientCheckpointingLayer)
    ]
    if not (layers and model.model.supports_gradient_checkpointing):
        raise MethodError(
            f"{type(model.model).__name__} does not support activation checkpointing. "
            "Leave checkpointing out; a smaller micro_batch also saves memory."
        )
    return layers


@contextmanager
def recomputed(layers: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Inside, ``layers`` keep only their inputs for the backward pass.

    Transformers' own switch works in training mode only. That mode would turn on dropout, and
    opsd's rollouts would lose their cache.
    """
    # An instance attribute hides the class's forward. Hooks still run, since __call__ stays as it
    # is. A layer that already has such an attribute gets it back.
    own_forwards = [(layer, vars(layer).get("forward")) for layer in layers]
    try:
        for layer in layers:
            # The reentrant form needs an input with a gradient; with adapters the first layer has
            # none.
            vars(layer)["forward"] = partial(checkpoint, layer.forward, use_reentrant=False)
        yield
    finally:
        for layer, forward in own_forwards:
            vars(layer).pop("forward", None)
            if forward:
                vars(layer)["forward"] = forward
