"""Attention for many short texts whose tokens all lie in one row.

Projections and MLPs then see no padding.

``Tree`` computes what stands before the cuts, once. It holds a beginning that several texts share
only once: each token sees the tokens on the path from the root to itself.

``Groups`` of ``Packed`` rows compute what follows, which the target optimisation runs hundreds of
times. The tokens are laid out row by row behind the keys and values that each row keeps from the
tokens before its cut. Those need no gradient. Rows of similar length make a group, so that there
is little padding. The query heads that share a key head go into one product, in the precision of
autocast. With P = softmax(c q k^T + bias) and o = P v, the gradients follow the formulas

    dv = P^T do      dP = do v^T      dS = P (dP - sum P dP)      dq = c dS k      dk = c dS^T q

    # N tokens of R rows of at most S; T = P kept keys + S own ones
    # G key heads, H query heads, of width d
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature

import torch
from torch import nn
from torch.autograd.function import FunctionCtx
from transformers import AttentionInterface, AttentionMaskInterface

from editbench.models import LanguageModel

NAME = "editbench_packed"


class NotPacked(Exception):
    """Raised when a model attends in a way that this file does not know."""


def layer_of(module: nn.Module, mask: object, how: Mapping[str, object]) -> int:
    """Return the layer of an attention module that attends as below.

    Raises:
        NotPacked: It does not say its layer, or attends in another way.
    """
    layer = getattr(module, "layer_idx", None)
    # Position biases (T5), soft-capped scores (Gemma 2) and attention sinks (GPT-OSS) are not in
    # the formulas above. Nor is a mask of the model's own, such as Doge's, which weighs the values:
    # transformers makes none here.
    unknown = any(how.get(name) is not None for name in ("position_bias", "softcap", "s_aux"))
    if not isinstance(layer, int) or mask is not None or unknown:
        raise NotPacked
    return layer


def scaling_of(how: Mapping[str, object]) -> float | None:
    """Return the factor of the scores that the model asks for, if any.

    Raises:
        NotPacked: It is not a number.
    """
    scaling = how.get("scaling")
    if scaling is not None and not isinstance(scaling, (int, float)):
        raise NotPacked
    return scaling


@dataclass(frozen=True)
class Tree:
    """N tokens of several texts, and which of them each token sees."""

    seen_NN: torch.Tensor
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """Keys and values (G, N, d) by layer, once a pass has run."""

    def attend(
        self,
        module: nn.Module,
        query_1HNd: torch.Tensor,
        key_1GNd: torch.Tensor,
        value_1GNd: torch.Tensor,
        attention_mask: object = None,
        **how: object,
    ) -> tuple[torch.Tensor, None]:
        """Return softmax(scaling q k^T) v, (1, N, H, d). transformers calls it."""
        # a model that attends twice in one layer is not known here
        if (layer := layer_of(module, attention_mask, how)) in self.kept:
            raise NotPacked
        # Rotated queries and keys may be float32 where the values, and all products, are bfloat16.
        query_1HNd, key_1GNd = query_1HNd.to(value_1GNd.dtype), key_1GNd.to(value_1GNd.dtype)
        self.kept[layer] = key_1GNd[0], value_1GNd[0]
        out_1HNd = nn.functional.scaled_dot_product_attention(
            query_1HNd,
            key_1GNd,
            value_1GNd,
            attn_mask=self.seen_NN,
            scale=scaling_of(how),
            enable_gqa=True,
        )
        # Contiguous, as torch's own is: JetMoE takes a view of it.
        return out_1HNd.transpose(1, 2).contiguous(), None


@dataclass(frozen=True)
class Packed:
    """Some rows: where each of their N tokens lies, and which keys and values each row keeps."""

    row_N: torch.Tensor
    place_N: torch.Tensor
    seen_RST: torch.Tensor
    """Whether a token sees one of the T keys of its row."""
    path_RP: torch.Tensor
    """Which of the M kept tokens each row has; arbitrary behind the end of a shorter row."""
    kept: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
    """Keys and values (G, M, d) of the tokens before the cuts, by layer."""
    made: dict[tuple[object, ...], torch.Tensor] = field(default_factory=dict)
    """Arrays that all passes share, by their use."""

    def room(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values (R, G, T, d): those kept, then space for the row's own.

        Each pass fills that space anew.
        """
        if ("keys", layer) not in self.made:
            behind = (0, 0, 0, self.seen_RST.shape[1])
            for name, part_GMd in zip(("keys", "values"), self.kept[layer], strict=True):
                rows_RGPd = part_GMd[:, self.path_RP].transpose(0, 1)
                self.made[name, layer] = nn.functional.pad(rows_RGPd, behind).contiguous()
        return self.made["keys", layer], self.made["values", layer]

    def lay(self, states_HNd: torch.Tensor, rows_RHTd: torch.Tensor) -> torch.Tensor:
        """Return ``rows_RHTd`` with the tokens written into their places, the last S of T."""
        index = self.index(*rows_RHTd.shape[1:3])
        rows_RHTd.view(-1, rows_RHTd.shape[-1]).index_copy_(
            0, index, states_HNd.reshape(len(index), -1).to(rows_RHTd.dtype)
        )
        return rows_RHTd

    def read(self, rows_RHTd: torch.Tensor) -> torch.Tensor:
        """Return the tokens (H, N, d) of laid-out rows: the inverse of ``lay``."""
        _, H, T, d = rows_RHTd.shape
        return rows_RHTd.reshape(-1, d).index_select(0, self.index(H, T)).view(H, -1, d)

    def index(self, heads: int, length: int) -> torch.Tensor:
        """Return the flat index in (R, heads, length) of each of the (heads, N) tokens."""
        if (key := ("index", heads, length)) not in self.made:
            head_H1 = torch.arange(heads, device=self.row_N.device)[:, None]
            # A row's own tokens are the last S of T; of S, they are all.
            place_N = self.place_N + length - self.seen_RST.shape[1]
            self.made[key] = ((self.row_N * heads + head_H1) * length + place_N).flatten()
        return self.made[key]

    def bias(self, G: int, H: int, dtype: torch.dtype) -> torch.Tensor:
        """Return (R G, H / G S, T): 0 where a token sees a key, else ``finfo.min``."""
        if (key := ("bias", G, H, dtype)) not in self.made:
            R, S, T = self.seen_RST.shape
            bias_RST = torch.zeros(self.seen_RST.shape, dtype=dtype, device=self.seen_RST.device)
            bias_RST.masked_fill_(~self.seen_RST, torch.finfo(dtype).min)
            self.made[key] = bias_RST[:, None].expand(R, H, S, T).reshape(R * G, -1, T)
        return self.made[key]

    def empty(self, use: int | str, like_HNd: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return an array (R, H, S, d), made once for each use and 0 where there is no token."""
        R, S, _ = self.seen_RST.shape
        H, _, d = like_HNd.shape
        if (key := ("empty", use, H, d, dtype)) not in self.made:
            self.made[key] = like_HNd.new_zeros(R, H, S, d, dtype=dtype)
        return self.made[key]


class _Context(FunctionCtx):
    """What ``Attention`` keeps between its passes."""

    packed: Packed
    scaling: float
    dtypes: list[torch.dtype]
    saved_tensors: tuple[torch.Tensor, ...]


class Attention(torch.autograd.Function):
    """Attention (H, N, d) of packed rows, differentiable by queries, keys and values.

    A pass overwrites what the previous pass has laid out.
    """

    @staticmethod
    def forward(
        ctx: _Context,
        query_HNd: torch.Tensor,
        key_GNd: torch.Tensor,
        value_GNd: torch.Tensor,
        packed: Packed,
        layer: int,
        scaling: float,
    ) -> torch.Tensor:
        H, G, d = len(query_HNd), len(key_GNd), query_HNd.shape[-1]
        key, value = (
            packed.lay(states, room)
            for states, room in zip((key_GNd, value_GNd), packed.room(layer), strict=True)
        )
        # One array per layer: ``backward`` still needs it after the layers above have run.
        query = packed.lay(query_HNd, packed.empty(layer, query_HNd, key.dtype))
        R, _, S, _ = query.shape
        # The H / G query heads of a key head become rows of one product.
        query, key, value = query.view(R * G, -1, d), key.flatten(0, 1), value.flatten(0, 1)
        # P = softmax(c q k^T + bias)
        share = torch.baddbmm(
            packed.bias(G, H, key.dtype), query, key.transpose(1, 2), alpha=scaling
        ).softmax(-1)
        ctx.save_for_backward(query, key, value, share)
        ctx.packed, ctx.scaling = packed, scaling
        ctx.dtypes = [states.dtype for states in (query_HNd, key_GNd, value_GNd)]
        return packed.read((share @ value).view(R, H, S, -1)).to(value_GNd.dtype)

    @staticmethod
    def backward(
        ctx: _Context, gradient_HNd: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None, None]:
        packed, (query, key, value, share) = ctx.packed, ctx.saved_tensors
        R, S, _ = packed.seen_RST.shape
        # One array for all layers, since only this call reads it.
        room = packed.empty("gradient", gradient_HNd, share.dtype)
        laid = packed.lay(gradient_HNd, room).view(*share.shape[:2], -1)
        # dS = P (dP - sum P dP), in place
        by_score = (laid @ value.transpose(1, 2)).mul_(share)
        by_score.addcmul_(share, by_score.sum(-1, keepdim=True), value=-1)
        # Kept keys and values are constants, so only the last S of T get a gradient. The products
        # over -S: also add up the query heads that share a key head.
        by_query = (by_score @ key).mul_(ctx.scaling)
        by_key = (by_score[..., -S:].transpose(1, 2) @ query).mul_(ctx.scaling)
        by_value = share[..., -S:].transpose(1, 2) @ laid
        dq, dk, dv = (
            packed.read(part.view(R, -1, S, part.shape[-1])).to(dtype)
            for part, dtype in zip((by_query, by_key, by_value), ctx.dtypes, strict=True)
        )
        return dq, dk, dv, None, None, None


# torch does not annotate ``Function.apply``
attention: Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, Packed, int, float], torch.Tensor
] = Attention.apply


@dataclass(frozen=True)
class Groups:
    """Rows in groups, one behind the other. Each group is padded to its own longest row."""

    groups: Sequence[Packed]

    def attend(
        self,
        module: nn.Module,
        query_1HNd: torch.Tensor,
        key_1GNd: torch.Tensor,
        value_1GNd: torch.Tensor,
        attention_mask: object = None,
        **how: object,
    ) -> tuple[torch.Tensor, None]:
        """Return softmax(scaling q k^T) v of each row, (1, N, H, d). transformers calls it."""
        # only the layers that run have kept keys
        if (layer := layer_of(module, attention_mask, how)) not in self.groups[0].kept:
            raise NotPacked
        # The usual factor, where the model passes none.
        scaling = scaling_of(how) or float(query_1HNd.shape[-1] ** -0.5)
        sizes = [len(group.row_N) for group in self.groups]
        parts = (
            torch.split(states[0], sizes, dim=1) for states in (query_1HNd, key_1GNd, value_1GNd)
        )
        attended = [
            attention(query, key, value, group, layer, scaling)
            for group, query, key, value in zip(self.groups, *parts, strict=True)
        ]
        return torch.cat(attended, dim=1).transpose(0, 1)[None].contiguous(), None


# no mask is built: ``Tree`` and ``Packed`` know which token sees which
AttentionMaskInterface.register(NAME, lambda *_args, **_how: None)


@contextmanager
def attending(model: LanguageModel, how: Tree | Groups) -> Iterator[None]:
    """Inside, let the model attend by ``how``."""
    config = model.model.config.get_text_config()
    usual, expected = config._attn_implementation, signature(how.attend)

    def attend(*args: object, **named: object) -> tuple[torch.Tensor, None]:
        try:
            call = expected.bind(*args, **named)
        except TypeError:  # the model calls its attention in a way of its own
            raise NotPacked from None
        return how.attend(*call.args, **call.kwargs)

    # Registering again replaces the function that an earlier use left under this name.
    AttentionInterface.register(NAME, attend)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual


def states_of(
    model: LanguageModel, ids_N: torch.Tensor, position_N: torch.Tensor, how: Tree | Groups
) -> torch.Tensor:
    """Return last hidden states (1, N, D) of tokens that attend by ``how``."""
    with attending(model, how):
        output = model.base(input_ids=ids_N[None], position_ids=position_N[None], use_cache=False)
    states: torch.Tensor = output.last_hidden_state
    return states
