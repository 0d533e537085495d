"""Attention for many short queries over a cached context: what the target optimisation runs hundreds of times.

The same as transformers' ``sdpa``, but as two batched products without its copies: the query heads that share a key head go
into one product (no repeated keys), in the precision of autocast with a float32 softmax. torch's fused kernel is made for
long queries, and its plain one converts everything to float32 first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from editbench.models import LanguageModel

NAME = "editbench_short_queries"

# B rows, H query heads, G key heads, S queries, T keys


def attend(
    module: Any, query_BHSd: torch.Tensor, key_BGTd: torch.Tensor, value_BGTd: torch.Tensor, mask: Any, **how: Any
) -> tuple[torch.Tensor, None]:
    """softmax(scaling q k^T) v, (B, S, H, d), over the keys that a boolean mask (B, 1, S, T) leaves; transformers calls it."""
    beyond = any(how.get(name) is not None for name in ("position_bias", "softcap"))
    if mask is None or mask.dtype != torch.bool or beyond:
        return sdpa_attention_forward(module, query_BHSd, key_BGTd, value_BGTd, mask, **how)
    B, H, S, d = query_BHSd.shape
    G = key_BGTd.shape[1]
    scaling = how.get("scaling") or d**-0.5
    scores = (query_BHSd * scaling).reshape(B, G, H // G * S, d) @ key_BGTd.transpose(-1, -2)
    scores = scores.reshape(B, G, H // G, S, -1).masked_fill(~mask[:, :, None], torch.finfo(scores.dtype).min)
    share = scores.softmax(-1, dtype=torch.float32).to(value_BGTd.dtype)
    out = (share.reshape(B, G, H // G * S, -1) @ value_BGTd).reshape(B, H, S, -1)
    return out.transpose(1, 2), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def short_queries(model: LanguageModel) -> Iterator[None]:
    """Inside, a model that attends by ``sdpa`` through transformers' interface attends by ``attend``; others are left alone."""
    config = model.model.config.get_text_config()
    usual = config._attn_implementation
    if usual != "sdpa" or not model.model._supports_attention_backend:
        yield
        return
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual
