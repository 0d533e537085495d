"""Rows that are packed one behind the other, so that passes compute no padding.

The tokens from the cuts on lie in one row (``attention.py``), and a beginning that several rows
share is computed once. This needs a model whose attention can be replaced; ``packs`` tries it.

    # R rows, N tokens from the cuts on, D model width
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby

import torch
from torch import nn

from editbench.layout import Output, hidden_of, replace_hidden
from editbench.methods._edit.fast.attention import Groups, NotPacked, Packed, Tree, states_of
from editbench.methods._edit.rows import KeysValues, Rows
from editbench.models import LanguageModel, computing
from editbench.text import pad_left

TOKENS_AT_ONCE = 512
"""Most tokens of one tree of beginnings."""


class PackedRows(Rows):
    """Rows without padding."""

    def keep(self) -> None:
        device = self.model.device
        self.cut_R = torch.tensor([len(row) for row in self.before], device=device)
        self.length_R = torch.tensor([len(row) for row in self.after], device=device)
        self.kept, self.path_RP = shared_keys_before(self.model, self.before)
        self.ids_N = torch.tensor([token for row in self.after for token in row], device=device)
        self.start_R = self.length_R.cumsum(0) - self.length_R
        self.chosen: torch.Tensor | None = None

    def choose(self, which_R: torch.Tensor) -> None:
        """Prepare the passes of some rows, unless they are those of the last call.

        Rows are laid out by length, in groups of similar length: 1, 2 to 3, 4 to 7, ... tokens.
        """
        if self.chosen is not None and torch.equal(self.chosen, which_R):
            return
        # The solver calls this in every step, and its rows change only when a fact stops.
        self.chosen, device = which_R, which_R.device
        length_R, order_R = self.length_R[which_R].sort(stable=True)
        laid_R, start_R = which_R[order_R], length_R.cumsum(0) - length_R
        # Back from the order of the lengths to the caller's.
        self.first_R = torch.empty_like(start_R).index_copy_(0, order_R, start_R)
        row_N = torch.arange(len(which_R), device=device).repeat_interleave(length_R)
        place_N = torch.arange(len(row_N), device=device) - start_R[row_N]
        self.index_N = self.start_R[laid_R][row_N] + place_N
        # Positions count from each text's own start, as if it stood alone.
        self.position_N = self.cut_R[laid_R][row_N] + place_N
        sizes = [len(list(rows)) for _, rows in groupby(length_R.tolist(), int.bit_length)]
        tokens = [int(length_r.sum()) for length_r in torch.split(length_R, sizes)]
        parts = zip(
            torch.split(laid_R, sizes),
            torch.split(row_N, tokens),
            torch.split(place_N, tokens),
            strict=True,
        )
        self.packed = Groups(
            [self.group(laid_r, row_n - row_n[0], place_n) for laid_r, row_n, place_n in parts]
        )

    def group(self, which_r: torch.Tensor, row_n: torch.Tensor, place_n: torch.Tensor) -> Packed:
        """Return rows padded to the longest among them, before and behind the cut."""
        cut_r = self.cut_R[which_r]
        before, after = int(cut_r.max()), int(place_n.max()) + 1
        # A token sees all kept tokens of its row, and its own ones up to itself.
        before_rP = torch.arange(before, device=cut_r.device) < cut_r[:, None]
        before_rSP = before_rP[:, None].expand(-1, after, -1)
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
        # Above the last attention no token reads another, so the last MLP skips what is not read.
        last = self.model.layout.mlp_module(self.model.model, self.model.layout.depth - 1)
        with nullcontext() if read_K is None else only_at(last, read_K):
            return states_of(self.model, self.ids_N[self.index_N], self.position_N, self.packed)

    def computed_below(self) -> tuple[torch.Tensor | None, bool]:
        below_1ND, wrapped = super().computed_below()
        if below_1ND is None:
            return None, wrapped
        # Layers up to ``resume`` never run again.
        self.kept = {layer: parts for layer, parts in self.kept.items() if layer > self.resume}
        self.chosen = None  # what was chosen holds the keys of all layers
        # From the order of that pass to the order of the rows, which ``index_N`` refers to.
        return torch.empty_like(below_1ND).index_copy_(1, self.index_N, below_1ND), wrapped


@torch.no_grad()
def packs(model: LanguageModel) -> bool:
    """Return whether two short rows give the same packed as whole.

    Ask ``attention_is_known`` first.
    """
    # Any ids will do: rows of two lengths, cut at two places, show whether positions are right.
    size = model.model.config.get_text_config().vocab_size
    rows, cuts = [[i % size for i in row] for row in ([0, 1, 2, 3, 4], [5, 6, 7])], [2, 1]
    with model.compute():
        try:
            trial = PackedRows(model, rows, cuts, -1)
            first, second = trial.first(trial.everyone).tolist()
            # the states of 3 and 4 in [2, 3, 4], and of 7 in [6, 7]
            read_K = torch.tensor([first + 1, first + 2, second + 1], device=model.device)
            have = trial.forward(trial.everyone, read_K)[0, read_K]
        except NotPacked:
            return False
        whole = [model.hidden(*pad_left([row], model.device)) for row in rows]
    want = torch.cat([states[0, -n:] for states, n in zip(whole, (2, 1), strict=True)])
    # Half of the digits of the coarser of the two number formats must agree.
    eps = max(
        torch.finfo(dtype).eps for dtype in (getattr(torch, model.precision), model.model.dtype)
    )
    return bool((have - want).norm() < eps**0.5 * want.norm())


def attention_is_known(model: LanguageModel, longest: int) -> bool:
    """Return whether the model attends in torch's usual way, with no window that rows exceed.

    And on one device: the rows' numbers are there.
    """
    if len({parameter.device for parameter in model.model.parameters()}) > 1:
        return False
    config = model.model.config.get_text_config()
    replaceable = (
        config._attn_implementation == "sdpa"
        and model.model._supports_attention_backend
        and model.takes_positions
    )
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return bool(replaceable) and not any(window and window < longest for window in windows)


@contextmanager
def only_at(module: nn.Module, index_K: torch.Tensor) -> Iterator[None]:
    """Inside, let the module compute only these tokens, counted row by row, and 0 for the others.

    It computes all tokens where it is called with more than the states: such an argument, for
    example Bloom's residual, covers all tokens.
    """
    whole = module.forward

    def forward(*args: torch.Tensor, **named: torch.Tensor) -> Output:
        if len(args) != 1 or named:
            output: Output = whole(*args, **named)
            return output
        (states,) = args
        chosen_KD = states.reshape(-1, states.shape[-1])[index_K]
        output = whole(chosen_KD if states.dim() == 2 else chosen_KD[None])
        chosen = hidden_of(output).reshape(len(index_K), -1)
        # Zeros will do, since only these tokens are read.
        everywhere = chosen.new_zeros(states.shape[:-1].numel(), chosen.shape[-1])
        laid = everywhere.index_copy(0, index_K, chosen).view(*states.shape[:-1], -1)
        replaced: Output = replace_hidden(output, laid)
        return replaced

    with computing(module, forward):
        yield


def shared_keys_before(
    model: LanguageModel, before: Sequence[list[int]]
) -> tuple[dict[int, KeysValues], torch.Tensor]:
    """Return keys and values of texts, computing a beginning that several share only once.

    The texts make a tree of their tokens, or several of about ``TOKENS_AT_ONCE``.

    Returns:
        Keys and values (G, M, d) of the M tokens by layer, and which of them each text has, (R, P),
        0 behind the end of a text.

    Raises:
        NotPacked: The model attends in another way.
    """
    path_RP = torch.zeros(len(before), max(map(len, before)), dtype=torch.long)
    trees: list[dict[int, KeysValues]] = []
    # Sorted, so that texts with a common beginning come into the same tree.
    waiting, size = sorted(range(len(before)), key=lambda i: before[i]), 0
    while waiting:
        place: dict[tuple[int, int], int] = {}  # (place of the token before, token) -> place
        paths: list[torch.Tensor] = []
        for i in waiting:
            if paths and len(place) + len(before[i]) > TOKENS_AT_ONCE:
                break
            # -1 is the root. A path that is already in the tree adds no new place.
            path = [-1]
            for token in before[i]:
                path.append(place.setdefault((path[-1], token), len(place)))
            paths.append(torch.tensor(path[1:]))
        seen_NN = torch.zeros(len(place), len(place), dtype=torch.bool)
        for i, path_P in zip(waiting, paths, strict=False):  # as many as there are paths
            causal_PP = torch.ones(len(path_P), len(path_P), dtype=torch.bool).tril()
            seen_NN[path_P[:, None], path_P] = causal_PP
            path_RP[i, : len(path_P)] = size + path_P
        waiting, size = waiting[len(paths) :], size + len(place)
        tree = Tree(seen_NN.to(model.device))
        ids_N = torch.tensor([token for _, token in place], device=model.device)
        # A token's position is how many tokens it sees before itself.
        states_of(model, ids_N, tree.seen_NN.sum(-1) - 1, tree)
        trees.append(tree.kept)
    kept = {
        layer: (
            torch.cat([tree[layer][0] for tree in trees], dim=1),
            torch.cat([tree[layer][1] for tree in trees], dim=1),
        )
        for layer in trees[0]
    }
    return kept, path_RP.to(model.device)
