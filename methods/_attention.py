"""Attention for many short rows of tokens that lie behind one another in one row: what the target optimisation runs
hundreds of times.

Projections and MLPs see no padding; only here the tokens are laid out row by row, over keys and values that each row has
kept from what is before them and that need no gradient. The query heads that share a key head go into one product, in the
precision of autocast with a float32 softmax.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from editbench.models import LanguageModel

NAME = "editbench_packed"

# N tokens of R rows of at most S; P kept keys; G key heads, H query heads, of width d


class NotPacked(Exception):
    """A model attends in a way that is not known here."""


@dataclass(frozen=True)
class Packed:
    """Where each of the N tokens lies, and what its row has kept."""

    row_N: torch.Tensor
    place_N: torch.Tensor
    kept: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
    """Keys and values (R, G, P, d) by layer."""
    bias_RST: torch.Tensor
    """0 where a token sees one of the P + S keys of its row, the least number where not."""

    def attend(
        self, module: Any, query_1HNd: torch.Tensor, key_1GNd: torch.Tensor, value_1GNd: torch.Tensor, mask: Any, **how: Any
    ) -> tuple[torch.Tensor, None]:
        """softmax(scaling q k^T) v of each row, (1, N, H, d); transformers calls it."""
        kept = self.kept.get(getattr(module, "layer_idx", None))
        if kept is None or any(how.get(name) is not None for name in ("position_bias", "softcap", "s_aux")):
            raise NotPacked
        (_, H, N, d), G = query_1HNd.shape, key_1GNd.shape[1]
        R, S, _ = self.bias_RST.shape
        # rotated queries and keys may be float32 where the values, and all products, are bfloat16
        query, key, value = (
            ByRow.apply(states[0].to(value_1GNd.dtype).transpose(0, 1).reshape(N, G, -1), self.row_N, self.place_N, R, S)
            for states in (query_1HNd, key_1GNd, value_1GNd)
        )
        query, key, value = query.view(R * G, S * (H // G), d), key.view(R * G, S, d), value.view(R * G, S, d)
        kept_key, kept_value = (part.flatten(0, 1) for part in kept)
        scores = torch.cat([query @ kept_key.transpose(-1, -2), query @ key.transpose(-1, -2)], dim=-1)
        scores = scores.view(R, G, S, H // G, -1)
        scores = torch.add(self.bias_RST[:, None, :, None], scores, alpha=how.get("scaling") or d**-0.5)
        share = scores.softmax(-1).to(value.dtype).view(R * G, S * (H // G), -1)
        out = torch.baddbmm(share[..., :-S] @ kept_value, share[..., -S:], value)
        return ByToken.apply(out.view(R, G, S, -1), self.row_N, self.place_N).view(1, N, H, d), None


class ByRow(torch.autograd.Function):
    """(N, G, d) to (R, G, S, d). Written out because the gradient of indexing is much slower than indexing."""

    @staticmethod
    def forward(ctx, states_NGd, row_N, place_N, rows, longest):
        ctx.save_for_backward(row_N, place_N)
        return _laid_out(states_NGd, row_N, place_N, rows, longest)

    @staticmethod
    def backward(ctx, gradient_RGSd):
        row_N, place_N = ctx.saved_tensors
        return gradient_RGSd.transpose(1, 2)[row_N, place_N], None, None, None, None


class ByToken(torch.autograd.Function):
    """(R, G, S, d) to (N, G, d)."""

    @staticmethod
    def forward(ctx, states_RGSd, row_N, place_N):
        ctx.save_for_backward(row_N, place_N)
        ctx.size = (states_RGSd.shape[0], states_RGSd.shape[2])
        return states_RGSd.transpose(1, 2)[row_N, place_N]

    @staticmethod
    def backward(ctx, gradient_NGd):
        return _laid_out(gradient_NGd, *ctx.saved_tensors, *ctx.size), None, None


def _laid_out(states_NGd, row_N, place_N, rows, longest):
    laid_RGSd = states_NGd.new_zeros(rows, states_NGd.shape[1], longest, states_NGd.shape[2])
    laid_RGSd.transpose(1, 2)[row_N, place_N] = states_NGd
    return laid_RGSd


AttentionMaskInterface.register(NAME, lambda *_args, **_how: None)  # the packing knows who sees whom


@contextmanager
def attending(model: LanguageModel, packed: Packed) -> Iterator[None]:
    """Inside, the model attends by ``packed``."""
    config = model.model.config.get_text_config()
    usual = config._attn_implementation
    AttentionInterface.register(NAME, packed.attend)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual
