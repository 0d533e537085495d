"""What rounding to the type of the weights takes from an edit.

An update is solved in float64. A weight that is held in 16 bits takes W + Delta rounded, and where
Delta is small beside W, much of it is lost. Weights in float32 lose nothing worth a word.

    # d residual width, f MLP inner width
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from editbench.changes import Change, dense
from editbench.models import LanguageModel, computing, float64_device

Pairs = Sequence[tuple[list[int], list[int]]]
"""Ids of a prompt, and ids of its target."""


def taken_by_rounding(
    model: LanguageModel, changes: Mapping[int, Change], pairs: Pairs
) -> dict[str, object]:
    """Return the share of the update that is lost, and the target's nll without and with rounding.

    The report has no such fields where the weights are float32.

    Args:
        changes: by layer, of the MLP's output projection. They are not applied.
    """
    names = {layer: model.layout.weight_name(layer) for layer in changes}
    if all(model.weight(name).dtype.itemsize >= 4 for name in names.values()):
        return {}
    lost, moved, undo = 0.0, 0.0, []
    with unrounded(model, changes):
        before = _nll(model, pairs)
    try:
        for layer, change in changes.items():
            weight = model.weight(names[layer]).detach()
            place = float64_device(weight.device)
            wanted = dense(change).to(place, torch.float64)
            rounded = (weight.to(place).double() + wanted).to(weight.dtype)
            written = rounded.double() - weight.to(place).double()
            lost += (wanted - written).square().sum().item()
            moved += wanted.square().sum().item()
            undo.append(model.write(names[layer], rounded))
        after = _nll(model, pairs)
    finally:
        for restore in reversed(undo):
            restore()
    return {
        "rounding_lost": (lost / moved) ** 0.5 if moved else 0.0,
        "nll_before_rounding": before,
        "nll_after_rounding": after,
    }


def _nll(model: LanguageModel, pairs: Pairs) -> float:
    """Return the mean over targets of their nats a token."""
    scores = [-logp_T.mean().item() for logp_T in model.target_logprobs(pairs)]
    return sum(scores) / len(scores)


@contextmanager
def unrounded(model: LanguageModel, changes: Mapping[int, Change]) -> Iterator[None]:
    """Inside, let the edited projections multiply by W + Delta in float32."""
    with ExitStack() as stack:
        for layer, change in changes.items():
            projection = model.layout.out_projection(model.model, layer)
            weight = model.weight(model.layout.weight_name(layer)).detach()
            # In float64 first, as in the rounded weight.
            place = float64_device(weight.device)
            summed = weight.to(place).double() + dense(change).to(place, torch.float64)
            summed = summed.float().to(weight.device)
            w_df = summed.T.contiguous() if model.layout.transposed else summed
            stack.enter_context(computing(projection, _forward(projection, w_df)))
        yield


def _forward(projection: nn.Module, w_df: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    bias = getattr(projection, "bias", None)

    def forward(states: torch.Tensor) -> torch.Tensor:
        w = w_df.to(states.device)
        b = bias.to(states.device, torch.float32) if isinstance(bias, torch.Tensor) else None
        with torch.autocast(states.device.type, enabled=False):
            return F.linear(states.float(), w, b).to(states.dtype)

    return forward
