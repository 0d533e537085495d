"""Prompts cut at one token each: what is before it and below a layer is computed once, what follows by every pass.

Where the model lets its attention be replaced, the tokens from the cuts on lie behind one another in one row and nothing is
padded (``_attention.py``), and beginnings that rows share are computed once. Otherwise each row is padded to the longest.

    # R rows, N tokens from the cuts on, D model width; B x T = 1 x N where packed, R x S where padded
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from itertools import groupby
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from editbench.layout import hidden_of
from editbench.methods._common.hooks import (
    Captured,
    added,
    only_at,
    plus,
    resumed_above,
    site_module,
)
from editbench.methods._edit.fast.attention import Groups, NotPacked, Packed, Tree, states_of
from editbench.models import LanguageModel
from editbench.text import pad_left

Kept = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values (R, G, P, d) of each layer."""
TOKENS_AT_ONCE = 512


class Rows:
    """Padded rows, for any model."""

    def __init__(
        self, model: LanguageModel, rows: Sequence[list[int]], cuts: Sequence[int], resume: int
    ):
        """``cuts``: all above 0. ``resume``: the highest layer that need not run again; -1: all run."""
        self.model, self.resume = model, resume
        self.before = [row[:cut] for row, cut in zip(rows, cuts, strict=True)]
        self.after = [row[cut:] for row, cut in zip(rows, cuts, strict=True)]
        self.everyone = torch.arange(len(rows), device=model.device)
        self.below_BTD, self.wrapped = None, False
        with torch.no_grad(), model.compute():
            self.keep()
            if resume >= 0:
                self.below_BTD, self.wrapped = self._below()

    def keep(self) -> None:
        """Keys and values of what is before the cuts."""
        width = max(map(len, self.after))
        self.ids_RS = torch.tensor(
            [row + [0] * (width - len(row)) for row in self.after], device=self.model.device
        )
        self.kept, mask_RP = keys_before(self.model, self.before)
        self.mask_RT = torch.cat([mask_RP, torch.ones_like(self.ids_RS)], dim=1)

    def _below(self) -> tuple[torch.Tensor, bool]:
        """The output of the layer ``resume``, and whether it comes in a tuple."""
        seen: list[Any] = []

        def capture(_module: nn.Module, _args: Any, output: Any) -> None:
            seen.append(output)
            raise Captured

        hook = self.model.layout.layer(self.model.model, self.resume).register_forward_hook(capture)
        try:
            self.forward(self.everyone)
        except Captured:
            pass
        finally:
            hook.remove()
        return hidden_of(seen[0]), isinstance(seen[0], tuple)

    def run(
        self,
        which_R: torch.Tensor,
        layer: int,
        sites: Sequence[str],
        delta_RSD: torch.Tensor,
        read_K: torch.Tensor,
    ) -> torch.Tensor:
        """Last hidden states (K, D) of some rows at the tokens ``read_K``, as ``first`` counts them; each row's delta is added
        at its first token at each of the sites of ``layer``."""
        first_R, below_BTD = self.first(which_R), self.below(which_R)
        with ExitStack() as stack:
            for s, site in enumerate(sites):
                if site == "residual":
                    below_BTD = plus(below_BTD, first_R, delta_RSD[:, s])
                else:
                    stack.enter_context(
                        added(site_module(self.model, layer, site), first_R, delta_RSD[:, s])
                    )
            if below_BTD is not None:
                stack.enter_context(resumed_above(self.model, self.resume, below_BTD, self.wrapped))
            return self.forward(which_R, read_K).flatten(0, 1)[read_K]

    def first(self, which_R: torch.Tensor) -> torch.Tensor:
        """Where the first token of each of some rows (R,) is among all their tokens B x T; a row's others follow."""
        return torch.arange(len(which_R), device=which_R.device) * self.ids_RS.shape[1]

    def below(self, which_R: torch.Tensor) -> torch.Tensor | None:
        return None if self.below_BTD is None else self.below_BTD[which_R]

    def forward(self, which_R: torch.Tensor, read_K: torch.Tensor | None = None) -> torch.Tensor:
        """Last hidden states (B, T, D); where ``read_K`` is given only its tokens need be right."""
        # Not told of the config, a cache keeps every key; a sliding window is then the mask's affair alone.
        everyone = torch.equal(which_R, self.everyone)
        kept = self.kept if everyone else [(k[which_R], v[which_R]) for k, v in self.kept]
        return self.model.hidden(self.ids_RS[which_R], self.mask_RT[which_R], DynamicCache(kept))


class PackedRows(Rows):
    """The same without padding."""

    def keep(self) -> None:
        device = self.model.device
        self.cut_R = torch.tensor([len(row) for row in self.before], device=device)
        self.length_R = torch.tensor([len(row) for row in self.after], device=device)
        self.kept, self.path_RP = shared_keys_before(self.model, self.before)
        self.ids_N = torch.tensor([token for row in self.after for token in row], device=device)
        self.start_R = self.length_R.cumsum(0) - self.length_R
        self.chosen: torch.Tensor | None = None

    def choose(self, which_R: torch.Tensor) -> None:
        """Prepares the passes of some rows, once as long as they stay the same. They are laid by their length."""
        if self.chosen is not None and torch.equal(self.chosen, which_R):
            return
        self.chosen, device = which_R, which_R.device
        length_R, order_R = self.length_R[which_R].sort(stable=True)
        laid_R, start_R = which_R[order_R], length_R.cumsum(0) - length_R
        self.first_R = torch.empty_like(start_R).index_copy_(0, order_R, start_R)
        row_N = torch.arange(len(which_R), device=device).repeat_interleave(length_R)
        place_N = torch.arange(len(row_N), device=device) - start_R[row_N]
        self.index_N = self.start_R[laid_R][row_N] + place_N
        self.position_N = self.cut_R[laid_R][row_N] + place_N
        sizes = [
            len(list(rows)) for _, rows in groupby(length_R.tolist(), int.bit_length)
        ]  # 1, 2 to 3, 4 to 7, ...
        tokens = [int(length_r.sum()) for length_r in length_R.split(sizes)]
        parts = zip(laid_R.split(sizes), row_N.split(tokens), place_N.split(tokens), strict=True)
        self.packed = Groups(
            [self.group(laid_r, row_n - row_n[0], place_n) for laid_r, row_n, place_n in parts]
        )

    def group(self, which_r: torch.Tensor, row_n: torch.Tensor, place_n: torch.Tensor) -> Packed:
        """Rows that are padded to the longest of them, before and behind the cut."""
        cut_r = self.cut_R[which_r]
        before, after = int(cut_r.max()), int(place_n.max()) + 1
        before_rSP = (torch.arange(before, device=cut_r.device) < cut_r[:, None])[:, None].expand(
            -1, after, -1
        )
        causal_SS = torch.ones(after, after, dtype=torch.bool, device=cut_r.device).tril()
        seen_rST = torch.cat([before_rSP, causal_SS.expand(len(cut_r), -1, -1)], dim=-1)
        return Packed(row_n, place_n, seen_rST, self.path_RP[which_r, :before], self.kept)

    def first(self, which_R: torch.Tensor) -> torch.Tensor:
        self.choose(which_R)
        return self.first_R

    def below(self, which_R: torch.Tensor) -> torch.Tensor | None:
        self.choose(which_R)
        return None if self.below_BTD is None else self.below_BTD[:, self.index_N]

    def forward(self, which_R: torch.Tensor, read_K: torch.Tensor | None = None) -> torch.Tensor:
        self.choose(which_R)
        last = self.model.layout.mlp_module(self.model.model, self.model.layout.depth - 1)
        with nullcontext() if read_K is None else only_at(last, read_K):
            return states_of(self.model, self.ids_N[self.index_N], self.position_N, self.packed)

    def _below(self) -> tuple[torch.Tensor, bool]:
        below_1ND, wrapped = super()._below()
        self.kept = {layer: parts for layer, parts in self.kept.items() if layer > self.resume}
        self.chosen = None  # prepared for all layers
        return torch.empty_like(below_1ND).index_copy_(1, self.index_N, below_1ND), wrapped


def cut_rows(
    model: LanguageModel, rows: Sequence[list[int]], cuts: Sequence[int], resume: int
) -> Rows:
    """Rows that are packed where ``model`` can be."""
    packed = can_pack(model, max(map(len, rows)))
    return (PackedRows if packed else Rows)(model, rows, cuts, resume)


@torch.no_grad()
def can_pack(model: LanguageModel, longest: int) -> bool:
    """Whether packed rows of at most so many tokens give what whole ones do; two short ones are tried."""
    config = model.model.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if (
        config._attn_implementation != "sdpa"
        or not model.model._supports_attention_backend
        or not model.takes_positions
    ):
        return False
    if any(window and window < longest for window in windows):
        return False
    rows, cuts = [[0, 1, 2, 3, 4], [5, 6, 7]], [2, 1]
    with model.compute():
        try:
            trial = PackedRows(model, rows, cuts, -1)
            first, other = trial.first(trial.everyone).tolist()
            read_K = torch.tensor(
                [first + 1, first + 2, other + 1], device=model.device
            )  # 3 and 4 of [2, 3, 4], 7 of [6, 7]
            have = trial.forward(trial.everyone, read_K)[0, read_K]
        except NotPacked:
            return False
        whole = [model.hidden(*pad_left([row], model.device)) for row in rows]
    want = torch.cat([states[0, -n:] for states, n in zip(whole, (2, 1), strict=True)])
    eps = max(
        torch.finfo(dtype).eps for dtype in (getattr(torch, model.precision), model.model.dtype)
    )
    return bool((have - want).norm() < eps**0.5 * want.norm())


def keys_before(model: LanguageModel, before: Sequence[list[int]]) -> tuple[Kept, torch.Tensor]:
    """Keys and values of texts, padded on the left, and the mask (R, P)."""
    ids_RP, mask_RP = pad_left(before, model.device)
    cache = DynamicCache()
    model.hidden(ids_RP, mask_RP, cache)
    return [(layer.keys, layer.values) for layer in cache.layers], mask_RP


def shared_keys_before(
    model: LanguageModel, before: Sequence[list[int]]
) -> tuple[dict[int, tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """Keys and values (G, M, d) by layer of the M tokens of texts, and which of them each text has, (R, P); 0 behind its end.

    The texts make a tree of their tokens, or several of some ``TOKENS_AT_ONCE``: beginnings that they share are computed once.

    Raises:
        NotPacked: by the model's attention.
    """
    path_RP = torch.zeros(len(before), max(map(len, before)), dtype=torch.long)
    trees: list[dict[int, tuple[torch.Tensor, torch.Tensor]]] = []
    waiting, size = sorted(range(len(before)), key=lambda i: before[i]), 0
    while waiting:
        place: dict[tuple[int, int], int] = {}  # of a token behind another's place
        paths: list[torch.Tensor] = []
        for i in waiting:
            if paths and len(place) + len(before[i]) > TOKENS_AT_ONCE:
                break
            path = [-1]
            for token in before[i]:
                path.append(place.setdefault((path[-1], token), len(place)))
            paths.append(torch.tensor(path[1:]))
        seen_NN = torch.zeros(len(place), len(place), dtype=torch.bool)
        for i, path_P in zip(waiting, paths, strict=False):  # as many as there are paths
            seen_NN[path_P[:, None], path_P] = torch.ones(
                len(path_P), len(path_P), dtype=torch.bool
            ).tril()
            path_RP[i, : len(path_P)] = size + path_P
        waiting, size = waiting[len(paths) :], size + len(place)
        tree = Tree(seen_NN.to(model.device))
        ids_N = torch.tensor([token for _, token in place], device=model.device)
        states_of(model, ids_N, tree.seen_NN.sum(-1) - 1, tree)
        trees.append(tree.kept)
    kept = {
        layer: tuple(
            torch.cat(parts, dim=1) for parts in zip(*(tree[layer] for tree in trees), strict=True)
        )
        for layer in trees[0]
    }
    return kept, path_RP.to(model.device)
