"""What a model's own code honours, tried once on a few tokens before any number is made.

A causal LM can ignore the mask of a padded batch, keep its past in a cache of its own kind, or let
a token see those behind it. Nothing fails then, and every number is wrong. So a padded batch and a
short generation are compared with plain passes of single rows.

# B rows, T tokens, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from editbench import text
from editbench.decoding import decoding_cache, keep_rows
from editbench.errors import NotFiniteError
from editbench.placing import devices_of

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


class Logits(Protocol):
    """One pass over all rows as they are: the logits (B, T, V), float32."""

    def __call__(
        self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, cache: DynamicCache | None = None
    ) -> torch.Tensor: ...


LONG, SHORT = 9, 6
"""Tokens of the two rows that are compared. The short row is the beginning of the long one. Where
the model reads fewer tokens at once, so do they."""


@dataclass(frozen=True)
class Honoured:
    """What a model honours."""

    order: bool
    """A token's state does not depend on the tokens behind it."""
    padding: bool
    """Rows that are padded on the left give the same as single rows."""
    cache: bool
    """Token by token, with a cache and in a padded batch, a row gives the same as in one pass."""


@torch.no_grad()
def honoured(
    model: PreTrainedModel, logits: Logits, takes_cache: bool, context_length: int | None
) -> Honoured:
    """Return what ``model`` honours, by five or six short passes.

    Float32 weights compute in float32. Others compute as the caller's context says, since some
    models with weights of 16 bits (Mamba) need autocast.

    Raises:
        NotFiniteError: if the logits are not finite, so that nothing can be compared.
    """
    device = devices_of(model)[0]
    vocabulary = model.config.get_text_config().vocab_size
    # From 3 on, since the first ids are often special. No two are equal, so that a shift shows.
    long = min(LONG, context_length or LONG)
    short = min(SHORT, long - 1)
    rows = [[(3 + t) % vocabulary for t in range(n)] for n in (long, short)]
    ids_BT, mask_BT = text.pad_left(rows, device)
    exact = all(parameter.itemsize >= 4 for parameter in model.parameters())
    with torch.autocast(device.type, enabled=False) if exact else nullcontext():
        long_TV, short_TV = (logits(*text.pad_left([row], device))[0] for row in rows)
        if not long_TV.isfinite().all():
            raise NotFiniteError("the model's logits are infinite or NaN")
        agrees = _Comparison(long_TV, 0.02 if exact else 0.1)
        order = agrees(lambda: long_TV[:short], short_TV)
        cache = takes_cache and agrees(
            lambda: _decoded(logits, decoding_cache(model), ids_BT, mask_BT)[-short:], short_TV
        )
        # what is right with a cache and padding is right with padding
        padding = cache or agrees(lambda: logits(ids_BT, mask_BT)[1, -short:], short_TV)
    return Honoured(order, padding, cache)


def _decoded(
    logits: Logits, cache: DynamicCache, ids_BT: torch.Tensor, mask_BT: torch.Tensor
) -> torch.Tensor:
    """Return the logits (T, V) of the short row, whose last two tokens are decoded one by one.

    Those of its padding come first.
    """
    first = logits(ids_BT[:, :-2], mask_BT[:, :-2], cache)[1]
    second = logits(ids_BT[:, -2:-1], mask_BT[:, :-1], cache)[1]
    # as where the first of two texts has ended
    keep_rows(cache, torch.tensor([1], device=ids_BT.device))
    return torch.cat([first, second, logits(ids_BT[1:, -1:], mask_BT[1:], cache)[0]])


class _Comparison:
    """Whether two ways of computing logits agree up to rounding."""

    def __init__(self, reference_TV: torch.Tensor, share: float):
        # Next to the spread of the logits, the rounding of float32 is below 1e-4 and that of
        # bfloat16 a few hundredths, while a wrong position or a lost past is near 1.
        self.limit = share * reference_TV.std().item()

    def __call__(self, compute: Callable[[], torch.Tensor], want_TV: torch.Tensor) -> bool:
        try:
            have_TV = compute()
        except Exception:
            # The model's own code, which may come from anywhere, cannot do it at all. The caller
            # then uses plain passes, which need neither padding nor a cache.
            return False
        # the root of the mean square, since rounding is spread evenly and faults are everywhere
        difference = (have_TV - want_TV).square().mean().sqrt().item()
        return difference <= self.limit
