"""Prompts cut at one token each: what is before it and below a layer is computed once, what follows by every pass.

Where the model lets its attention be replaced, the tokens from the cuts on lie behind one another in one row and nothing is
padded (``_attention.py``), and beginnings that rows share are computed once. Otherwise each row is padded to the longest.

    # R rows, N tokens from the cuts on, D model width; B x T = 1 x N where packed, R x S where padded
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from os.path import commonprefix
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from editbench.layout import hidden_of
from editbench.methods._attention import NotPacked, Packed, attending
from editbench.methods._hooks import Captured, added, plus, resumed_above, site_module
from editbench.models import LanguageModel
from editbench.text import pad_left

Kept = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values (R, G, P, d) of each layer."""
TEXTS_AT_ONCE = 64
SHARED = 4
"""Texts that begin with as many tokens alike share their beginning."""


class Rows:
    """Padded rows, for any model."""

    def __init__(self, model: LanguageModel, rows: Sequence[list[int]], cuts: Sequence[int], resume: int):
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
        self.ids_RS = torch.tensor([row + [0] * (width - len(row)) for row in self.after], device=self.model.device)
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
        self, which_R: torch.Tensor, layer: int, sites: Sequence[str], delta_RSD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Last hidden states (B T, D) of some rows, each row's delta added at its first token at each of the sites of
        ``layer``, and the index of these first tokens (R,); a row's others follow."""
        first_R, below_BTD = self.first(which_R), self.below(which_R)
        with ExitStack() as stack:
            for s, site in enumerate(sites):
                if site == "residual":
                    below_BTD = plus(below_BTD, first_R, delta_RSD[:, s])
                else:
                    stack.enter_context(added(site_module(self.model, layer, site), first_R, delta_RSD[:, s]))
            if below_BTD is not None:
                stack.enter_context(resumed_above(self.model, self.resume, below_BTD, self.wrapped))
            return self.forward(which_R).flatten(0, 1), first_R

    def first(self, which_R: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(which_R), device=which_R.device) * self.ids_RS.shape[1]

    def below(self, which_R: torch.Tensor) -> torch.Tensor | None:
        return None if self.below_BTD is None else self.below_BTD[which_R]

    def forward(self, which_R: torch.Tensor) -> torch.Tensor:
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
        self.longest = int(self.length_R.max())
        kept, self.mask_RP = shared_keys_before(self.model, self.before, self.longest)
        # rotated keys may be float32 where the values, and all products, are bfloat16
        self.room = {layer: (keys.to(values.dtype), values) for layer, (keys, values) in enumerate(kept)}
        self.ids_N = torch.tensor([token for row in self.after for token in row], device=device)
        self.start_R = self.length_R.cumsum(0) - self.length_R
        self.chosen: torch.Tensor | None = None

    def choose(self, which_R: torch.Tensor) -> None:
        """Prepares the passes of some rows; nothing is copied while they stay the same."""
        if self.chosen is not None and torch.equal(self.chosen, which_R):
            return
        self.chosen, length_R = which_R, self.length_R[which_R]
        row_N = torch.arange(len(which_R), device=which_R.device).repeat_interleave(length_R)
        self.first_R = length_R.cumsum(0) - length_R
        place_N = torch.arange(len(row_N), device=row_N.device) - self.first_R[row_N]
        self.index_N = self.start_R[which_R][row_N] + place_N
        self.position_N = self.cut_R[which_R][row_N] + place_N
        everyone = torch.equal(which_R, self.everyone)
        room = {i: layer if everyone else tuple(part[which_R] for part in layer) for i, layer in self.room.items()}
        causal_SS = torch.ones(self.longest, self.longest, dtype=torch.bool, device=which_R.device).tril()
        before_RSP = self.mask_RP[which_R, None].bool().expand(-1, self.longest, -1)
        seen_RST = torch.cat([before_RSP, causal_SS.expand(len(which_R), -1, -1)], dim=-1)
        self.packed = Packed(row_N, place_N, seen_RST, room)

    def first(self, which_R: torch.Tensor) -> torch.Tensor:
        self.choose(which_R)
        return self.first_R

    def below(self, which_R: torch.Tensor) -> torch.Tensor | None:
        self.choose(which_R)
        return None if self.below_BTD is None else self.below_BTD[:, self.index_N]

    def forward(self, which_R: torch.Tensor) -> torch.Tensor:
        self.choose(which_R)
        with attending(self.model, self.packed):
            ids_1N, position_1N = self.ids_N[None, self.index_N], self.position_N[None]
            return self.model.model.base_model(input_ids=ids_1N, position_ids=position_1N, use_cache=False).last_hidden_state

    def _below(self) -> tuple[torch.Tensor, bool]:
        try:
            return super()._below()
        finally:
            self.chosen = None  # prepared for all layers
            self.room = {layer: kept for layer, kept in self.room.items() if layer > self.resume}


def cut_rows(model: LanguageModel, rows: Sequence[list[int]], cuts: Sequence[int], resume: int) -> Rows:
    """Rows that are packed where ``model`` can be."""
    packed = can_pack(model, max(map(len, rows)))
    return (PackedRows if packed else Rows)(model, rows, cuts, resume)


@torch.no_grad()
def can_pack(model: LanguageModel, longest: int) -> bool:
    """Whether packed rows of at most so many tokens give what whole ones do; two short ones are tried."""
    config = model.model.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if config._attn_implementation != "sdpa" or not model.model._supports_attention_backend or not model.takes_positions:
        return False
    if any(window and window < longest for window in windows):
        return False
    rows, cuts = [[0, 1, 2, 3, 4], [5, 6, 7]], [2, 1]
    trial = PackedRows(model, rows, cuts, -1)
    with model.compute():
        try:
            have = trial.forward(trial.everyone)[0]
        except NotPacked:
            return False
        whole = [model.hidden(*pad_left([row], model.device)) for row in rows]
    want = torch.cat([states[0, cut:] for states, cut in zip(whole, cuts, strict=True)])
    eps = max(torch.finfo(dtype).eps for dtype in (getattr(torch, model.precision), model.model.dtype))
    return bool((have - want).norm() < eps**0.5 * want.norm())


def keys_before(model: LanguageModel, before: Sequence[list[int]]) -> tuple[Kept, torch.Tensor]:
    """Keys and values of texts, padded on the left, and the mask (R, P)."""
    ids_RP, mask_RP = pad_left(before, model.device)
    cache = DynamicCache()
    model.hidden(ids_RP, mask_RP, cache)
    return [(layer.keys, layer.values) for layer in cache.layers], mask_RP


def shared_keys_before(model: LanguageModel, before: Sequence[list[int]], room: int) -> tuple[Kept, torch.Tensor]:
    """The same, with ``room`` empty places behind; what texts of one beginning share is computed once."""
    alike: dict[tuple[int, ...], list[list[int]]] = {}
    for row in before:
        alike.setdefault(tuple(row[:SHARED]), []).append(row)
    beginnings = {start: commonprefix(rows) for start, rows in alike.items()}
    kept, mask_BQ = keys_before(model, list(beginnings.values()))
    place = {start: i for i, start in enumerate(beginnings)}
    beginning_R = torch.tensor([place[tuple(row[:SHARED])] for row in before], device=model.device)
    rest = [row[len(beginnings[tuple(row[:SHARED])]) :] for row in before]
    width = max(map(len, rest))
    mask_RP = nn.functional.pad(mask_BQ[beginning_R], (0, width))
    Q = mask_BQ.shape[1]
    whole = [tuple(nn.functional.pad(part, (0, 0, 0, width + room))[beginning_R] for part in layer) for layer in kept]
    longer = sorted((i for i, row in enumerate(rest) if row), key=lambda i: len(rest[i]))
    for start in range(0, len(longer), TEXTS_AT_ONCE):
        rows = torch.tensor(chunk := longer[start : start + TEXTS_AT_ONCE], device=model.device)
        ids_BT, mask_BT = pad_left([rest[i] for i in chunk], model.device)
        cache = DynamicCache([(k[beginning_R[rows]], v[beginning_R[rows]]) for k, v in kept])
        model.hidden(ids_BT, torch.cat([mask_RP[rows, :Q], mask_BT], dim=1), cache)
        end = Q + ids_BT.shape[1]
        mask_RP[rows, Q:end] = mask_BT
        for parts, layer in zip(whole, cache.layers, strict=True):
            for part, new in zip(parts, (layer.keys, layer.values), strict=True):
                part[rows, :, :end] = new
    return whole, mask_RP
